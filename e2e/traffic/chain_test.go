// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// counter is a TCX program that does not belong to Blixt: it counts packets and passes
// them on.
type counter struct{ packets *ebpf.Map }

// newCounter attaches a counter to the ingress of a device of the load balancer.
func newCounter(w *labtest.World, dev string, anchor link.Anchor) counter {
	w.Helper()
	packets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	w.Check(err)
	w.Cleanup(func() { packets.Close() })
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, packets.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.Mov.Imm(asm.R1, 1),
		asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, 0),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TCX_NEXT
		asm.Return(),
	}})
	w.Check(err)
	w.Cleanup(func() { program.Close() })
	w.Check(w.Balancer.Do(func() error {
		ifc, err := net.InterfaceByName(dev)
		if err != nil {
			return err
		}
		attached, err := link.AttachTCX(link.TCXOptions{
			Interface: ifc.Index, Program: program, Attach: ebpf.AttachTCXIngress, Anchor: anchor,
		})
		if err == nil {
			w.Cleanup(func() { attached.Close() })
		}
		return err
	}))
	return counter{packets}
}

func (c counter) count(w *labtest.World) uint64 {
	w.Helper()
	value, err := c.packets.LookupBytes(uint32(0))
	w.Check(err)
	return binary.NativeEndian.Uint64(value)
}

// TestDefect6_OtherProgramsStillRun attaches programs before and behind Blixt's. The
// one before sees every packet. The one behind sees what is not Blixt's, and what Blixt
// has translated and leaves to the stack.
func TestDefect6_OtherProgramsStillRun(t *testing.T) {
	w := labtest.New(t, "chain", 1, 1)
	_, err := w.Balancer.Serve("other", labtest.At(lab.Outside4, 7000))
	w.Check(err)
	behind := newCounter(w, "eth0", link.Tail())
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	before := newCounter(w, "eth0", link.Head())
	const datagrams = 50
	for _, to := range []struct {
		name, addr string
		seen       uint64
	}{
		{"not Blixt's", labtest.At(lab.Outside4, 7000), datagrams},
		{"to a pod", labtest.VIP(4, toPods), datagrams},
		{"redirected to a backend", labtest.VIP(4, toRemote), 0},
	} {
		t.Run(to.name, func(t *testing.T) {
			w := w.In(t)
			c := w.Dial(w.Client, "udp", to.addr)
			w.Ask(c, "so that neighbours are known")
			first, second := before.count(w), behind.count(w)
			for range datagrams {
				w.Ask(c, "hello")
			}
			first, second = before.count(w)-first, behind.count(w)-second
			// Neighbour discovery may add a packet or two.
			if first < datagrams || first > datagrams+10 || second < to.seen || second > to.seen+10 {
				t.Errorf("the program before Blixt saw %d packets and the one behind %d, want %d and %d", first, second, datagrams, to.seen)
			}
		})
	}
}
