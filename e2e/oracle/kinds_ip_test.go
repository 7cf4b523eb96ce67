// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
)

// icmpErrors are errors about flows: of both peers and of routers, in both directions,
// with quotes that are right and wrong.
func icmpErrors(add adder) {
	type report struct {
		name       string
		kind, code byte
		rest       uint32
	}
	reports := map[int][]report{
		4: {{"host unreachable", 3, 1, 0}, {"port unreachable", 3, 3, 0}, {"fragmentation needed", 3, 4, 1280}, {"time exceeded", 11, 0, 0},
			{"parameter problem", 12, 0, 0}, {"source quench", 4, 0, 0}, {"redirect", 5, 1, 0x0a420003}},
		6: {{"no route", 1, 0, 0}, {"port unreachable", 1, 4, 0}, {"too big", 2, 0, 1280}, {"time exceeded", 3, 0, 0},
			{"parameter problem", 4, 1, 6}, {"unknown error", 100, 0, 0}},
	}
	quotes := []struct {
		name   string
		change func(q []byte, l4 int) []byte
	}{
		{"all", func(q []byte, _ int) []byte { return q }},
		{"8 bytes of layer 4", func(q []byte, l4 int) []byte { return q[:l4+8] }},
		{"7 bytes of layer 4", func(q []byte, l4 int) []byte { return q[:l4+7] }},
		{"another source port", func(q []byte, l4 int) []byte { q[l4] ^= 0x40; return q }},
		{"another destination port", func(q []byte, l4 int) []byte { q[l4+2] ^= 0x40; return q }},
		{"another destination", func(q []byte, l4 int) []byte { q[l4-1] ^= 1; return q }},
		{"another protocol", func(q []byte, l4 int) []byte { q[map[int]int{20: 9, 40: 6}[l4]] = 132; return q }},
		{"a later fragment", func(q []byte, l4 int) []byte {
			if l4 == 20 {
				binary.BigEndian.PutUint16(q[6:], 5)
			}
			return q
		}},
		{"a wrong checksum", func(q []byte, l4 int) []byte { q[l4+6] ^= 1; return q }},
	}
	for _, family := range families {
		for i, r := range reports[family] {
			for j, q := range quotes {
				if i != 1 && j > 0 {
					continue // every quote with one report, every report with one quote
				}
				for _, protocol := range []string{"TCP", "UDP"} {
					for _, port := range served {
						for _, reporter := range []string{"client", "router at the client", "server", "router at the server"} {
							name := fmt.Sprintf("ICMP %s from %s about %s, quoting %s", r.name, reporter, protocol, q.name)
							add(family, port, name, func(s *session) {
								s.begin(protocol)
								s.live(protocol)
								clients := reporter == "client" || reporter == "router at the client"
								quote := func() []byte {
									// What the reporter has received.
									p := s.received(protocol, clients)
									p.Hop--
									return q.change(p.Bytes(), len(p.Header(0, 0, false, false)))
								}
								from := map[string]netip.Addr{"client": s.client.Addr(), "router at the client": stranger[family],
									"server": s.server.Addr(), "router at the server": router[family]}[reporter]
								if reporter == "router at the server" && port == toLocal {
									from = gateway[family]
								}
								if clients {
									s.fromClient("it", forge.Message(from, s.vip.Addr(), r.kind, r.code, r.rest, quote()))
								} else {
									s.fromServer("it", func() forge.Packet { return forge.Message(from, s.seen.Addr(), r.kind, r.code, r.rest, quote()) })
								}
								s.live(protocol)
							})
						}
					}
				}
			}
		}
		for _, port := range served {
			add(family, port, "ICMP error with a wrong checksum", func(s *session) {
				s.begin("UDP")
				r := reports[family][1]
				p := forge.Message(s.client.Addr(), s.vip.Addr(), r.kind, r.code, 0, s.received("UDP", true).Bytes())
				p.Payload[2] ^= 0x55
				s.fromClient("it", p)
				s.live("UDP")
			})
		}
	}
}

// received returns a packet of a flow as one of its peers has received it.
func (s *session) received(protocol string, clients bool) forge.Packet {
	src, dst, g := s.vip, s.client, forge.Segment{Seq: s.next.server - 3, Ack: s.next.client, Flags: forge.PSH | forge.ACK, Window: 65535, Data: []byte("yes")}
	if !clients {
		src, dst, g = s.seen, s.server, forge.Segment{Seq: s.next.client - 14, Ack: s.next.server, Flags: forge.PSH | forge.ACK, Window: 65535, Data: []byte("are you there?")}
		if !s.seen.IsValid() {
			src = s.client
		}
	}
	if protocol == "UDP" {
		return forge.Datagram(src, dst, g.Data)
	}
	return g.Packet(src, dst)
}

// fragments are datagrams that arrive in pieces, in all orders.
func fragments(add adder) {
	type cut struct {
		name string
		of   func(all []forge.Piece) []forge.Piece
	}
	cuts := []cut{
		{"in order", func(all []forge.Piece) []forge.Piece { return all }},
		{"reversed", func(all []forge.Piece) []forge.Piece { return backwards(all) }},
		{"the last one first", func(all []forge.Piece) []forge.Piece {
			return append([]forge.Piece{all[len(all)-1]}, all[:len(all)-1]...)
		}},
		{"the second one first", func(all []forge.Piece) []forge.Piece { return append([]forge.Piece{all[1], all[0]}, all[2:]...) }},
		{"the first one twice", func(all []forge.Piece) []forge.Piece { return append([]forge.Piece{all[0]}, all...) }},
		{"the second one twice", func(all []forge.Piece) []forge.Piece { return append([]forge.Piece{all[0], all[1]}, all[1:]...) }},
		{"the first one missing", func(all []forge.Piece) []forge.Piece { return all[1:] }},
		{"the second one missing", func(all []forge.Piece) []forge.Piece { return append([]forge.Piece{all[0]}, all[2:]...) }},
		{"the last one missing", func(all []forge.Piece) []forge.Piece { return all[:len(all)-1] }},
		{"one within the first", func(all []forge.Piece) []forge.Piece {
			return append([]forge.Piece{all[0], {From: all[0].From + 8, To: all[0].To}}, all[1:]...)
		}},
		{"overlapping", func(all []forge.Piece) []forge.Piece {
			return append([]forge.Piece{all[0], {From: all[1].From - 8, To: all[1].To - 8}, {From: all[1].To - 8, To: all[1].To}}, all[2:]...)
		}},
		{"one of 8 bytes first", func(all []forge.Piece) []forge.Piece {
			return append([]forge.Piece{{From: 0, To: 8}, {From: 8, To: all[0].To}}, all[1:]...)
		}},
		{"one of 24 bytes first", func(all []forge.Piece) []forge.Piece {
			return append([]forge.Piece{{From: 0, To: 24}, {From: 24, To: all[0].To}}, all[1:]...)
		}},
	}
	frames := func(p forge.Packet, pieces []forge.Piece) (f []forge.Frame) {
		for _, c := range pieces {
			f = append(f, forge.Frame{IP: p.Fragment(c)})
		}
		return f
	}
	for _, family := range families {
		for _, size := range []int{1280, serverMTU, clientMTU} { // of the fragments
			for _, c := range cuts {
				for _, port := range everyone {
					name := fmt.Sprintf("in fragments of %d, %s", size, c.name)
					send := func(s *session, what string, p forge.Packet) {
						p.DF, p.ID = false, uint32(s.client.Port())
						s.step("client sends "+what, "client", frames(p, c.of(p.Pieces(size)))...)
					}
					add(family, port, "UDP "+name, func(s *session) {
						send(s, "it", forge.Datagram(s.client, s.vip, forge.Fill(4000)))
						s.fromClient("another", forge.Datagram(s.client, s.vip, []byte("small")))
					})
					if port == unserved || port == hostPort {
						add(family, port, "echo request "+name, func(s *session) {
							send(s, "it", forge.Message(s.client.Addr(), s.vip.Addr(), map[int]byte{4: 8, 6: 128}[family], 0, 0x12340001, forge.Fill(4000)))
						})
						continue
					}
					add(family, port, "UDP answer "+name, func(s *session) {
						s.ask()
						if !s.seen.IsValid() {
							return
						}
						p := forge.Datagram(s.server, s.seen, forge.Fill(4000))
						p.DF, p.ID = false, uint32(s.client.Port())
						s.step("server sends it", s.at, frames(p, c.of(p.Pieces(min(size, serverMTU))))...)
						s.ask()
					})
					if size == 1280 {
						add(family, port, "TCP data "+name, func(s *session) {
							s.establish()
							send(s, "it", s.clientSegment(forge.PSH|forge.ACK, forge.Fill(4000)).Packet(s.client, s.vip))
							s.converse()
						})
					}
				}
			}
		}
		for _, port := range everyone {
			for _, order := range []string{"in order", "reversed"} {
				add(family, port, "UDP 60 KB in fragments, "+order, func(s *session) {
					p := forge.Datagram(s.client, s.vip, forge.Fill(60_000))
					p.DF, p.ID = false, uint32(s.client.Port())
					pieces := p.Pieces(1280)
					if order == "reversed" {
						pieces = backwards(pieces)
					}
					s.step("client sends it", "client", frames(p, pieces)...)
				})
			}
			add(family, port, "UDP in fragments of two clients with one identification", func(s *session) {
				a := forge.Datagram(s.client, s.vip, forge.Fill(2000))
				b := forge.Datagram(netip.AddrPortFrom(stranger[family], s.client.Port()), s.vip, forge.Fill(2001))
				a.DF, b.DF = false, false
				a.ID, b.ID = uint32(s.client.Port()), uint32(s.client.Port())
				s.crowd = true
				x, y := frames(a, a.Pieces(1280)), frames(b, b.Pieces(1280))
				s.step("clients send them", "client", x[0], y[0], x[1], y[1])
			})
			add(family, port, "TCP SYN in fragments", func(s *session) {
				p := forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100, Options: synOptions}.Packet(s.client, s.vip)
				p.DF, p.ID = false, uint32(s.client.Port())
				s.step("client sends it", "client", frames(p, []forge.Piece{{From: 0, To: 24}, {From: 24, To: 40}})...)
			})
			if family == 6 {
				continue
			}
			add(family, port, "UDP in fragments with DF", func(s *session) {
				p := forge.Datagram(s.client, s.vip, forge.Fill(2000))
				p.ID = uint32(s.client.Port())
				s.step("client sends it", "client", frames(p, p.Pieces(1280))...)
			})
		}
		for _, port := range everyone {
			if family == 4 {
				continue
			}
			for _, what := range []string{"UDP", "TCP"} {
				add(family, port, what+" in an atomic fragment", func(s *session) {
					p := forge.Datagram(s.client, s.vip, forge.Fill(100))
					if what == "TCP" {
						p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(s.client, s.vip)
					}
					p.ID = uint32(s.client.Port())
					s.step("client sends it", "client", frames(p, []forge.Piece{{From: 0, To: len(p.Payload)}})...)
				})
			}
		}
	}
}

func backwards(all []forge.Piece) (back []forge.Piece) {
	for _, p := range all {
		back = append([]forge.Piece{p}, back...)
	}
	return back
}

// headers are unusual IP headers.
func headers(add adder) {
	options := map[string][]byte{
		"no-operation":            {1, 1, 1, 0},
		"record route":            {7, 7, 4, 0, 0, 0, 0, 0},
		"timestamp":               {68, 8, 5, 0, 0, 0, 0, 0},
		"router alert":            {148, 4, 0, 0},
		"loose source route":      {131, 7, 4, 10, 77, 0, 2, 0},
		"finished source route":   {131, 7, 8, 10, 77, 0, 2, 0},
		"unknown option":          {30, 4, 0, 0},
		"option past the end":     {7, 40, 4, 0},
		"40 bytes of options":     append(make([]byte, 0, 40), []byte("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00")...),
		"security that is absent": {130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	}
	pad := []byte{0, 1, 4, 0, 0, 0, 0}
	many := func(n int) (chain []forge.Extension) {
		for range n {
			chain = append(chain, forge.Extension{Kind: unix.IPPROTO_DSTOPTS, Body: pad})
		}
		return chain
	}
	chains := map[string][]forge.Extension{
		"hop-by-hop padding":           {{Kind: unix.IPPROTO_HOPOPTS, Body: pad}},
		"hop-by-hop router alert":      {{Kind: unix.IPPROTO_HOPOPTS, Body: []byte{0, 5, 2, 0, 0, 1, 0}}},
		"hop-by-hop unknown, skip":     {{Kind: unix.IPPROTO_HOPOPTS, Body: []byte{0, 0x1e, 4, 0, 0, 0, 0}}},
		"hop-by-hop unknown, discard":  {{Kind: unix.IPPROTO_HOPOPTS, Body: []byte{0, 0x5e, 4, 0, 0, 0, 0}}},
		"hop-by-hop unknown, report":   {{Kind: unix.IPPROTO_HOPOPTS, Body: []byte{0, 0x9e, 4, 0, 0, 0, 0}}},
		"destination padding":          {{Kind: unix.IPPROTO_DSTOPTS, Body: pad}},
		"destination unknown, report":  {{Kind: unix.IPPROTO_DSTOPTS, Body: []byte{0, 0x9e, 4, 0, 0, 0, 0}}},
		"routing, none left":           {{Kind: unix.IPPROTO_ROUTING, Body: []byte{0, 0, 0, 0, 0, 0, 0}}},
		"routing, one left":            {{Kind: unix.IPPROTO_ROUTING, Body: append([]byte{2, 0, 1, 0, 0, 0, 0}, remote[6].AsSlice()...)}},
		"hop-by-hop, destination both": {{Kind: unix.IPPROTO_HOPOPTS, Body: pad}, {Kind: unix.IPPROTO_DSTOPTS, Body: pad}},
		"7 destination headers":        many(7),
		"9 destination headers":        many(9),
		"hop-by-hop that is not first": {{Kind: unix.IPPROTO_DSTOPTS, Body: pad}, {Kind: unix.IPPROTO_HOPOPTS, Body: pad}},
	}
	both := func(family int, name string, change func(p *forge.Packet)) {
		for _, port := range everyone {
			for _, what := range []string{"TCP", "UDP"} {
				add(family, port, what+" with "+name, func(s *session) {
					p := forge.Datagram(s.client, s.vip, forge.Fill(100))
					if what == "TCP" {
						p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(s.client, s.vip)
					}
					change(&p)
					s.fromClient("it", p)
				})
			}
		}
	}
	for name, o := range options {
		both(4, name, func(p *forge.Packet) { p.Options = o })
	}
	for name, c := range chains {
		both(6, name, func(p *forge.Packet) { p.Extensions = c })
	}
	for _, family := range families {
		for _, tos := range []byte{0xb8, 1, 2, 3} {
			both(family, fmt.Sprintf("traffic class %#x", tos), func(p *forge.Packet) { p.TOS = tos })
		}
		both(family, "hop limit 0", func(p *forge.Packet) { p.Hop = 0 })
		both(family, "a length past the end", func(p *forge.Packet) {
			p.Spoil = func(ip []byte) { lengthen(ip, 40) }
		})
		both(family, "a length of a part", func(p *forge.Packet) {
			p.Spoil = func(ip []byte) { lengthen(ip, -10) }
		})
		both(family, "another version", func(p *forge.Packet) { p.Spoil = func(ip []byte) { ip[0] = 5<<4 | ip[0]&15 } })
	}
	both(4, "a wrong header checksum", func(p *forge.Packet) { p.Spoil = func(ip []byte) { ip[10] ^= 0x55 } })
	both(4, "the reserved flag", func(p *forge.Packet) {
		p.Spoil = func(ip []byte) { ip[6] |= 0x80; resum(ip) }
	})
	both(4, "a header of 16 bytes", func(p *forge.Packet) { p.Spoil = func(ip []byte) { ip[0] = 0x44 } })
}

func resum(ip []byte) {
	n := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^forge.Fold(forge.Sum(0, ip[:n])))
}

func lengthen(ip []byte, by int) {
	at := 4
	if ip[0]>>4 == 4 {
		at = 2
	}
	binary.BigEndian.PutUint16(ip[at:], uint16(int(binary.BigEndian.Uint16(ip[at:]))+by))
	if at == 2 {
		resum(ip)
	}
}

// sources are senders that cannot be.
func sources(add adder) {
	addresses := map[int]map[string]netip.Addr{
		4: {"loopback": netip.MustParseAddr("127.0.0.1"), "multicast": netip.MustParseAddr("224.0.0.1"), "broadcast": netip.MustParseAddr("255.255.255.255"),
			"the subnet's broadcast": netip.MustParseAddr("10.66.0.255"), "zero": netip.MustParseAddr("0.0.0.0"), "class E": netip.MustParseAddr("240.0.0.1"),
			"the VIP": vip[4], "the balancer": outside[4], "the balancer inside": inside[4], "the server": remote[4], "link-local": netip.MustParseAddr("169.254.1.1")},
		6: {"loopback": netip.IPv6LinkLocalAllNodes(), "the loopback": netip.IPv6Loopback(), "zero": netip.IPv6Unspecified(), "link-local": netip.MustParseAddr("fe80::2"),
			"the VIP": vip[6], "the balancer": outside[6], "the server": remote[6], "IPv4-mapped": mapped(client[4]), "IPv4-compatible": netip.MustParseAddr("::10.66.0.2")},
	}
	for _, family := range families {
		for name, a := range addresses[family] {
			for _, port := range everyone {
				for _, what := range []string{"TCP", "UDP"} {
					add(family, port, what+" from "+name, func(s *session) {
						from := netip.AddrPortFrom(a, s.client.Port())
						p := forge.Datagram(from, s.vip, forge.Fill(100))
						if what == "TCP" {
							p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(from, s.vip)
						}
						s.fromClient("it", p)
					})
				}
			}
		}
		for _, what := range []string{"TCP", "UDP"} {
			add(family, toRemote, what+" from the VIP and its port", func(s *session) {
				p := forge.Datagram(s.vip, s.vip, forge.Fill(100))
				if what == "TCP" {
					p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(s.vip, s.vip)
				}
				s.fromClient("it", p)
			})
		}
	}
	for _, port := range everyone {
		for _, what := range []string{"TCP", "UDP"} {
			add(6, port, what+" to the IPv4 VIP in IPv6", func(s *session) {
				from, to := netip.AddrPortFrom(mapped(client[4]), s.client.Port()), netip.AddrPortFrom(mapped(vip[4]), s.vip.Port())
				p := forge.Datagram(from, to, forge.Fill(100))
				if what == "TCP" {
					p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(from, to)
				}
				s.fromClient("it", p)
			})
		}
	}
}

// links are frames that are not simply for the balancer.
func links(add adder) {
	broadcast, multicast, other := [6]byte{255, 255, 255, 255, 255, 255}, [6]byte{1, 0, 0x5e, 0, 0, 1}, [6]byte{2, 0, 0, 0, 9, 9}
	for _, family := range families {
		for _, port := range everyone {
			for _, what := range []string{"TCP", "UDP"} {
				for name, f := range map[string]forge.Frame{
					"in a broadcast frame":         {To: &broadcast},
					"in a multicast frame":         {To: &multicast},
					"in a frame for another":       {To: &other},
					"in a frame with padding":      {Pad: 18},
					"in a frame with priority":     {Tag: 0x8100<<16 | 5<<13},
					"in a frame of another VLAN":   {Tag: 0x8100<<16 | 7},
					"in a frame of a service VLAN": {Tag: 0x88a8<<16 | 7},
				} {
					add(family, port, what+" "+name, func(s *session) {
						p := forge.Datagram(s.client, s.vip, []byte("x"))
						if what == "TCP" {
							p = forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100}.Packet(s.client, s.vip)
						}
						f.IP = p.Bytes()
						s.step("client sends it", "client", f)
					})
				}
			}
		}
	}
}
