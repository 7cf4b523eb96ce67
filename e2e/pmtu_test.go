// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

const (
	narrow    = 1300 // an MTU
	oversized = 1400 // a payload that it has no room for, and others have
	toFar     = 86   // listener port of a backend behind a narrow link
	tellsMTU  = 9100 // server port that answers as it is told
)

// chain joins a new node to the load balancer by two routers. The MTUs are
// those of the three links, the load balancer's own first.
func (w *world) chain(name string, network int, mtus [3]int) *lab.Node {
	w.Helper()
	nodes := []*lab.Node{w.Balancer, w.Node(name + "-near"), w.Node(name + "-distant"), w.Node(name)}
	four := func(link, host int) string { return fmt.Sprintf("10.%d.%d.%d", network, link, host) }
	six := func(link, host int) string { return fmt.Sprintf("fd%d:%d::%d", network, link, host) }
	for i, mtu := range mtus {
		a, b := nodes[i], nodes[i+1]
		aDev := "away"
		if i == 0 {
			aDev = name
		}
		w.Link(a, aDev, b, "home")
		a.IP(fmt.Sprintf("link set %s mtu %d", aDev, mtu))
		b.IP(fmt.Sprintf("link set home mtu %d", mtu))
		a.Addr(aDev, four(i, 1)+"/24", six(i, 1)+"/64")
		b.Addr("home", four(i, 2)+"/24", six(i, 2)+"/64")
		b.Route("default via "+four(i, 1), "default via "+six(i, 1))
		for further := i + 1; further < len(mtus); further++ {
			a.Route(fmt.Sprintf("%s/24 via %s", four(further, 0), four(i, 2)), fmt.Sprintf("%s/64 via %s", six(further, 0), six(i, 2)))
		}
		b.Forward()
	}
	w.check(w.Err())
	return nodes[3]
}

// bottleneck is a way with a narrow link, and who has to learn of it.
type bottleneck struct {
	name         string
	from, server *lab.Node
	port         int
	// who sends too large packets: the client or the backend.
	clientLearns bool
	// counter shows what Blixt did about it.
	counter string
}

func (w *world) bottlenecks(bottlenecks []bottleneck) {
	servers := map[*lab.Node]bool{}
	for _, b := range bottlenecks {
		servers[b.server] = true
	}
	for _, b := range bottlenecks {
		for _, family := range []int{4, 6} {
			for _, network := range []string{"tcp", "udp"} {
				w.Run(fmt.Sprintf("%s/%s%d", b.name, network, family), func(t *testing.T) {
					w := w.in(t)
					w.check(forgetPaths(b.from))
					w.check(forgetPaths(b.server))
					if b.from == w.Balancer { // a route to oneself is not in what the kernel flushes
						route := lab.VIP6 + " dev lo table local"
						w.Balancer.IP("route del local "+route, "route add local "+route+" proto kernel metric 0")
						w.check(w.Err())
					}
					if network == "tcp" {
						w.transferPast(b, family)
					} else {
						w.datagramPast(b, family)
					}
				})
			}
		}
	}
	w.noChecksumErrors()
	for server := range servers {
		if n, err := server.ChecksumErrors(); n > 0 || err != nil {
			w.Errorf("%s has seen %d wrong checksums (%v)", server.Name, n, err)
		}
	}
}

// forgetPaths has a node forget every path MTU.
func forgetPaths(n *lab.Node) error {
	_, four := n.Run(patience, "ip", "-4", "route", "flush", "cache")
	_, six := n.Run(patience, "ip", "-6", "route", "flush", "cache")
	return errors.Join(four, six)
}

// transferPast sends much more than a packet each way.
func (w *world) transferPast(b bottleneck, family int) {
	const size = 300_000
	addr := vip(family, b.port)
	s := w.counting(func() {
		c := w.dial(b.from, "tcp", addr)
		w.ask(c, text(size))
		w.check(c.Close())
	})
	w.carried(s, "tcp", addr, 1, size, size, "reject_too_big")
	if s.of(b.counter) == 0 {
		w.Errorf("%s did not rise", b.counter)
	}
}

// datagramPast has one of two sockets send a datagram that is too large: it
// has to learn why, the other must not.
func (w *world) datagramPast(b bottleneck, family int) {
	addr, fits := vip(family, b.port+1000), text(narrow-100)
	server, err := b.server.ListenPacket("udp", at(own(b.server, family), tellsMTU))
	w.check(err)
	defer server.Close()
	w.check(forbidFragments(server.(*net.UDPConn), family))
	s := w.counting(func() {
		var clients [2]*net.UDPConn
		var seen [2]net.Addr
		for i := range clients {
			clients[i] = w.dial(b.from, "udp", addr).(*net.UDPConn)
			w.check(forbidFragments(clients[i], family))
			_, err := clients[i].Write([]byte("hello"))
			w.check(err)
			seen[i] = w.receive(server, "hello")
			_, err = server.WriteTo([]byte("welcome"), seen[i])
			w.check(err)
			w.receive(clients[i], "welcome")
		}
		if b.clientLearns {
			w.clientLearns(clients, addr, family)
		} else {
			w.serverLearns(server, seen[0])
		}
		// What fits goes on.
		_, err := clients[0].Write([]byte(fits))
		w.check(err)
		_, err = server.WriteTo([]byte(fits), w.receive(server, fits))
		w.check(err)
		w.receive(clients[0], fits)
		w.noReport(clients[1])
	})
	w.carried(s, "udp", addr, 2, len(fits), len(fits), "reject_too_big")
	if n := s.of(b.counter); n != 1 {
		w.Errorf("%s rose by %d, want 1", b.counter, n)
	}
}

// receive returns who has sent the datagram that is expected.
func (w *world) receive(pc net.PacketConn, want string) net.Addr {
	w.Helper()
	w.check(pc.SetReadDeadline(time.Now().Add(patience)))
	buffer := make([]byte, 1<<16)
	n, from, err := pc.ReadFrom(buffer)
	if err != nil {
		w.Fatalf("wait for %.40q: %v", want, err)
	}
	if string(buffer[:n]) != want {
		w.Fatalf("received %.40q instead of %.40q", buffer[:n], want)
	}
	return from
}

func (w *world) clientLearns(clients [2]*net.UDPConn, addr string, family int) {
	w.Helper()
	_, err := clients[0].Write([]byte(text(oversized)))
	w.check(err)
	w.awaitReport(clients[0], addr)
	if _, err := clients[0].Write([]byte(text(oversized))); !errors.Is(err, syscall.EMSGSIZE) {
		w.Errorf("the client may send what does not fit: %v", err)
	}
	if mtu, err := pathMTU(clients[0], family); mtu != narrow || err != nil {
		w.Errorf("the client takes its path MTU to be %d (%v), want %d", mtu, err, narrow)
	}
}

func (w *world) serverLearns(server net.PacketConn, client net.Addr) {
	w.Helper()
	_, err := server.WriteTo([]byte(text(oversized)), client)
	w.check(err)
	w.awaitReport(server.(*net.UDPConn), client.String())
	if _, err := server.WriteTo([]byte(text(oversized)), client); !errors.Is(err, syscall.EMSGSIZE) {
		w.Errorf("the backend may send what does not fit: %v", err)
	}
	_, err = takeReport(server.(*net.UDPConn)) // the kernel's own, of what we have just tried
	w.check(err)
	w.noReport(server.(*net.UDPConn))
}

// awaitReport waits until a socket hears that a datagram of its own, to that
// address, was too large.
func (w *world) awaitReport(c *net.UDPConn, to string) {
	w.Helper()
	var r report
	w.check(lab.Eventually(patience, func() (err error) {
		r, err = takeReport(c)
		return err
	}))
	if want := (report{syscall.EMSGSIZE, narrow, netip.MustParseAddrPort(to)}); r != want {
		w.Errorf("the socket hears %+v, want %+v", r, want)
	}
}

func (w *world) noReport(c *net.UDPConn) {
	w.Helper()
	if r, err := takeReport(c); !errors.Is(err, errNoReport) {
		w.Errorf("a socket hears %+v (%v), which is not about it", r, err)
	}
}

// narrowConfig serves two ports of everybody: for TCP, and a thousand higher
// for datagrams that the test itself answers.
func (w *world) narrowConfig(far *lab.Node) *lab.Config {
	services := map[int][]lab.Endpoint{}
	for port, node := range map[int]*lab.Node{toRemote: w.Backends[0], toPods: w.Pods[0], toFar: far} {
		on := ""
		if node == w.Pods[0] {
			on = "balancer"
		}
		services[port] = lab.On(on, lab.Endpoints(8080, node))
		services[port+1000] = lab.On(on, lab.Endpoints(tellsMTU, node))
	}
	return serve(services)
}

// TestNarrowLinksOfThePathAreLearned has routers with a small MTU before and
// behind the load balancer. Their ICMP errors are about translated packets.
func TestNarrowLinksOfThePathAreLearned(t *testing.T) {
	w := newWorld(t, "pmtu", 1, 1)
	traveller := w.chain("traveller", 61, [3]int{1500, narrow, 1500})
	far := w.chain("far", 71, [3]int{1500, narrow, 1500})
	_, err := far.ServeBoth("far", 8080)
	w.check(err)
	w.Offloads(false)
	w.run(w.narrowConfig(far))
	all := []bottleneck{
		{"client and far backend", w.Client, far, toFar, true, "icmp_replied"},
		{"pod and far backend", w.Pods[0], far, toFar, true, "icmp_replied"},
		{"host and far backend", w.Balancer, far, toFar, true, "icmp_replied"},
		{"far client and backend", traveller, w.Backends[0], toRemote, false, "icmp_forwarded"},
		{"far client and pod", traveller, w.Pods[0], toPods, false, "icmp_forwarded"},
	}
	w.bottlenecks(all)
	t.Run("offloads", func(t *testing.T) {
		w := w.in(t)
		w.Offloads(true)
		w.bottlenecks(all)
	})
}

// TestNarrowDevicesOfTheLoadBalancerAreLearned has devices of a small MTU on
// the load balancer, which then is the router that has to say so.
func TestNarrowDevicesOfTheLoadBalancerAreLearned(t *testing.T) {
	w := newWorld(t, "egress", 1, 1)
	traveller := w.chain("traveller", 62, [3]int{narrow, 1500, 1500})
	far := w.chain("far", 72, [3]int{narrow, 1500, 1500})
	_, err := far.ServeBoth("far", 8080)
	w.check(err)
	w.Balancer.IP("link set pods mtu 1300")
	w.Offloads(false)
	w.run(w.narrowConfig(far))
	all := []bottleneck{
		{"client and far backend", w.Client, far, toFar, true, "reject_too_big"},
		{"pod and far backend", w.Pods[0], far, toFar, true, "reject_too_big"},
		{"far client and backend", traveller, w.Backends[0], toRemote, false, "reject_too_big"},
		// Here the stack says so, about what we have translated before.
		{"client and pod", w.Client, w.Pods[0], toPods, true, "icmp_replied"},
	}
	w.bottlenecks(all)
	t.Run("offloads", func(t *testing.T) {
		w := w.in(t)
		w.Offloads(true)
		w.bottlenecks(all)
	})
}
