// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
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
	prog         *ebpf.Program
	state, jump  *ebpf.Map
	frame        []byte
	pass, target *ebpf.Program
}

const theFrame = 1<<32 - 1

// The template's variables, in one map element; the frame follows them.
const (
	nextFlow  = 0
	flowMask  = 4 // the number of flows, a power of two, less one; theFrame: only the frame as it is
	frameAt   = 8
	tcIndex   = 44      // in struct __sk_buff: the mark of redirected packets
	portsEach = 1 << 14 // flows per address
)

func newTemplate(b *testing.B, p packet, flows uint32, target *ebpf.Program) *template {
	b.Helper()
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	t := &template{frame: p.bytes(), target: target}
	var err error
	size := uint32(frameAt + (len(t.frame)+7)/8*8)
	t.state, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: size, MaxEntries: 1})
	must(err)
	t.jump, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	must(err)
	addr, ports := int16(frameAt+14+12), int16(frameAt+14+20)
	if p.v6() {
		addr, ports = frameAt+14+8+12, frameAt+14+40
	}
	// Flow n has the port 1024 + n % 2^14 and 1 + n / 2^14 in the last byte of the address.
	t.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, t.state.FD(), 0),
		asm.LoadMem(asm.R1, asm.R7, nextFlow, asm.Word),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.Add.Imm(asm.R2, 1),
		asm.StoreMem(asm.R7, nextFlow, asm.R2, asm.Word),
		asm.LoadMem(asm.R3, asm.R7, flowMask, asm.Word),
		asm.JEq.Imm32(asm.R3, -1, "send"),
		// Flows that are neighbours in memory do not follow each other.
		asm.Mul.Imm(asm.R1, 0x27d4eb2d),
		asm.And.Reg(asm.R1, asm.R3),
		asm.Mov.Reg(asm.R2, asm.R1),
		asm.And.Imm(asm.R2, portsEach-1),
		asm.Add.Imm(asm.R2, 1024),
		asm.HostTo(asm.BE, asm.R2, asm.Half),
		asm.StoreMem(asm.R7, ports, asm.R2, asm.Half),
		asm.RSh.Imm(asm.R1, 14),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, addr+3, asm.R1, asm.Byte),
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
	}})
	must(err)
	t.pass, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Dual BSD/GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R0, -1), asm.Return(),
	}})
	must(err)
	value := make([]byte, size)
	binary.NativeEndian.PutUint32(value[flowMask:], flows-1)
	copy(value[frameAt:], t.frame)
	must(t.state.Put(uint32(0), value))
	b.Cleanup(func() {
		for _, c := range []interface{ Close() error }{t.prog, t.pass, t.state, t.jump} {
			_ = c.Close()
		}
	})
	return t
}

// time returns how long the packets take, by the CPU clock of the thread.
func (t *template) time(lab *lab, h hook, target *ebpf.Program, packets uint32) (each time.Duration, verdict uint32, err error) {
	if err := t.jump.Put(uint32(0), uint32(target.FD())); err != nil {
		return 0, 0, err
	}
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
		each = time.Duration(to.Nano() - from.Nano())
	})
	return each, verdict, err
}

// anyVerdict is for packets that are answered, or dropped if answers are too many.
const anyVerdict = 99

// measure reports the net time of a packet: the time with the program less the
// time without it. Each is the least of several rounds.
func (t *template) measure(b *testing.B, lab *lab, h hook, verdict uint32, rounds int, packets uint32) {
	b.Helper()
	least := func(best *time.Duration, p *ebpf.Program, want uint32) {
		b.Helper()
		each, got, err := t.time(lab, h, p, packets)
		if err != nil {
			b.Fatal(err)
		}
		if got != want && want != anyVerdict {
			b.Fatalf("verdict %d, want %d", int32(got), int32(want))
		}
		if *best == 0 || each < *best {
			*best = each
		}
	}
	var with, without, warm time.Duration
	least(&warm, t.target, verdict)
	for range rounds {
		least(&without, t.pass, tcxNext)
		least(&with, t.target, verdict)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(with-without)/float64(packets), "net-ns/packet")
	b.ReportMetric(float64(without)/float64(packets), "harness-ns/packet")
}

// establishMany copies the entries of one established flow for n clients, or
// for n backends.
func establishMany(b *testing.B, objs *BlixtObjects, forward, reply packet, n uint32, ofReply bool) {
	b.Helper()
	var f, r BlixtFlow
	table := objs.Flows
	if forward.protocol == unix.IPPROTO_UDP {
		table = objs.UdpFlows
	}
	for key, value := range map[BlixtFlowKey]*BlixtFlow{keyOf(forward): &f, keyOf(reply): &r} {
		if err := table.Lookup(key, value); err != nil {
			b.Fatal(err)
		}
	}
	f.IdleTicks, r.IdleTicks = 1<<30, 1<<30
	for i := range n {
		port, last := htons(uint16(1024+i%portsEach)), byte(1+i/portsEach)
		fk, rk := keyOf(forward), keyOf(reply)
		if ofReply { // the template varies the source of a packet: here the backend
			rk.Sport, rk.Src.Bytes[15] = port, last
			f.Dport, f.Dst = rk.Sport, rk.Src
			fk.Sport, fk.Src.Bytes[15] = port, last // unique, and otherwise of no importance
			r.Dport, r.Dst = fk.Sport, fk.Src
		} else {
			fk.Sport, fk.Src.Bytes[15] = port, last
			r.Dport, r.Dst = fk.Sport, fk.Src
			if f.Flags&uint32(BlixtFlowFlagFLOW_SNAT) == 0 {
				f.Sport, f.Src = fk.Sport, fk.Src
			} else {
				f.Sport = htons(uint16(1024 + i%60000))
			}
			rk.Dst, rk.Dport = f.Src, f.Sport
		}
		f.Tag, r.Tag = FlowTag(fk), FlowTag(rk)
		for key, value := range map[BlixtFlowKey]BlixtFlow{fk: f, rk: r} {
			if err := table.Put(key, value); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkPacket measures the time that the program takes for a packet.
func BenchmarkPacket(b *testing.B) {
	lab, err := sharedLab()
	if err != nil {
		b.Fatal(err)
	}
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		sizes := map[string]uint32{}
		for _, table := range []string{"flows", "new_flows", "udp_flows"} {
			sizes[table] = spec.Maps[table].MaxEntries
		}
		shrinkTables(spec) // all but the tables whose size matters
		for table, size := range sizes {
			spec.Maps[table].MaxEntries = size
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = objs.Close() })
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, flows := range []uint32{1, 1 << 10, 1 << 16} {
				benchmarkWorld(b, lab, objs, ip, protocol, flows)
			}
		}
	}
}

func benchmarkWorld(b *testing.B, lab *lab, objs *BlixtObjects, ip ipVersion, protocol uint8, flows uint32) {
	const rounds, packets = 5, 100000
	vip, other := port(ip.vip, "80"), port(ip.vip, "81")
	setUp := func(l *lb) (remoteOut packet) {
		l.clear()
		l.config(0)
		l.serve(ip, protocol, local)
		l.frontend(1, protocol, other, remote)
		l.openFlow(ip, protocol, true)
		in := opening(protocol, ip.client, other)
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		l.ingress(inside, answer(protocol, ip.remote, out.src.String())).wantVerdict(redirect, "replied")
		l.ingress(outside, establishing(protocol, ip.client, other)).wantVerdict(redirect, "forwarded"+andEstablished(protocol))
		return out
	}
	run := func(name string, p packet, h hook, verdict uint32, prepare func(out packet)) {
		b.Run(fmt.Sprintf("%s/%s%s/flows=%d", name, protocolName(protocol), ip.name[2:], flows), func(b *testing.B) {
			out := setUp(startLB(b, objs, nil))
			if prepare != nil {
				prepare(out)
			}
			newTemplate(b, p, flows, objs.Blixt).measure(b, lab, h, verdict, rounds, packets)
		})
	}
	toLocal, toRemote := establishing(protocol, ip.client, vip), establishing(protocol, ip.client, other)
	reply := answer(protocol, ip.local, ip.client)
	run("miss", establishing(protocol, ip.client, map[string]string{"IPv4": "203.0.113.99:80", "IPv6": "[2001:db8:f::99]:80"}[ip.name]), hook{dev: outside}, tcxNext, nil)
	run("local", toLocal, hook{dev: outside}, tcxNext, func(packet) { establishMany(b, objs, toLocal, reply, flows, false) })
	run("remote", toRemote, hook{dev: outside}, redirect, func(out packet) {
		establishMany(b, objs, toRemote, answer(protocol, ip.remote, out.src.String()), flows, false)
	})
	run("local-reply", reply, hook{dev: outside, egress: true, from: pods}, tcxNext,
		func(packet) { establishMany(b, objs, toLocal, reply, flows, true) })
	// The host's own packets, from ports outside of the SNAT range and from ports in it.
	own := establishing(protocol, port(ip.nodeIn, "1024"), ip.remote)
	out := hook{dev: inside, egress: true, from: pods}
	ours := func(packet) {
		if err := objs.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 1024, SnatMax: 1024 + portsEach - 1}); err != nil {
			b.Fatal(err)
		}
	}
	run("host", own, out, tcxNext, nil)
	run("host-in-range", own, out, tcxNext, ours)
	if flows == 1<<16 {
		run("host-in-range-new", opening(protocol, own.src.String(), ip.remote), out, tcxNext, ours)
	}
	if flows == 1<<16 { // more than new_flows has room for
		run("new", opening(protocol, ip.client, vip), hook{dev: outside}, tcxNext, nil)
	}
}

// TestVerifiedInstructions limits the work of the verifier.
func TestVerifiedInstructions(t *testing.T) {
	l := newLB(t)
	info, err := l.Blixt.Info()
	l.must(err)
	n, ok := info.VerifiedInstructions()
	if !ok {
		t.Fatal("the kernel does not report how many instructions it has verified")
	}
	loaded, err := info.Instructions()
	l.must(err)
	t.Logf("%d instructions verified, %d loaded", n, len(loaded))
	// The verifier gives up at a million. Older verifiers follow more paths than this one.
	if n > 100000 {
		t.Errorf("%d instructions verified, want at most 100000", n)
	}
}
