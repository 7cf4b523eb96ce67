// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package client

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestOneClientPortToTwoVIPs has a client use one port for connections to two VIPs, whose
// backend is the same: the second one gets another port, but the client's address.
func TestOneClientPortToTwoVIPs(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					const port = 31999
					second := map[int]string{4: second4, 6: second6}[family]
					seen := map[string]bool{}
					var conns []net.Conn
					for _, addr := range []string{vip(family, 80), at(second, 80), vip(family, 81)} {
						c, err := w.client.Dial(network, fmt.Sprintf(":%d", port), addr, patience)
						w.Check(err)
						defer c.Close()
						conns = append(conns, c)
					}
					for round := range 3 {
						for i, c := range conns {
							a, err := lab.Ask(c, "hello", patience)
							w.Check(err)
							if hostOf(a.Client) != own(w.client, family) || (i == 0 && a.Client != c.LocalAddr().String()) {
								t.Errorf("the backend sees %s as connection %d of %s", a.Client, i, c.LocalAddr())
							}
							seen[a.Client] = true
						}
						if len(seen) != len(conns) {
							t.Errorf("round %d: the backend sees %v, want %d different clients", round, seen, len(conns))
						}
					}
				})
			}
		}
	})
}

// TestPortsInTurns has two clients use the few ports that node a has, in turns, and node
// a forget in between whose they were. Nobody is ever seen as the other.
func TestPortsInTurns(t *testing.T) {
	eachTopology(t, func(w *world) {
		w.Check(w.a.plane.stop())
		w.a.plane = w.newPlane(w.a, planeOptions{suffix: "-few", ports: lb.PortRange{First: 20000, Last: 20003}})
		w.client.IP("addr add 198.51.100.8/24 dev eth0", "addr add 2001:db8:51::8/64 dev eth0 nodad")
		w.Check(w.Err())
		clients := map[int][]string{4: {client4, "198.51.100.8"}, 6: {client6, "2001:db8:51::8"}}
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					seen, refused := 0, 0
					for i := range 24 {
						if i%6 == 5 {
							w.Check(w.a.plane.forget())
						}
						local := at(clients[family][i%2], 32100+i)
						c, err := w.client.Dial(network, local, vip(family, 80), patience)
						if err != nil {
							refused++ // all ports are taken
							continue
						}
						a, err := lab.Ask(c, "hello", time.Second)
						c.Close()
						switch {
						case err != nil:
							refused++
						case hostOf(a.Client) != clients[family][i%2]:
							t.Errorf("client %d: the backend sees %s, want %s", i, a.Client, local)
						default:
							seen++
						}
					}
					t.Logf("%d seen as they are, %d refused", seen, refused)
					if seen == 0 {
						t.Error("nobody was served")
					}
				})
			}
		}
	})
}

// TestOnePortInTurns has a client use one port again and again.
func TestOnePortInTurns(t *testing.T) {
	eachSharedTopology(t, func(w *world) {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				w.Run(fmt.Sprintf("%s%d", network, family), func(t *testing.T) {
					w := w.In(t)
					w.dumpIfFailed()
					w.unharmed(func() {
						for i := range 20 {
							c, err := w.client.Dial(network, ":32200", vip(family, 80), patience)
							w.Check(err)
							if tcp, is := c.(*net.TCPConn); is {
								w.Check(tcp.SetLinger(0)) // so that the port is free at once
							}
							a, err := lab.Ask(c, "hello", patience)
							if err != nil || a.Client != c.LocalAddr().String() {
								t.Errorf("time %d: the backend sees %q (%v), want %s", i, a.Client, err, c.LocalAddr())
							}
							w.Check(c.Close())
						}
					})
				})
			}
		}
	})
}
