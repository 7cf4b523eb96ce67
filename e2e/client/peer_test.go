// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// dial connects from a port that no flow has had of late.
func (w *world) dial(n *lab.Node, network, addr string) (net.Conn, error) {
	return n.Dial(network, fmt.Sprintf(":%d", labtest.NewPort()), addr, patience)
}

// peerOf asks a lab.Server by a new flow. It returns whom the server sees, and the
// client's own address.
func (w *world) peerOf(n *lab.Node, network, addr, question string) (seen, own string, err error) {
	c, err := w.dial(n, network, addr)
	if err != nil {
		return "", "", err
	}
	defer c.Close()
	a, err := lab.Ask(c, question, patience)
	if err == nil && a.Body != question {
		err = fmt.Errorf("answer to %.40q is about %.40q", question, a.Body)
	}
	return a.Client, c.LocalAddr().String(), err
}

// TestPodsReachBackendsOfOtherNodes is of pods of the node that serves. What a backend
// answers comes in by the device to its node, with a source whose route is another: a
// strict reverse-path filter drops that if the stack sees it there.
func TestPodsReachBackendsOfOtherNodes(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, h := range w.hosts {
			w.Check(h.plane.setHears(false))
		}
		for _, mode := range []int{0, 1, 2} {
			w.setFilter(mode)
			for _, network := range []string{"tcp", "udp"} {
				for _, family := range []int{4, 6} {
					w.Run(fmt.Sprintf("rp_filter %d/%s%d", mode, network, family), func(t *testing.T) {
						w := w.In(t)
						w.dumpIfFailed()
						if _, _, err := w.peerOf(w.a.pods[0], network, vip(family, 80), "hello"); err != nil {
							t.Errorf("a pod gets no answer: %v", err)
						}
					})
				}
			}
		}
	})
}

// TestBackendsSeeTheirClients has a client outside ask a backend of another node than the
// one that serves.
func TestBackendsSeeTheirClients(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, proxy := range []string{"iptables", "nftables"} {
			w.setProxy(proxy)
			for _, mode := range []int{0, 1, 2} {
				w.setFilter(mode)
				for _, network := range []string{"tcp", "udp"} {
					for _, family := range []int{4, 6} {
						w.Run(fmt.Sprintf("%s/rp_filter %d/%s%d", proxy, mode, network, family), func(t *testing.T) {
							w := w.In(t)
							w.dumpIfFailed()
							w.unharmed(func() {
								seen, own, err := w.peerOf(w.client, network, vip(family, 80), "hello")
								if err != nil || seen != own {
									t.Errorf("the backend sees %q (%v), want the client %s", seen, err, own)
								}
							})
						})
					}
				}
			}
		}
	})
}

// TestBackendsThatHearNothingSeeNodes is of nodes that are not known to hear
// announcements.
func TestBackendsThatHearNothingSeeNodes(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		w.Check(w.a.plane.setHears(false))
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				seen, _, err := w.peerOf(w.client, network, vip(family, 80), "hello")
				if want := w.sourceOf(w.a, family); err != nil || hostOf(seen) != want {
					w.Errorf("%s%d: the backend sees %q (%v), want %s", network, family, seen, err, want)
				}
			}
		}
	})
}

// hostOf returns the address of an address and a port.
func hostOf(addrPort string) string {
	host, _, _ := net.SplitHostPort(addrPort)
	return host
}

// unharmed fails the test if rules have dropped or changed anything while f ran: nodes
// have sent nothing from others' addresses, conntrack calls nothing invalid, and node b
// has masqueraded nothing.
func (w *world) unharmed(f func()) {
	w.Helper()
	nodes := []*lab.Node{w.swtch, w.a.Node, w.b.Node, w.d.Node}
	before := map[*lab.Node]map[string]uint64{}
	for _, n := range nodes {
		before[n] = w.ruleCounts(n)
	}
	f()
	for _, n := range nodes {
		for name, count := range w.ruleCounts(n) {
			if rose := count - before[n][name]; rose > 0 && (name != "masqueraded" || n == w.b.Node) {
				w.Errorf("counter %s of %s rose by %d", name, n.Name, rose)
			}
		}
	}
}

// dumpIfFailed prints what the nodes' devices carried, if the test fails and -dump is
// set.
func (w *world) dumpIfFailed() {
	w.Helper()
	if !*dump {
		return
	}
	for _, n := range []*lab.Node{w.a.Node, w.b.Node, w.b.pods[0]} {
		path := fmt.Sprintf("%s/%s-%d.pcap", w.Dir(), n.Name, time.Now().UnixNano())
		stop, err := n.Daemon("tcpdump", "-i", "any", "-s", "200", "-U", "--immediate-mode", "-w", path)
		w.Check(err)
		w.Cleanup(func() {
			_ = stop()
			if w.Failed() {
				text, _ := n.Run(patience, "tcpdump", "-nnS", "-r", path, "not", "arp", "and", "not", "icmp6")
				w.Logf("%s:\n%s", n.Name, text)
			}
		})
	}
	time.Sleep(300 * time.Millisecond) // until it captures
}
