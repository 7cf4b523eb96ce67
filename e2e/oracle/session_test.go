// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
)

// session sends the packets of one kind through one network.
type session struct {
	*network
	family              int
	client, vip, server netip.AddrPort
	at                  string // endpoint of the server
	// seen is the client as the server sees it, from the first packet on.
	seen netip.AddrPort
	// crowd: the kind has more clients than one.
	crowd bool
	// next is the sequence number that each side sends next.
	next  struct{ client, server uint32 }
	sent  [][]byte
	steps []step
	err   error
}

// step is what was sent, and all that arrived of it anywhere.
type step struct {
	what    string
	arrived []string
}

func newSession(w *network, k kind, clientPort uint16) *session {
	s := &session{network: w, family: k.family, at: "remote"}
	s.client = netip.AddrPortFrom(client[k.family], clientPort)
	s.vip = netip.AddrPortFrom(vip[k.family], k.port)
	if k.port == hostPort {
		s.vip = netip.AddrPortFrom(outside[k.family], k.port)
	}
	s.server = netip.AddrPortFrom(remote[k.family], serverPort)
	if k.port == toLocal {
		s.at, s.server = "local", netip.AddrPortFrom(local[k.family], serverPort)
	}
	s.next.client, s.next.server = 1_000_000, 3_000_000_000
	return s
}

// portName names ports that are none of the test's choice.
func (s *session) portName(a netip.Addr, p uint16) string {
	if a == inside[s.family] {
		switch {
		case s.seen.IsValid() && s.seen.Port() != p && s.crowd:
			return "another"
		case s.seen.IsValid() && s.seen.Port() != p:
			return fmt.Sprintf("%d INSTEAD OF %d", p, s.seen.Port())
		case p < 512:
			return "below 512"
		case p < 1024:
			return "below 1024"
		}
		return "any"
	}
	if a == client[s.family] && p == s.client.Port() {
		return "own"
	}
	return fmt.Sprint(p)
}

// step sends frames from an endpoint and notes what arrives.
func (s *session) step(what, from string, frames ...forge.Frame) {
	if s.err != nil {
		return
	}
	for _, f := range frames {
		s.sent = append(s.sent, f.IP)
		if err := s.ports[from].Send(f); err != nil {
			s.err = fmt.Errorf("send %s from %s: %w", what, from, err)
			return
		}
	}
	arrived, err := s.settle()
	if err != nil {
		s.err = err
		return
	}
	done := step{what: what}
	for _, name := range endpoints {
		whole := reassemble(arrived[name])
		for _, p := range whole {
			if name == s.at && !s.seen.IsValid() {
				s.meet(p)
			}
			done.arrived = append(done.arrived, name+" gets "+describer{s.portName, s.sent}.describe(p))
		}
	}
	slices.Sort(done.arrived)
	s.steps = append(s.steps, done)
}

// meet learns from a packet that the server has received who the client is to it.
func (s *session) meet(p parsed) {
	ports := p.protocol == unix.IPPROTO_TCP || p.protocol == unix.IPPROTO_UDP
	if ports && p.offset == 0 && len(p.payload) >= 4 && p.dst == s.server.Addr() && binary.BigEndian.Uint16(p.payload[2:]) == s.server.Port() {
		s.seen = netip.AddrPortFrom(p.src, binary.BigEndian.Uint16(p.payload))
	}
}

func whole(p forge.Packet) forge.Frame { return forge.Frame{IP: p.Bytes()} }

// fromClient sends packets to the VIP or about a flow with it.
func (s *session) fromClient(what string, packets ...forge.Packet) {
	var frames []forge.Frame
	for _, p := range packets {
		frames = append(frames, whole(p))
	}
	s.step("client sends "+what, "client", frames...)
}

// fromServer has the server send what packet makes, once it knows the client.
func (s *session) fromServer(what string, packets ...func() forge.Packet) {
	if !s.seen.IsValid() {
		s.steps = append(s.steps, step{what: "server cannot send " + what})
		return
	}
	var frames []forge.Frame
	for _, p := range packets {
		frames = append(frames, whole(p()))
	}
	s.step("server sends "+what, s.at, frames...)
}

// clientSegment returns a segment of the flow that the server expects next, and counts
// what it carries.
func (s *session) clientSegment(flags byte, data []byte) forge.Segment {
	g := forge.Segment{Seq: s.next.client, Flags: flags, Window: 65535, Data: data}
	if flags&forge.ACK != 0 {
		g.Ack = s.next.server
	}
	s.next.client += uint32(len(data))
	if flags&(forge.SYN|forge.FIN) != 0 {
		s.next.client++
	}
	return g
}

func (s *session) serverSegment(flags byte, data []byte) forge.Segment {
	g := forge.Segment{Seq: s.next.server, Ack: s.next.client, Flags: flags, Window: 65535, Data: data}
	s.next.server += uint32(len(data))
	if flags&(forge.SYN|forge.FIN) != 0 {
		s.next.server++
	}
	return g
}

// establish opens a TCP connection.
func (s *session) establish() {
	s.fromClient("SYN", s.clientSegment(forge.SYN, nil).Packet(s.client, s.vip))
	s.fromServer("SYN|ACK", func() forge.Packet { return s.serverSegment(forge.SYN|forge.ACK, nil).Packet(s.server, s.seen) })
	s.fromClient("ACK", s.clientSegment(forge.ACK, nil).Packet(s.client, s.vip))
}

// converse sends data in both directions of a connection: whether it lives shows.
func (s *session) converse() {
	s.fromClient("data", s.clientSegment(forge.PSH|forge.ACK, []byte("are you there?")).Packet(s.client, s.vip))
	s.fromServer("data", func() forge.Packet {
		return s.serverSegment(forge.PSH|forge.ACK, []byte("yes")).Packet(s.server, s.seen)
	})
}

// ask sends a datagram in each direction.
func (s *session) ask() {
	s.fromClient("datagram", forge.Datagram(s.client, s.vip, []byte("are you there?")))
	s.fromServer("datagram", func() forge.Packet { return forge.Datagram(s.server, s.seen, []byte("yes")) })
}

// begin begins a flow of a protocol and again lets it live.
func (s *session) begin(protocol string) {
	if protocol == "TCP" {
		s.establish()
	} else {
		s.ask()
	}
}

func (s *session) live(protocol string) {
	if protocol == "TCP" {
		s.converse()
	} else {
		s.ask()
	}
}
