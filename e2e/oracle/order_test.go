// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestFragmentsArriveInAnyOrder sends pieces of a datagram as a network may deliver them,
// to real sockets, through a balancer of each kind.
func TestFragmentsArriveInAnyOrder(t *testing.T) {
	for _, balancer := range []string{"nftables", "Blixt"} {
		t.Run(balancer, func(t *testing.T) {
			t.Parallel()
			w := labtest.New(t, "orders-"+strings.ToLower(balancer), 1, 1)
			serve(w, balancer, map[uint16]*lab.Node{toRemote: w.Backends[0], toLocal: w.Pods[0]})
			checkOrders(w)
			w.CheckChecksums()
		})
	}
}

// checkOrders sends a datagram in pieces, from the port of a socket that waits for the
// answer.
func checkOrders(w *labtest.World) {
	w.Helper()
	mac, err := forge.Hardware(w.Balancer, "eth0")
	w.Check(err)
	p, err := forge.Open(w.Client, "eth0", mac)
	w.Check(err)
	defer p.Close()
	for _, port := range served {
		for _, family := range families {
			to := netip.AddrPortFrom(vip[family], port)
			for i, order := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 2, 3}, {3, 0, 1, 2}, {0, 0, 1, 1, 2, 3}} {
				c := w.Dial(w.Client, "udp", to.String())
				from := c.LocalAddr().(*net.UDPAddr).AddrPort()
				d := forge.Datagram(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), to, letters(4000))
				d.DF, d.ID = false, uint32(1000*int(port)+10*family+i)
				pieces := d.Pieces(1280)
				for _, n := range order {
					w.Check(p.Send(forge.Frame{IP: d.Fragment(pieces[n])}))
				}
				if err := hear(c, 4000); err != nil {
					w.Errorf("pieces in order %v to %s: %v", order, to, err)
				}
			}
		}
	}
}
