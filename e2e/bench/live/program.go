// SPDX-License-Identifier: Apache-2.0

package live

import (
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// Verdicts of programs at TCX hooks and of XDP programs (linux/bpf.h).
const (
	tcxNext = -1
	tcxDrop = 2
	xdpPass = 2
)

// program loads instructions. Their license matters to helpers only that these
// programs do not call.
func program(kind ebpf.ProgramType, ins asm.Instructions) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: kind, Instructions: ins, License: "GPL"})
}

// verdict loads a program that does nothing.
func verdict(kind ebpf.ProgramType, v int32) (*ebpf.Program, error) {
	return program(kind, asm.Instructions{asm.Mov.Imm(asm.R0, v), asm.Return()})
}

// sink is a program for TCX hooks that counts packets and drops them.
type sink struct {
	program *ebpf.Program
	count   *ebpf.Map
}

func newSink() (*sink, error) {
	count, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("create map of sink: %w", err)
	}
	p, err := program(ebpf.SchedCLS, asm.Instructions{
		asm.LoadMapValue(asm.R1, count.FD(), 0),
		asm.Mov.Imm(asm.R2, 1),
		asm.AddAtomic.Mem(asm.R1, asm.R2, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, tcxDrop),
		asm.Return(),
	})
	if err != nil {
		return nil, fmt.Errorf("load sink: %w", err)
	}
	return &sink{p, count}, nil
}

// packets returns how many packets have arrived.
func (s *sink) packets() (n uint64, err error) {
	return n, s.count.Lookup(uint32(0), &n)
}

// generator is an XDP program that turns whatever frame it gets into the next one of a
// list. The kernel runs it on frames that no device has received, and gives its stack
// what it passes (Documentation/bpf/bpf_prog_run.rst, live frames). So a packet costs
// the sender little, and arrives in batches, as from a network card.
type generator struct {
	program *ebpf.Program
	state   *ebpf.Map
	frames  int
	template,
	context []byte
}

// newGenerator prepares frames of one length, a multiple of 8, to come in by a device.
func newGenerator(device int, frames [][]byte) (*generator, error) {
	size := len(frames[0])
	list, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(size), MaxEntries: uint32(len(frames))})
	if err != nil {
		return nil, fmt.Errorf("create map of frames: %w", err)
	}
	defer list.Close() // the program keeps it
	for i, f := range frames {
		if err := list.Put(uint32(i), f); err != nil {
			return nil, fmt.Errorf("store frame: %w", err)
		}
	}
	state, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, fmt.Errorf("create map of generator: %w", err)
	}
	ins := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMapValue(asm.R7, state.FD(), 0),
		asm.LoadMem(asm.R1, asm.R7, 0, asm.Word),
		asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
		asm.Add.Imm(asm.R1, 1),
		asm.JLT.Imm(asm.R1, int32(len(frames)), "store"),
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.R7, 0, asm.R1, asm.Word).WithSymbol("store"),
		asm.LoadMapPtr(asm.R1, list.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "abort"),
		asm.LoadMem(asm.R2, asm.R6, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R6, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R1, asm.R2),
		asm.Add.Imm(asm.R1, int32(size)),
		asm.JGT.Reg(asm.R1, asm.R3, "abort"),
	}
	for at := int16(0); int(at) < size; at += 8 {
		ins = append(ins, asm.LoadMem(asm.R4, asm.R0, at, asm.DWord), asm.StoreMem(asm.R2, at, asm.R4, asm.DWord))
	}
	ins = append(ins, asm.Mov.Imm(asm.R0, xdpPass), asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("abort"), asm.Return())
	p, err := program(ebpf.XDP, ins)
	if err != nil {
		return nil, fmt.Errorf("load generator: %w", err)
	}
	g := &generator{program: p, state: state, frames: len(frames), template: frames[0]}
	// struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
	for _, field := range []int{0, size, 0, device, 0, 0} {
		g.context = binary.NativeEndian.AppendUint32(g.context, uint32(field))
	}
	return g, nil
}

// run has n frames come in, on a thread of the device's network namespace.
func (g *generator) run(n int) error {
	if n == 0 {
		return nil
	}
	_, err := g.program.Run(&ebpf.RunOptions{Data: g.template, Context: g.context, Repeat: uint32(n), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES})
	if err != nil {
		return fmt.Errorf("run generator: %w", err)
	}
	return nil
}
