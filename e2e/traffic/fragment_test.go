// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// large is more than two packets hold.
const large = 4000

// TestFragmentsFollowTheFirst sends datagrams in several fragments, of which only the
// first has ports.
func TestFragmentsFollowTheFirst(t *testing.T) {
	w := labtest.New(t, "fragments", 2, 2)
	w.Offloads(false)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	type way struct {
		name string
		from *lab.Node
		port int
	}
	ways := []way{
		{"outside to remote", w.Client, toRemote},
		{"outside to pod", w.Client, toPods},
		{"host to remote", w.Balancer, toRemote},
		{"host to pod", w.Balancer, toPods},
	}
	all := func(t *testing.T, ways ...way) {
		for _, way := range ways {
			for _, family := range []int{4, 6} {
				t.Run(fmt.Sprintf("%s/udp%d", way.name, family), func(t *testing.T) {
					checkFragments(w.In(t), way.from, labtest.VIP(family, way.port))
				})
			}
		}
	}
	all(t, append(ways, way{"pod to remote", w.Pods[0], toRemote}, way{"pod to pod", w.Pods[0], toPods})...)
	// With br_netfilter a bridge reassembles datagrams, and the stack fragments them again.
	firewall(w, true, "forward")
	t.Run("put together by a bridge", func(t *testing.T) { all(t, ways...) })
	if n := firewallDrops(w); n > 0 {
		t.Errorf("conntrack of the load balancer called %d packets invalid", n)
	}
	w.CheckChecksums()
}

// checkFragments sends from several sockets at once, so that fragments of different
// datagrams interleave.
func checkFragments(w *labtest.World, from *lab.Node, addr string) {
	const sockets, rounds = 8, 3
	s := w.Count(func() {
		conns := make([]net.Conn, sockets)
		for i := range conns {
			conns[i] = w.Dial(from, "udp", addr)
		}
		if from == w.Balancer { // the MTU of its route to itself is larger: the first datagram has it learn ours
			_, _ = lab.Ask(conns[0], text(large), labtest.Seconds(0.2))
			w.Check(conns[0].SetDeadline(time.Time{}))
		}
		for round := range rounds {
			for i, c := range conns {
				_, err := c.Write([]byte(body(round, i)))
				w.Check(err)
			}
			for i, c := range conns {
				receiveAnswer(w, c, body(round, i))
			}
		}
	})
	sent := sockets * rounds * large
	w.CheckCarried(s, "udp", addr, sockets, sent, sent, "reject_too_big")
	if n := s.Rise("reject_too_big"); n > 0 && from != w.Balancer {
		w.Errorf("reject_too_big rose by %d", n)
	}
}

// body returns a large text that is sent only once.
func body(round, i int) string { return fmt.Sprintf("%d of %d: ", round, i) + text(large) }

// receiveAnswer waits for the server's answer to a body.
func receiveAnswer(w *labtest.World, c net.Conn, body string) {
	w.Helper()
	w.Check(c.SetReadDeadline(time.Now().Add(labtest.Patience)))
	buffer := make([]byte, 1<<16)
	n, err := c.Read(buffer)
	if err != nil {
		w.Fatalf("answer to %.10q: %v", body, err)
	}
	// The server's name and the client's address precede the text.
	if parts := bytes.SplitN(buffer[:n], []byte(" "), 3); len(parts) != 3 || string(parts[2]) != body {
		w.Fatalf("answer to %.10q is %.60q", body, buffer[:n])
	}
}

// TestDatagramsWithoutChecksumStayWithout sends and answers datagrams without a
// checksum, which IPv4 always allows, and IPv6 to those who agree on it (RFC 6935).
func TestDatagramsWithoutChecksumStayWithout(t *testing.T) {
	w := labtest.New(t, "unsummed", 1, 1)
	w.Offloads(false)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(tellsMTU, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(tellsMTU, w.Pods...)),
	}))
	for port, node := range map[int]*lab.Node{toRemote: w.Backends[0], toPods: w.Pods[0]} {
		for _, family := range []int{4, 6} {
			t.Run(fmt.Sprintf("%s/udp%d", node.Name, family), func(t *testing.T) {
				w := w.In(t)
				server, err := node.ListenPacket("udp", labtest.At(own(node, family), tellsMTU))
				w.Check(err)
				defer server.Close()
				w.Check(noChecksum(server.(*net.UDPConn), family))
				addr := labtest.VIP(family, port)
				atServer, atClient := sniff(w, node), sniff(w, w.Client)
				s := w.Count(func() {
					c := w.Dial(w.Client, "udp", addr).(*net.UDPConn)
					w.Check(noChecksum(c, family))
					for _, size := range []int{1, 999, 1000, large} {
						_, err := c.Write([]byte(text(size)))
						w.Check(err)
						_, err = server.WriteTo([]byte(text(size+1)), receive(w, server, text(size)))
						w.Check(err)
						receive(w, c, text(size+1))
					}
				})
				w.CheckCarried(s, "udp", addr, 1, large, large)
				checkUnsummed(w, node.Name, atServer(), family)
				checkUnsummed(w, "client", atClient(), family)
			})
		}
	}
	w.CheckChecksums()
}

// checkUnsummed fails the test unless a node has received UDP datagrams, and none
// with a checksum.
func checkUnsummed(w *labtest.World, who string, packets [][]byte, family int) {
	w.Helper()
	seen := 0
	for _, p := range packets {
		var sum []byte
		if four := p[0]>>4 == 4; four && family == 4 && p[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(p[6:])&0x1fff == 0 {
			sum = p[20+6:]
		} else if !four && family == 6 && p[6] == unix.IPPROTO_UDP {
			sum = p[40+6:]
		} else {
			continue
		}
		seen++
		if binary.BigEndian.Uint16(sum) != 0 {
			w.Errorf("%s receives a datagram with a checksum: %x", who, p[:60])
		}
	}
	if seen < 3 {
		w.Errorf("%s was seen to receive %d datagrams, want 3 at least", who, seen)
	}
}

// noChecksum has a UDP socket send without checksums, and accept datagrams without one.
func noChecksum(c *net.UDPConn, family int) error {
	if family == 6 {
		return set(c, unix.SOL_UDP, unix.UDP_NO_CHECK6_TX, 1, unix.UDP_NO_CHECK6_RX, 1)
	}
	return set(c, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
}

// TestOptionsOfTheIPHeaderTravelAlong sends TCP and UDP behind IP headers of unusual
// length.
func TestOptionsOfTheIPHeaderTravelAlong(t *testing.T) {
	w := labtest.New(t, "options", 1, 1)
	w.Offloads(false)
	w.StartBlixt(labtest.ConfigOf(map[int][]lab.Endpoint{
		toRemote: lab.Endpoints(8080, w.Backends...),
		toPods:   lab.On("balancer", lab.Endpoints(8080, w.Pods...)),
	}))
	for _, port := range []int{toRemote, toPods} {
		for _, network := range []string{"tcp", "udp"} {
			for _, family := range []int{4, 6} {
				t.Run(fmt.Sprintf("%d/%s%d", port, network, family), func(t *testing.T) {
					w := w.In(t)
					addr := labtest.VIP(family, port)
					received := sniff(w, map[int]*lab.Node{toRemote: w.Backends[0], toPods: w.Pods[0]}[port])
					s := w.Count(func() {
						c := w.Dial(w.Client, network, addr)
						w.Check(addOptions(c.(syscall.Conn), family))
						w.Ask(c, "short")
						w.Ask(c, text(1200))
						if network == "tcp" {
							w.Ask(c, text(30_000))
						} else {
							w.Ask(c, text(large))
						}
					})
					w.CheckCarried(s, network, addr, 1, large, large)
					if !slices.ContainsFunc(received(), func(p []byte) bool {
						return family == 4 && p[0] == 4<<4|7 || family == 6 && p[0]>>4 == 6 && p[6] == unix.IPPROTO_DSTOPTS
					}) {
						t.Error("the backend receives no options")
					}
				})
			}
		}
	}
	w.CheckChecksums()
}

// addOptions has a socket insert 8 bytes before the layer-4 header: the record route
// option in IPv4, a destination option of padding in IPv6.
func addOptions(c syscall.Conn, family int) error {
	return onSocket(c, func(fd int) error {
		if family == 6 {
			return unix.SetsockoptString(fd, unix.SOL_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
		}
		return unix.SetsockoptString(fd, unix.SOL_IP, unix.IP_OPTIONS, "\x07\x07\x04\x00\x00\x00\x00\x00")
	})
}
