// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

const (
	narrow    = 1300 // an MTU
	oversized = 1400 // a payload too large for narrow, not for the other links
	toFar     = 86   // listener port of a backend behind a narrow link
	tellsMTU  = 9100 // server port of the test's own server
)

// addRouters joins a new node to the load balancer by two routers. The MTUs are
// those of the three links, the load balancer's own first.
func addRouters(w *labtest.World, name string, network int, mtus [3]int) *lab.Node {
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
	w.Check(w.Err())
	return nodes[3]
}

// bottleneck is a way with a narrow link, and whose sockets have to learn of it.
type bottleneck struct {
	name         string
	from, server *lab.Node
	port         int
	// who sends packets that are too large: the client or the backend.
	clientLearns bool
	// counter is the one that rises when Blixt handles them.
	counter string
}

func checkBottlenecks(w *labtest.World, bottlenecks []bottleneck) {
	servers := map[*lab.Node]bool{}
	for _, b := range bottlenecks {
		servers[b.server] = true
	}
	for _, b := range bottlenecks {
		for _, family := range []int{4, 6} {
			for _, network := range []string{"tcp", "udp"} {
				w.Run(fmt.Sprintf("%s/%s%d", b.name, network, family), func(t *testing.T) {
					w := w.In(t)
					w.Check(forgetPaths(b.from))
					w.Check(forgetPaths(b.server))
					if b.from == w.Balancer { // the kernel does not flush routes to itself
						route := lab.VIP6 + " dev lo table local"
						w.Balancer.IP("route del local "+route, "route add local "+route+" proto kernel metric 0")
						w.Check(w.Err())
					}
					if network == "tcp" {
						checkTransfer(w, b, family)
					} else {
						checkDatagram(w, b, family)
					}
				})
			}
		}
	}
	w.CheckChecksums()
	for server := range servers {
		if n, err := server.ChecksumErrors(); n > 0 || err != nil {
			w.Errorf("%s has seen %d wrong checksums (%v)", server.Name, n, err)
		}
	}
}

// forgetPaths has a node forget every path MTU.
func forgetPaths(n *lab.Node) error {
	_, four := n.Run(labtest.Patience, "ip", "-4", "route", "flush", "cache")
	_, six := n.Run(labtest.Patience, "ip", "-6", "route", "flush", "cache")
	return errors.Join(four, six)
}

// checkTransfer sends much more than one packet each way.
func checkTransfer(w *labtest.World, b bottleneck, family int) {
	const size = 300_000
	addr := labtest.VIP(family, b.port)
	s := w.Count(func() {
		c := w.Dial(b.from, "tcp", addr)
		w.Ask(c, text(size))
		w.Check(c.Close())
	})
	w.CheckCarried(s, "tcp", addr, 1, size, size, "reject_too_big")
	if s.Rise(b.counter) == 0 {
		w.Errorf("%s did not rise", b.counter)
	}
}

// checkDatagram has one of two sockets send a datagram that is too large. That socket
// has to receive the ICMP error, the other one must not.
func checkDatagram(w *labtest.World, b bottleneck, family int) {
	addr, fits := labtest.VIP(family, b.port+1000), text(narrow-100)
	server, err := b.server.ListenPacket("udp", labtest.At(own(b.server, family), tellsMTU))
	w.Check(err)
	defer server.Close()
	w.Check(forbidFragments(server.(*net.UDPConn), family))
	s := w.Count(func() {
		var clients [2]*net.UDPConn
		var seen [2]net.Addr
		for i := range clients {
			clients[i] = w.Dial(b.from, "udp", addr).(*net.UDPConn)
			w.Check(forbidFragments(clients[i], family))
			_, err := clients[i].Write([]byte("hello"))
			w.Check(err)
			seen[i] = receive(w, server, "hello")
			_, err = server.WriteTo([]byte("welcome"), seen[i])
			w.Check(err)
			receive(w, clients[i], "welcome")
		}
		if b.clientLearns {
			checkClientLearns(w, clients, addr, family)
		} else {
			checkServerLearns(w, server, seen[0])
		}
		// Datagrams that fit still pass.
		_, err := clients[0].Write([]byte(fits))
		w.Check(err)
		_, err = server.WriteTo([]byte(fits), receive(w, server, fits))
		w.Check(err)
		receive(w, clients[0], fits)
		noReport(w, clients[1])
	})
	w.CheckCarried(s, "udp", addr, 2, len(fits), len(fits), "reject_too_big")
	if n := s.Rise(b.counter); n != 1 {
		w.Errorf("%s rose by %d, want 1", b.counter, n)
	}
}

// receive waits for this datagram and returns its sender.
func receive(w *labtest.World, pc net.PacketConn, want string) net.Addr {
	w.Helper()
	w.Check(pc.SetReadDeadline(time.Now().Add(labtest.Patience)))
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

func checkClientLearns(w *labtest.World, clients [2]*net.UDPConn, addr string, family int) {
	w.Helper()
	_, err := clients[0].Write([]byte(text(oversized)))
	w.Check(err)
	awaitReport(w, clients[0], addr)
	if _, err := clients[0].Write([]byte(text(oversized))); !errors.Is(err, syscall.EMSGSIZE) {
		w.Errorf("the client may send what does not fit: %v", err)
	}
	if mtu, err := pathMTU(clients[0], family); mtu != narrow || err != nil {
		w.Errorf("the client takes its path MTU to be %d (%v), want %d", mtu, err, narrow)
	}
}

func checkServerLearns(w *labtest.World, server net.PacketConn, client net.Addr) {
	w.Helper()
	_, err := server.WriteTo([]byte(text(oversized)), client)
	w.Check(err)
	awaitReport(w, server.(*net.UDPConn), client.String())
	if _, err := server.WriteTo([]byte(text(oversized)), client); !errors.Is(err, syscall.EMSGSIZE) {
		w.Errorf("the backend may send what does not fit: %v", err)
	}
	_, err = takeReport(server.(*net.UDPConn)) // the kernel's own error about the datagram just sent
	w.Check(err)
	noReport(w, server.(*net.UDPConn))
}

// awaitReport waits until a socket has received an ICMP error about its own datagram to
// that address, which was too large.
func awaitReport(w *labtest.World, c *net.UDPConn, to string) {
	w.Helper()
	var r report
	w.Check(lab.Eventually(labtest.Patience, func() (err error) {
		r, err = takeReport(c)
		return err
	}))
	if want := (report{syscall.EMSGSIZE, narrow, netip.MustParseAddrPort(to), r.from}); r != want {
		w.Errorf("the socket hears %+v, want %+v", r, want)
	}
}

func noReport(w *labtest.World, c *net.UDPConn) {
	w.Helper()
	if r, err := takeReport(c); !errors.Is(err, errNoReport) {
		w.Errorf("a socket hears %+v (%v), which is not about it", r, err)
	}
}

// narrowConfig serves two ports of each backend: one for TCP, and one a thousand higher
// for datagrams that the test itself answers.
func narrowConfig(w *labtest.World, far *lab.Node) *lab.Config {
	services := map[int][]lab.Endpoint{}
	for port, node := range map[int]*lab.Node{toRemote: w.Backends[0], toPods: w.Pods[0], toFar: far} {
		on := ""
		if node == w.Pods[0] {
			on = "balancer"
		}
		services[port] = lab.On(on, lab.Endpoints(8080, node))
		services[port+1000] = lab.On(on, lab.Endpoints(tellsMTU, node))
	}
	return labtest.ConfigOf(services)
}

// TestNarrowLinksOfThePathAreLearned has routers with a small MTU before and
// behind the load balancer. Their ICMP errors are about translated packets.
func TestNarrowLinksOfThePathAreLearned(t *testing.T) {
	w := labtest.New(t, "pmtu", 1, 1)
	traveller := addRouters(w, "traveller", 61, [3]int{1500, narrow, 1500})
	far := addRouters(w, "far", 71, [3]int{1500, narrow, 1500})
	_, err := far.ServeBoth("far", 8080)
	w.Check(err)
	w.Offloads(false)
	w.StartBlixt(narrowConfig(w, far))
	all := []bottleneck{
		{"client and far backend", w.Client, far, toFar, true, "icmp_replied"},
		{"pod and far backend", w.Pods[0], far, toFar, true, "icmp_replied"},
		{"host and far backend", w.Balancer, far, toFar, true, "icmp_replied"},
		{"far client and backend", traveller, w.Backends[0], toRemote, false, "icmp_forwarded"},
		{"far client and pod", traveller, w.Pods[0], toPods, false, "icmp_forwarded"},
	}
	checkBottlenecks(w, all)
	t.Run("offloads", func(t *testing.T) {
		w := w.In(t)
		w.Offloads(true)
		checkBottlenecks(w, all)
	})
}

// TestNarrowDevicesOfTheLoadBalancerAreLearned has devices with a small MTU on the load
// balancer, which then is the router that has to send the ICMP error.
func TestNarrowDevicesOfTheLoadBalancerAreLearned(t *testing.T) {
	w := labtest.New(t, "egress", 1, 1)
	traveller := addRouters(w, "traveller", 62, [3]int{narrow, 1500, 1500})
	far := addRouters(w, "far", 72, [3]int{narrow, 1500, 1500})
	_, err := far.ServeBoth("far", 8080)
	w.Check(err)
	w.Balancer.IP("link set pods mtu 1300")
	w.Offloads(false)
	w.StartBlixt(narrowConfig(w, far))
	all := []bottleneck{
		{"client and far backend", w.Client, far, toFar, true, "reject_too_big"},
		{"pod and far backend", w.Pods[0], far, toFar, true, "reject_too_big"},
		{"far client and backend", traveller, w.Backends[0], toRemote, false, "reject_too_big"},
		// Here the stack sends the error, about a packet that Blixt has translated.
		{"client and pod", w.Client, w.Pods[0], toPods, true, "icmp_replied"},
	}
	checkBottlenecks(w, all)
	t.Run("offloads", func(t *testing.T) {
		w := w.In(t)
		w.Offloads(true)
		checkBottlenecks(w, all)
	})
}
