// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	mathbits "math/bits"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A template is a program that writes a new packet, of one of many flows, and
// calls another program with it. Without it every repetition of a test run but
// the first would measure a packet that is translated already.
type template struct {
	prog        *ebpf.Program
	state, jump *ebpf.Map
	frame       []byte
	vars        []byte                   // what the state begins with
	next        map[*ebpf.Program]uint32 // the number of the next packet: each program gets all of a flow's segments
	warm        uint32                   // packets right before those that are measured, and in the same tick
	pass        *ebpf.Program
}

const theFrame = 1<<32 - 1

// The template's variables, in one map element; the frame follows them.
const (
	nextPacket = 0
	flowMask   = 4  // the number of flows, a power of two, less one; theFrame: only the frame as it is
	segment    = 8  // by how much the sequence number of a flow rises with each of its packets
	frameAt    = 16 // of a multiple of 8 bytes
	tcIndex    = 44 // in struct __sk_buff: the mark of redirected packets
	portsEach  = 1 << 14
)

// newTemplate makes a template for a number of flows that is a power of two, at
// most 1<<20. Flow n has the source port 1024 + n % portsEach, and the last byte
// of its source address is higher than the packet's by n / portsEach.
func newTemplate(b testing.TB, p packet, flows uint32) *template {
	b.Helper()
	return newTemplateOf(b, p, variety{}, flows)
}

// variety tells what differs between the flows of a template, if not the source.
type variety struct{ destinationAddress, destinationPort bool }

func newTemplateOf(b testing.TB, p packet, v variety, flows uint32) *template {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	t := &template{frame: p.bytes(), next: map[*ebpf.Program]uint32{}}
	var err error
	t.vars = make([]byte, frameAt+(len(t.frame)+7)/8*8)
	binary.NativeEndian.PutUint32(t.vars[flowMask:], flows-1)
	copy(t.vars[frameAt:], t.frame)
	t.state, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(t.vars)), MaxEntries: 1})
	must(err)
	t.jump, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(err)
	addr, ports := int16(frameAt+14+12+3), int16(frameAt+14+20) // the last byte of the source; the layer-4 header
	size := int16(4)
	if p.v6() {
		addr, ports, size = frameAt+14+8+15, frameAt+14+40, 16
	}
	sequence := ports + 4
	if v.destinationAddress {
		addr += size
	}
	if v.destinationPort {
		ports += 2
	}
	first := int32(t.vars[addr])
	code := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, t.state.FD(), 0),
		asm.LoadMem(asm.R1, asm.R7, nextPacket, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R7, nextPacket, asm.R2, asm.Word),
		asm.LoadMem(asm.R3, asm.R7, flowMask, asm.Word),
		asm.JEq.Imm32(asm.R3, -1, "send"),
	}
	if p.protocol == unix.IPPROTO_TCP {
		code = append(code,
			asm.Mov.Reg(asm.R4, asm.R1),
			asm.RSh.Imm(asm.R4, int32(mathbits.TrailingZeros32(flows)%32)),
			asm.LoadMem(asm.R2, asm.R7, segment, asm.Word),
			asm.Mul.Reg(asm.R4, asm.R2),
			asm.Add.Imm(asm.R4, int32(p.seq)),
			asm.HostTo(asm.BE, asm.R4, asm.Word),
			asm.StoreMem(asm.R7, sequence, asm.R4, asm.Word),
		)
	}
	code = append(code,
		// Flows that are neighbours in memory do not follow each other.
		asm.Mul.Imm(asm.R1, 0x27d4eb2d),
		asm.And.Reg(asm.R1, asm.R3),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, portsEach-1),
		asm.Add.Imm(asm.R2, 1024),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(asm.R7, ports, asm.R2, asm.Half),
		asm.RSh.Imm(asm.R1, 14),
		asm.Add.Imm(asm.R1, first),
		asm.StoreMem(asm.R7, addr, asm.R1, asm.Byte),
		asm.Mov.Imm(asm.R2, 0).WithSymbol("send"),
		asm.StoreMem(asm.R6, tcIndex, asm.R2, asm.Word),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R3, asm.R7),
		asm.Add.Imm(asm.R3, frameAt),
		asm.Mov.Imm(asm.R4, int32(len(t.frame))),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMapPtr(asm.R2, t.jump.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 99),
		asm.Return(),
	)
	t.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: code})
	must(err)
	t.pass, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(err)
	b.Cleanup(func() {
		for _, c := range []interface{ Close() error }{t.prog, t.pass, t.state, t.jump} {
			_ = c.Close()
		}
	})
	return t
}

// fixed makes the template send the very frame.
func (t *template) fixed() { binary.NativeEndian.PutUint32(t.vars[flowMask:], theFrame) }

// advance makes each segment of a flow begin where the one before it has ended.
func (t *template) advance(p packet) {
	binary.NativeEndian.PutUint32(t.vars[segment:], uint32(len(p.payload)))
}

// time returns how long the packets take, by the CPU clock of the thread.
func (t *template) time(lab *lab, h hook, target *ebpf.Program, packets uint32) (took time.Duration, verdict uint32, err error) {
	if err := t.jump.Put(uint32(0), uint32(target.FD())); err != nil {
		return 0, 0, err
	}
	binary.NativeEndian.PutUint32(t.vars[nextPacket:], t.next[target])
	if err := t.state.Put(uint32(0), t.vars); err != nil {
		return 0, 0, err
	}
	t.next[target] += packets
	ctx := make([]byte, 192)
	binary.NativeEndian.PutUint32(ctx[36:], lab.devices[h.dev])
	binary.NativeEndian.PutUint32(ctx[40:], lab.devices[h.dev])
	if h.egress {
		binary.NativeEndian.PutUint32(ctx[36:], lab.devices[h.from])
	}
	lab.do(func() {
		// On one core, so that its cache stays warm. No other goroutine uses the lab's thread.
		var core unix.CPUSet
		core.Set(runtime.NumCPU() - 1)
		if err = unix.SchedSetaffinity(0, &core); err != nil {
			return
		}
		var from, to unix.Timespec
		if err = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &from); err != nil {
			return
		}
		verdict, err = t.prog.Run(&ebpf.RunOptions{Data: t.frame, Context: ctx, Repeat: packets})
		if err != nil {
			return
		}
		err = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &to)
		took = time.Duration(to.Nano() - from.Nano())
	})
	return took, verdict, err
}

// TestTemplate shows that the packets are of as many flows as they are meant to
// be, each in its turn, and that the segments of each follow each other.
func TestTemplate(t *testing.T) {
	const flows, rounds = 1 << 20, 3
	lab, err := sharedLab()
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			p := tcp(ip.client, port(ip.vip, "80"))
			seen, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: flows})
			if err != nil {
				t.Fatal(err)
			}
			defer seen.Close()
			addr, ports := int32(14+12), int32(14+20)
			if p.v6() {
				addr, ports = 14+8+12, 14+40
			}
			// Counts the packet of the flow, if it has the number that its flow's next segment must have.
			count, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
				asm.Mov.Reg(asm.R6, asm.R1),
				asm.LoadAbs(addr+3, asm.Byte),
				asm.Mov.Reg(asm.R7, asm.R0),
				asm.Sub.Imm(asm.R7, int32(p.src.Addr().AsSlice()[p.src.Addr().BitLen()/8-1])),
				asm.LSh.Imm(asm.R7, 14),
				asm.LoadAbs(ports, asm.Half),
				asm.Add.Reg(asm.R7, asm.R0),
				asm.Sub.Imm(asm.R7, 1024),
				asm.StoreMem(asm.RFP, -4, asm.R7, asm.Word),
				asm.LoadAbs(ports+4, asm.Word),
				asm.Mov.Reg(asm.R8, asm.R0),
				asm.Sub.Imm(asm.R8, int32(p.seq)),
				asm.LoadMapPtr(asm.R1, seen.FD()),
				asm.Mov.Reg(asm.R2, asm.RFP),
				asm.Add.Imm(asm.R2, -4),
				asm.FnMapLookupElem.Call(),
				asm.JEq.Imm(asm.R0, 0, "out"),
				asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
				asm.Mov.Reg(asm.R2, asm.R1),
				asm.Mul.Imm(asm.R2, int32(len(p.payload))),
				asm.JNE.Reg(asm.R2, asm.R8, "out"),
				asm.Add.Imm(asm.R1, 1),
				asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
				asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
				asm.Return(),
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer count.Close()
			tmpl := newTemplate(t, p, flows)
			tmpl.advance(p)
			for range rounds {
				if _, _, err := tmpl.time(lab, hook{dev: outside}, tmpl.pass, 12345); err != nil { // another program's packets do not matter
					t.Fatal(err)
				}
				if _, _, err := tmpl.time(lab, hook{dev: outside}, count, flows); err != nil {
					t.Fatal(err)
				}
			}
			keys, values := make([]uint32, flows), make([]uint32, flows)
			var cursor ebpf.MapBatchCursor
			n, err := seen.BatchLookup(&cursor, keys, values, nil)
			if n != flows {
				t.Fatalf("%d elements read, want %d: %v", n, flows, err)
			}
			for i, v := range values {
				if v != rounds {
					t.Fatalf("flow %d has %d segments in sequence, want %d", keys[i], v, rounds)
				}
			}
		})
	}
}
