// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestClosedPorts asks for a port of a backend at which nobody listens: the client is told.
func TestClosedPorts(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() {
						c, err := w.dial(w.client, network, vip(family, 84))
						if err == nil {
							defer c.Close()
							_, err = lab.Ask(c, "hello", patience)
						}
						if !errors.Is(err, syscall.ECONNREFUSED) {
							t.Errorf("the client hears %v, want that it is refused", err)
						}
					})
				})
			}
		}
	})
}

// TestNarrowLinks has links of a small MTU behind the router, on the way from node a to b,
// and back: whoever sends learns of it, and transfers arrive.
func TestNarrowLinks(t *testing.T) {
	const narrow = 1300
	eachTopology(t, func(w *world) {
		w.accept(w.b.pods[0], func(c net.Conn) { _ = lab.Exchange(c, 0) })
		type way struct {
			name string
			// narrow has the way to an address of a family have a MTU.
			narrow func(mtu int)
			// sender learns of it, on its way to an address.
			sender *lab.Node
			to     map[int]string
		}
		to := func(h *host, peer *host, mtu int) {
			for _, family := range []int{4, 6} {
				on := "dev eth0"
				if w.tunnel {
					on = fmt.Sprintf("via %s dev %s onlink", w.sourceOf(peer, family), tunnelDevice)
				}
				target := w.sourceOf(peer, family)
				if peer == w.b {
					target = own(w.b.pods[0], family)
					if !w.tunnel {
						on = "via " + own(w.b.Node, family)
					}
				}
				if mtu == 0 {
					h.IP("route del " + target + " " + on)
				} else {
					h.IP(fmt.Sprintf("route add %s %s mtu lock %d", target, on, mtu))
				}
			}
		}
		clients, vips := map[int]string{4: client4, 6: client6}, map[int]string{4: vip4, 6: vip6}
		for _, way := range []way{
			{"router to client", func(mtu int) {
				if mtu == 0 {
					mtu = 1500
				}
				w.router.IP(fmt.Sprintf("link set eth0 mtu %d", mtu))
			}, w.b.pods[0], clients},
			{"node a to b", func(mtu int) { to(w.a, w.b, mtu) }, w.client, vips},
			{"node b to a", func(mtu int) { to(w.b, w.a, mtu) }, w.b.pods[0], clients},
		} {
			way.narrow(narrow)
			w.Check(w.Err())
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s/IPv%d", way.name, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() {
						w.Check(errors.Join(forgetPaths(w.client), forgetPaths(w.b.pods[0]))) // the MSS depends on them
						c, err := w.dial(w.client, "tcp", vip(family, 9001))
						w.Check(err)
						defer c.Close()
						w.Check(c.SetDeadline(time.Now().Add(3 * patience)))
						if err := lab.Exchange(c, 1<<20); err != nil {
							t.Errorf("a transfer fails: %v", err)
						}
						out, err := way.sender.Run(patience, "ip", "route", "get", way.to[family])
						if err != nil || !strings.Contains(out, fmt.Sprintf("mtu %d", narrow)) {
							t.Errorf("%s has this route to %s (%v), want a MTU of %d:\n%s", way.sender.Name, way.to[family], err, narrow, out)
						}
					})
				})
			}
			way.narrow(0)
			w.Check(w.Err())
		}
	})
}

// forgetPaths has a node forget every path MTU.
func forgetPaths(n *lab.Node) error {
	_, four := n.Run(patience, "ip", "-4", "route", "flush", "cache")
	_, six := n.Run(patience, "ip", "-6", "route", "flush", "cache")
	return errors.Join(four, six)
}
