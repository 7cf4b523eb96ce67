// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestClientsOnTheBackendsNode has clients on node b, and the backend itself for one: what
// it answers them would leave by no device with the program, so it sees node a.
func TestClientsOnTheBackendsNode(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for name, n := range map[string]*lab.Node{"pod": w.b.pods[1], "the backend": w.b.pods[0], "host": w.b.Node} {
			for _, network := range []string{"tcp", "udp"} {
				for _, family := range []int{4, 6} {
					w.Run(fmt.Sprintf("%s/%s%d", name, network, family), func(t *testing.T) {
						w := w.In(t)
						w.dumpIfFailed()
						w.seesNode(n, network, family, 1)
					})
				}
			}
		}
	})
}

// seesNode fails the test unless a backend of node b sees node a as its client, and node
// b counts that many flows that it cannot undo.
func (w *world) seesNode(n *lab.Node, network string, family int, impossible uint64) {
	w.Helper()
	rose := w.rise(w.b, func() {
		seen, _, err := w.peerOf(n, network, vip(family, 80), "hello")
		if want := w.sourceOf(w.a, family); err != nil || hostOf(seen) != want {
			w.Errorf("the backend sees %q (%v), want %s", seen, err, want)
		}
	})
	if rose["undo_impossible"] != impossible || rose["flow_undone"] != 0 {
		w.Errorf("undo_impossible rose by %d, flow_undone by %d, want %d and 0", rose["undo_impossible"], rose["flow_undone"], impossible)
	}
}

// TestRouteByADeviceWithoutTheProgram has node b send to the client by another device
// than those with the program.
func TestRouteByADeviceWithoutTheProgram(t *testing.T) {
	eachTopology(t, func(w *world) {
		w.Link(w.b.Node, "eth1", w.router, "eth2")
		w.b.Addr("eth1", "10.8.0.2/24", "fd08::2/64")
		w.router.Addr("eth2", "10.8.0.1/24", "fd08::1/64")
		w.b.Route("198.51.100.0/24 via 10.8.0.1", "2001:db8:51::/64 via fd08::1")
		w.Check(w.Err())
		w.setFilter(1)
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() { w.seesNode(w.client, network, family, 1) })
				})
			}
		}
	})
}

// TestProgramAbsentAtTheBackendsNode removes Blixt from node b, while node a announces:
// connections and datagrams arrive as they were sent, from node a.
func TestProgramAbsentAtTheBackendsNode(t *testing.T) {
	eachTopology(t, func(w *world) {
		w.Check(w.b.plane.stop())
		pod := w.b.pods[0]
		w.accept(pod, func(c net.Conn) { _ = lab.Exchange(c, 0) }) // the client reports errors
		w.learnPath(1472)
		for _, offloads := range []bool{true, false} {
			w.Offloads(offloads)
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("offloads %v/IPv%d", offloads, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() {
						seen, _, err := w.peerOf(w.client, "tcp", vip(family, 80), "hello")
						if want := w.sourceOf(w.a, family); err != nil || hostOf(seen) != want {
							t.Errorf("the backend sees %q (%v), want %s", seen, err, want)
						}
						c, err := w.dial(w.client, "tcp", vip(family, 9001))
						w.Check(err)
						defer c.Close()
						w.Check(c.SetDeadline(time.Now().Add(3 * patience)))
						w.Check(lab.Exchange(c, 4<<20))
						for _, size := range []int{1, 15, 16, 1000, 1300, 1472, 3000} {
							w.receivesAsSent(family, size)
						}
					})
				})
			}
		}
		w.checkSums()
	})
}

// receivesAsSent sends three datagrams of a new flow to pod b1. It fails the test unless
// all arrive from node a and as they were sent. Only where the announcement goes ahead,
// which is where it does not fit, empty ones may come in addition.
func (w *world) receivesAsSent(family, size int) {
	w.Helper()
	pod := w.b.pods[0]
	server, err := pod.ListenPacket("udp", at(own(pod, family), 9100))
	w.Check(err)
	defer server.Close()
	c, err := w.dial(w.client, "udp", vip(family, 85))
	w.Check(err)
	defer c.Close()
	buffer := make([]byte, 1<<16)
	for i := range 3 {
		sent := fmt.Sprint(i) + text(size-1)
		_, err := c.Write([]byte(sent))
		w.Check(err)
		for {
			w.Check(server.SetReadDeadline(time.Now().Add(patience)))
			n, from, err := server.ReadFrom(buffer)
			w.Check(err)
			if want := w.sourceOf(w.a, family); hostOf(from.String()) != want {
				w.Errorf("%d bytes: datagram %d comes from %s, want %s", size, i, from, want)
			}
			if n == 0 && size > 1300 {
				continue
			}
			if got := string(buffer[:n]); got != sent {
				w.Errorf("%d bytes: datagram %d arrives as %d bytes %.20q", size, i, n, got)
			}
			break
		}
	}
	// Nothing comes in addition.
	w.Check(server.SetReadDeadline(time.Now().Add(50 * time.Millisecond)))
	if n, from, err := server.ReadFrom(buffer); !errors.Is(err, os.ErrDeadlineExceeded) {
		w.Errorf("%d bytes: %d more come from %s (%v)", size, n, from, err)
	}
}

// TestPodsAsClients has pods of nodes a and d ask by the VIP. With masquerading backends
// see the pods' node, and without, as clusters do it that route pods everywhere, the pods.
func TestPodsAsClients(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, masquerade := range []bool{true, false} {
			w.setRules("iptables", masquerade)
			for _, h := range []*host{w.a, w.d} {
				for _, network := range []string{"tcp", "udp"} {
					for _, family := range []int{4, 6} {
						w.Run(fmt.Sprintf("masquerade %v/%s/%s%d", masquerade, h.Name, network, family), func(t *testing.T) {
							w := w.In(t)
							w.dumpIfFailed()
							seen, pod, err := w.peerOf(h.pods[1], network, vip(family, 80), "hello")
							want := []string{hostOf(pod)}
							if masquerade {
								want = []string{own(h.Node, family)}
							}
							if network == "udp" {
								// Datagrams of pods are not announced: they leave by the program.
								want = append(want, w.sourceOf(h, family))
							}
							if err != nil || !slices.Contains(want, hostOf(seen)) {
								t.Errorf("the backend sees %q (%v), want %v", seen, err, want)
							}
						})
					}
				}
			}
		}
	})
}

// TestDirectPacketsAreUntouched has pods and hosts of other nodes ask the backend itself,
// from ports that announced flows may have and from others: it sees them.
func TestDirectPacketsAreUntouched(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for name, n := range map[string]*lab.Node{"pod": w.a.pods[1], "host": w.a.Node, "pod of its node": w.b.pods[1], "its host": w.b.Node} {
			for _, port := range []int{20123, 29998, 41234} {
				for _, network := range []string{"tcp", "udp"} {
					for _, family := range []int{4, 6} {
						w.Run(fmt.Sprintf("%s/%d/%s%d", name, port, network, family), func(t *testing.T) {
							w := w.In(t)
							w.dumpIfFailed()
							w.unharmed(func() {
								start := time.Now()
								c, err := n.Dial(network, fmt.Sprintf(":%d", port), at(own(w.b.pods[0], family), 8080), patience)
								w.Check(err)
								defer c.Close()
								for range 3 {
									a, err := lab.Ask(c, "hello", patience)
									if err != nil || a.Client != c.LocalAddr().String() {
										t.Fatalf("the backend sees %q (%v), want %s", a.Client, err, c.LocalAddr())
									}
								}
								t.Logf("took %s", time.Since(start).Round(time.Millisecond))
							})
						})
					}
				}
			}
		}
	})
}
