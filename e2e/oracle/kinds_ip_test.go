// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
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
									p.hop--
									return q.change(p.bytes(), len(p.header(0, 0, false, false)))
								}
								from := map[string]netip.Addr{"client": s.client.Addr(), "router at the client": stranger[family],
									"server": s.server.Addr(), "router at the server": router[family]}[reporter]
								if reporter == "router at the server" && port == toLocal {
									from = gateway[family]
								}
								if clients {
									s.fromClient("it", message(from, s.vip.Addr(), r.kind, r.code, r.rest, quote()))
								} else {
									s.fromServer("it", func() packet { return message(from, s.seen.Addr(), r.kind, r.code, r.rest, quote()) })
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
				p := message(s.client.Addr(), s.vip.Addr(), r.kind, r.code, 0, s.received("UDP", true).bytes())
				p.payload[2] ^= 0x55
				s.fromClient("it", p)
				s.live("UDP")
			})
		}
	}
}

// received returns a packet of a flow as one of its peers has received it.
func (s *session) received(protocol string, clients bool) packet {
	src, dst, g := s.vip, s.client, segment{seq: s.next.server - 3, ack: s.next.client, flags: psh | ack, window: 65535, data: []byte("yes")}
	if !clients {
		src, dst, g = s.seen, s.server, segment{seq: s.next.client - 14, ack: s.next.server, flags: psh | ack, window: 65535, data: []byte("are you there?")}
		if !s.seen.IsValid() {
			src = s.client
		}
	}
	if protocol == "UDP" {
		return datagram(src, dst, g.data)
	}
	return g.packet(src, dst)
}

// fragments are datagrams that arrive in pieces, in all orders.
func fragments(add adder) {
	type cut struct {
		name string
		of   func(all []piece) []piece
	}
	cuts := []cut{
		{"in order", func(all []piece) []piece { return all }},
		{"reversed", func(all []piece) []piece { return backwards(all) }},
		{"the last one first", func(all []piece) []piece {
			return append([]piece{all[len(all)-1]}, all[:len(all)-1]...)
		}},
		{"the second one first", func(all []piece) []piece { return append([]piece{all[1], all[0]}, all[2:]...) }},
		{"the first one twice", func(all []piece) []piece { return append([]piece{all[0]}, all...) }},
		{"the second one twice", func(all []piece) []piece { return append([]piece{all[0], all[1]}, all[1:]...) }},
		{"the first one missing", func(all []piece) []piece { return all[1:] }},
		{"the second one missing", func(all []piece) []piece { return append([]piece{all[0]}, all[2:]...) }},
		{"the last one missing", func(all []piece) []piece { return all[:len(all)-1] }},
		{"one within the first", func(all []piece) []piece {
			return append([]piece{all[0], {all[0].from + 8, all[0].to}}, all[1:]...)
		}},
		{"overlapping", func(all []piece) []piece {
			return append([]piece{all[0], {all[1].from - 8, all[1].to - 8}, {all[1].to - 8, all[1].to}}, all[2:]...)
		}},
		{"one of 8 bytes first", func(all []piece) []piece {
			return append([]piece{{0, 8}, {8, all[0].to}}, all[1:]...)
		}},
		{"one of 24 bytes first", func(all []piece) []piece {
			return append([]piece{{0, 24}, {24, all[0].to}}, all[1:]...)
		}},
	}
	frames := func(p packet, pieces []piece) (f []frame) {
		for _, c := range pieces {
			f = append(f, frame{ip: p.fragment(c)})
		}
		return f
	}
	for _, family := range families {
		for _, size := range []int{1280, serverMTU, clientMTU} { // of the fragments
			for _, c := range cuts {
				for _, port := range everyone {
					name := fmt.Sprintf("in fragments of %d, %s", size, c.name)
					send := func(s *session, what string, p packet) {
						p.df, p.id = false, uint32(s.client.Port())
						s.step("client sends "+what, "client", frames(p, c.of(p.pieces(size)))...)
					}
					add(family, port, "UDP "+name, func(s *session) {
						send(s, "it", datagram(s.client, s.vip, fill(4000)))
						s.fromClient("another", datagram(s.client, s.vip, []byte("small")))
					})
					if port == unserved {
						add(family, port, "echo request "+name, func(s *session) {
							send(s, "it", message(s.client.Addr(), s.vip.Addr(), map[int]byte{4: 8, 6: 128}[family], 0, 0x12340001, fill(4000)))
						})
						continue
					}
					add(family, port, "UDP answer "+name, func(s *session) {
						s.ask()
						if !s.seen.IsValid() {
							return
						}
						p := datagram(s.server, s.seen, fill(4000))
						p.df, p.id = false, uint32(s.client.Port())
						s.step("server sends it", s.at, frames(p, c.of(p.pieces(min(size, serverMTU))))...)
						s.ask()
					})
					if size == 1280 {
						add(family, port, "TCP data "+name, func(s *session) {
							s.establish()
							send(s, "it", s.clientSegment(psh|ack, fill(4000)).packet(s.client, s.vip))
							s.converse()
						})
					}
				}
			}
		}
		for _, port := range everyone {
			for _, order := range []string{"in order", "reversed"} {
				add(family, port, "UDP 60 KB in fragments, "+order, func(s *session) {
					p := datagram(s.client, s.vip, fill(60_000))
					p.df, p.id = false, uint32(s.client.Port())
					pieces := p.pieces(1280)
					if order == "reversed" {
						pieces = backwards(pieces)
					}
					s.step("client sends it", "client", frames(p, pieces)...)
				})
			}
			add(family, port, "UDP in fragments of two clients with one identification", func(s *session) {
				a := datagram(s.client, s.vip, fill(2000))
				b := datagram(netip.AddrPortFrom(stranger[family], s.client.Port()), s.vip, fill(2001))
				a.df, b.df = false, false
				a.id, b.id = uint32(s.client.Port()), uint32(s.client.Port())
				s.crowd = true
				x, y := frames(a, a.pieces(1280)), frames(b, b.pieces(1280))
				s.step("clients send them", "client", x[0], y[0], x[1], y[1])
			})
			add(family, port, "TCP SYN in fragments", func(s *session) {
				p := segment{seq: 5, flags: syn, window: 100, options: synOptions}.packet(s.client, s.vip)
				p.df, p.id = false, uint32(s.client.Port())
				s.step("client sends it", "client", frames(p, []piece{{0, 24}, {24, 40}})...)
			})
			if family == 6 {
				continue
			}
			add(family, port, "UDP in fragments with DF", func(s *session) {
				p := datagram(s.client, s.vip, fill(2000))
				p.id = uint32(s.client.Port())
				s.step("client sends it", "client", frames(p, p.pieces(1280))...)
			})
		}
		for _, port := range everyone {
			if family == 4 {
				continue
			}
			for _, what := range []string{"UDP", "TCP"} {
				add(family, port, what+" in an atomic fragment", func(s *session) {
					p := datagram(s.client, s.vip, fill(100))
					if what == "TCP" {
						p = segment{seq: 5, flags: syn, window: 100}.packet(s.client, s.vip)
					}
					p.id = uint32(s.client.Port())
					s.step("client sends it", "client", frames(p, []piece{{0, len(p.payload)}})...)
				})
			}
		}
	}
}

func backwards(all []piece) (back []piece) {
	for _, p := range all {
		back = append([]piece{p}, back...)
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
	many := func(n int) (chain []extension) {
		for range n {
			chain = append(chain, extension{unix.IPPROTO_DSTOPTS, pad})
		}
		return chain
	}
	chains := map[string][]extension{
		"hop-by-hop padding":           {{unix.IPPROTO_HOPOPTS, pad}},
		"hop-by-hop router alert":      {{unix.IPPROTO_HOPOPTS, []byte{0, 5, 2, 0, 0, 1, 0}}},
		"hop-by-hop unknown, skip":     {{unix.IPPROTO_HOPOPTS, []byte{0, 0x1e, 4, 0, 0, 0, 0}}},
		"hop-by-hop unknown, discard":  {{unix.IPPROTO_HOPOPTS, []byte{0, 0x5e, 4, 0, 0, 0, 0}}},
		"hop-by-hop unknown, report":   {{unix.IPPROTO_HOPOPTS, []byte{0, 0x9e, 4, 0, 0, 0, 0}}},
		"destination padding":          {{unix.IPPROTO_DSTOPTS, pad}},
		"destination unknown, report":  {{unix.IPPROTO_DSTOPTS, []byte{0, 0x9e, 4, 0, 0, 0, 0}}},
		"routing, none left":           {{unix.IPPROTO_ROUTING, []byte{0, 0, 0, 0, 0, 0, 0}}},
		"routing, one left":            {{unix.IPPROTO_ROUTING, append([]byte{2, 0, 1, 0, 0, 0, 0}, remote[6].AsSlice()...)}},
		"hop-by-hop, destination both": {{unix.IPPROTO_HOPOPTS, pad}, {unix.IPPROTO_DSTOPTS, pad}},
		"7 destination headers":        many(7),
		"9 destination headers":        many(9),
		"hop-by-hop that is not first": {{unix.IPPROTO_DSTOPTS, pad}, {unix.IPPROTO_HOPOPTS, pad}},
	}
	both := func(family int, name string, change func(p *packet)) {
		for _, port := range everyone {
			for _, what := range []string{"TCP", "UDP"} {
				add(family, port, what+" with "+name, func(s *session) {
					p := datagram(s.client, s.vip, fill(100))
					if what == "TCP" {
						p = segment{seq: 5, flags: syn, window: 100}.packet(s.client, s.vip)
					}
					change(&p)
					s.fromClient("it", p)
				})
			}
		}
	}
	for name, o := range options {
		both(4, name, func(p *packet) { p.options = o })
	}
	for name, c := range chains {
		both(6, name, func(p *packet) { p.extensions = c })
	}
	for _, family := range families {
		for _, tos := range []byte{0xb8, 1, 2, 3} {
			both(family, fmt.Sprintf("traffic class %#x", tos), func(p *packet) { p.tos = tos })
		}
		both(family, "hop limit 0", func(p *packet) { p.hop = 0 })
		both(family, "a length past the end", func(p *packet) {
			p.spoil = func(ip []byte) { lengthen(ip, 40) }
		})
		both(family, "a length of a part", func(p *packet) {
			p.spoil = func(ip []byte) { lengthen(ip, -10) }
		})
		both(family, "another version", func(p *packet) { p.spoil = func(ip []byte) { ip[0] = 5<<4 | ip[0]&15 } })
	}
	both(4, "a wrong header checksum", func(p *packet) { p.spoil = func(ip []byte) { ip[10] ^= 0x55 } })
	both(4, "the reserved flag", func(p *packet) {
		p.spoil = func(ip []byte) { ip[6] |= 0x80; resum(ip) }
	})
	both(4, "a header of 16 bytes", func(p *packet) { p.spoil = func(ip []byte) { ip[0] = 0x44 } })
}

func resum(ip []byte) {
	n := int(ip[0]&15) * 4
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip[:n])))
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
						p := datagram(from, s.vip, fill(100))
						if what == "TCP" {
							p = segment{seq: 5, flags: syn, window: 100}.packet(from, s.vip)
						}
						s.fromClient("it", p)
					})
				}
			}
		}
		for _, what := range []string{"TCP", "UDP"} {
			add(family, toRemote, what+" from the VIP and its port", func(s *session) {
				p := datagram(s.vip, s.vip, fill(100))
				if what == "TCP" {
					p = segment{seq: 5, flags: syn, window: 100}.packet(s.vip, s.vip)
				}
				s.fromClient("it", p)
			})
		}
	}
	for _, port := range everyone {
		for _, what := range []string{"TCP", "UDP"} {
			add(6, port, what+" to the IPv4 VIP in IPv6", func(s *session) {
				from, to := netip.AddrPortFrom(mapped(client[4]), s.client.Port()), netip.AddrPortFrom(mapped(vip[4]), s.vip.Port())
				p := datagram(from, to, fill(100))
				if what == "TCP" {
					p = segment{seq: 5, flags: syn, window: 100}.packet(from, to)
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
				for name, f := range map[string]frame{
					"in a broadcast frame":         {to: &broadcast},
					"in a multicast frame":         {to: &multicast},
					"in a frame for another":       {to: &other},
					"in a frame with padding":      {pad: 18},
					"in a frame with priority":     {tag: 0x8100<<16 | 5<<13},
					"in a frame of another VLAN":   {tag: 0x8100<<16 | 7},
					"in a frame of a service VLAN": {tag: 0x88a8<<16 | 7},
				} {
					add(family, port, what+" "+name, func(s *session) {
						p := datagram(s.client, s.vip, []byte("x"))
						if what == "TCP" {
							p = segment{seq: 5, flags: syn, window: 100}.packet(s.client, s.vip)
						}
						f.ip = p.bytes()
						s.step("client sends it", "client", f)
					})
				}
			}
		}
	}
}
