// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

const (
	tcxNext = -1 // TCX_NEXT: the next program gets the packet
	tcxPass = 0  // TCX_PASS: no other one does
)

// attachFirst attaches a program that returns a verdict before all others of an
// interface of the balancer, in both directions.
func attachFirst(w *labtest.World, dev string, verdict int32) {
	w.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "other", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	w.Check(err)
	defer p.Close()
	w.Check(w.Balancer.Do(func() error {
		i, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			ln, err := link.AttachTCX(link.TCXOptions{Interface: i.Attrs().Index, Program: p, Attach: at, Anchor: link.Head()})
			if err != nil {
				return err
			}
			w.Cleanup(func() { ln.Close() })
		}
		return nil
	}))
}

// awaitFirst waits until Blixt's program is the first one of an interface.
func awaitFirst(w *labtest.World, dev string) {
	w.Helper()
	w.Check(lab.Eventually(labtest.Patience, func() error {
		info := w.Status().Program
		on := slices.DeleteFunc(slices.Clone(info.Links), func(l loader.LinkInfo) bool { return l.Interface != dev })
		for _, l := range on {
			if l.Detached || len(l.Before) > 0 {
				return fmt.Errorf("%s has %+v", dev, on)
			}
		}
		if len(on) != 2 {
			return fmt.Errorf("%s has %+v", dev, on)
		}
		return nil
	}))
}

// TestProgramsBeforeBlixt attaches another program before Blixt's, on the clients' side
// and on that of the backends. One that passes packets on breaks nothing, although
// Blixt gets back to the front; behind one that does not, clients are served again.
func TestProgramsBeforeBlixt(t *testing.T) {
	w := labtest.New(t, "before", 2, 0)
	w.StartBlixt(one(w.Backends[0]), "eth0", "eth1")
	clients := w.StartClients(40, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	for _, dev := range []string{"eth0", "eth1"} {
		attachFirst(w, dev, tcxNext)
		awaitFirst(w, dev)
		clients.CheckUnharmed("a program before Blixt at " + dev)
	}
	clients.Stop()
	attachFirst(w, "eth0", tcxPass)
	awaitFirst(w, "eth0")
	w.Ask(w.Dial(w.Client, "tcp", labtest.VIP(4, 80)), "are you there?")
	if !strings.Contains(w.Blixt.Log(), "(other) has come before Blixt at eth0 ingress") {
		t.Errorf("it does not say so:\n%s", w.Blixt.Log())
	}
}
