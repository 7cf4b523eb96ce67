// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
)

// kind is a kind of packets, and what else it takes to send them.
type kind struct {
	name       string
	family     int
	port       uint16 // of the VIP
	clientPort uint16 // 0: any
	run        func(s *session)
}

var (
	families = []int{4, 6}
	served   = []uint16{toRemote, toLocal}
	everyone = []uint16{toRemote, toLocal, unserved, hostPort}
	portWord = map[uint16]string{toRemote: "remote", toLocal: "local", unserved: "unserved", hostPort: "host"}
)

// kinds returns all kinds, products of what can vary, by name.
func kinds() (all []kind) {
	add := func(family int, port uint16, name string, run func(s *session)) {
		all = append(all, kind{name: fmt.Sprintf("%s (IPv%d, %s)", name, family, portWord[port]), family: family, port: port, run: run})
	}
	tcpFlags(add)
	tcpMalformed(add)
	udpMalformed(add)
	sizes(add)
	answerSizes(add)
	sourcePorts(func(clientPort uint16, family int, name string, run func(s *session)) {
		add(family, toRemote, name, run)
		all[len(all)-1].clientPort = clientPort
	})
	icmpQueries(add)
	icmpErrors(add)
	otherProtocols(add)
	fragments(add)
	headers(add)
	sources(add)
	links(add)
	slices.SortStableFunc(all, func(a, b kind) int { return strings.Compare(a.name, b.name) })
	return all
}

type adder func(family int, port uint16, name string, run func(s *session))

// answered returns what adds a kind for each address that Blixt or the host answers for.
func (add adder) answered() func(family int, name string, run func(s *session)) {
	return func(family int, name string, run func(s *session)) {
		add(family, unserved, name, run)
		add(family, hostPort, name, run)
	}
}

// synOptions are MSS, SACK permitted, timestamps and window scale, as Linux sends them.
var synOptions = []byte{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}

// segments have all combinations of flags that mean something, or nothing.
var segments = []struct {
	name    string
	flags   byte
	options []byte
	data    []byte
	window  uint16
	urgent  uint16
}{
	{name: "SYN", flags: forge.SYN, window: 65535},
	{name: "SYN with options", flags: forge.SYN, options: synOptions, window: 65535},
	{name: "SYN with ECN", flags: forge.SYN | forge.ECE | forge.CWR, window: 65535},
	{name: "SYN with data", flags: forge.SYN, data: []byte("early"), window: 65535},
	{name: "SYN with window 0", flags: forge.SYN},
	{name: "SYN|ACK", flags: forge.SYN | forge.ACK, window: 65535},
	{name: "SYN|FIN", flags: forge.SYN | forge.FIN, window: 65535},
	{name: "SYN|RST", flags: forge.SYN | forge.RST, window: 65535},
	{name: "NULL", window: 65535},
	{name: "XMAS", flags: forge.FIN | forge.PSH | forge.URG, window: 65535},
	{name: "all flags", flags: 0xff, window: 65535},
	{name: "ACK", flags: forge.ACK, window: 65535},
	{name: "ACK with window 0", flags: forge.ACK},
	{name: "ACK with data", flags: forge.PSH | forge.ACK, data: []byte("data"), window: 65535},
	{name: "URG", flags: forge.PSH | forge.ACK | forge.URG, data: []byte("data"), window: 65535, urgent: 2},
	{name: "PSH without ACK", flags: forge.PSH, data: []byte("data"), window: 65535},
	{name: "RST", flags: forge.RST},
	{name: "RST|ACK", flags: forge.RST | forge.ACK},
	{name: "FIN", flags: forge.FIN, window: 65535},
	{name: "FIN|ACK", flags: forge.FIN | forge.ACK, window: 65535},
	{name: "FIN|ACK with data", flags: forge.FIN | forge.PSH | forge.ACK, data: []byte("bye"), window: 65535},
}

// tcpFlags are segments of all flags, without a connection, within one, and within one
// with a sequence number that its sender has guessed.
func tcpFlags(add adder) {
	for _, family := range families {
		for _, g := range segments {
			make := func(seq, acked uint32) forge.Segment {
				return forge.Segment{Seq: seq, Ack: acked, Flags: g.flags, Window: g.window, Urgent: g.urgent, Options: g.options, Data: g.data}
			}
			for _, port := range everyone {
				add(family, port, "TCP "+g.name+" without a connection", func(s *session) {
					s.fromClient(g.name, make(7000, 9000).Packet(s.client, s.vip))
				})
			}
			for _, port := range served {
				for _, by := range []struct {
					name  string
					shift uint32
				}{{"exact", 0}, {"guessed", 0x12345678}} {
					add(family, port, "TCP "+g.name+" of a client within a connection, "+by.name, func(s *session) {
						s.establish()
						s.fromClient(g.name, make(s.next.client+by.shift, s.next.server).Packet(s.client, s.vip))
						if by.shift == 0 && g.flags&(forge.SYN|forge.RST|forge.FIN) == 0 {
							s.next.client += uint32(len(g.data))
						}
						s.converse()
					})
				}
				add(family, port, "TCP "+g.name+" of a server within a connection, exact", func(s *session) {
					s.establish()
					s.fromServer(g.name, func() forge.Packet { return make(s.next.server, s.next.client).Packet(s.server, s.seen) })
					s.converse()
				})
			}
		}
		for _, port := range served {
			add(family, port, "TCP connection that ends", func(s *session) {
				s.establish()
				s.converse()
				s.fromClient("FIN", s.clientSegment(forge.FIN|forge.ACK, nil).Packet(s.client, s.vip))
				s.fromServer("data after FIN", func() forge.Packet {
					return s.serverSegment(forge.PSH|forge.ACK, []byte("more")).Packet(s.server, s.seen)
				})
				s.fromServer("FIN", func() forge.Packet { return s.serverSegment(forge.FIN|forge.ACK, nil).Packet(s.server, s.seen) })
				s.fromClient("last ACK", s.clientSegment(forge.ACK, nil).Packet(s.client, s.vip))
				s.fromServer("FIN once more", func() forge.Packet {
					g := s.serverSegment(forge.FIN|forge.ACK, nil)
					g.Seq--
					return g.Packet(s.server, s.seen)
				})
			})
			add(family, port, "TCP connection refused", func(s *session) {
				s.fromClient("SYN", s.clientSegment(forge.SYN, nil).Packet(s.client, s.vip))
				s.fromServer("RST|ACK", func() forge.Packet {
					return forge.Segment{Ack: s.next.client, Flags: forge.RST | forge.ACK}.Packet(s.server, s.seen)
				})
			})
			add(family, port, "TCP SYN repeated", func(s *session) {
				g := s.clientSegment(forge.SYN, nil)
				s.fromClient("SYN", g.Packet(s.client, s.vip))
				s.fromClient("SYN again", g.Packet(s.client, s.vip))
				s.fromServer("SYN|ACK", func() forge.Packet { return s.serverSegment(forge.SYN|forge.ACK, nil).Packet(s.server, s.seen) })
				s.fromClient("SYN too late", g.Packet(s.client, s.vip))
				s.fromClient("ACK", s.clientSegment(forge.ACK, nil).Packet(s.client, s.vip))
				s.converse()
			})
			add(family, port, "TCP SYN|ACK repeated with another number", func(s *session) {
				s.fromClient("SYN", s.clientSegment(forge.SYN, nil).Packet(s.client, s.vip))
				s.fromServer("SYN|ACK", func() forge.Packet { return s.serverSegment(forge.SYN|forge.ACK, nil).Packet(s.server, s.seen) })
				s.fromServer("SYN|ACK with another number", func() forge.Packet {
					return forge.Segment{Seq: 77, Ack: s.next.client, Flags: forge.SYN | forge.ACK, Window: 65535}.Packet(s.server, s.seen)
				})
				s.fromClient("ACK", s.clientSegment(forge.ACK, nil).Packet(s.client, s.vip))
				s.converse()
			})
		}
	}
}

// tcpMalformed are segments that no stack would send.
func tcpMalformed(add adder) {
	for _, family := range families {
		for _, port := range everyone {
			for name, spoil := range map[string]func(l4 []byte) []byte{
				"wrong checksum":      func(l4 []byte) []byte { l4[16] ^= 0x55; return l4 },
				"header of 16 bytes":  func(l4 []byte) []byte { l4[12] = 4 << 4; return l4 },
				"header of 60 bytes":  func(l4 []byte) []byte { l4[12] = 15 << 4; return l4 },
				"only 19 bytes":       func(l4 []byte) []byte { return l4[:19] },
				"only ports":          func(l4 []byte) []byte { return l4[:4] },
				"nothing":             func([]byte) []byte { return nil },
				"reserved bits":       func(l4 []byte) []byte { l4[12] |= 0xe; return l4 },
				"option past the end": func(l4 []byte) []byte { l4[20], l4[21] = 2, 44; return l4 },
			} {
				add(family, port, "TCP malformed: "+name, func(s *session) {
					p := forge.Segment{Seq: 5, Flags: forge.SYN, Window: 100, Options: []byte{1, 1, 1, 0}}.Packet(s.client, s.vip)
					p.Payload = spoil(p.Payload)
					if name == "reserved bits" || name == "option past the end" {
						binary.BigEndian.PutUint16(p.Payload[16:], 0)
						binary.BigEndian.PutUint16(p.Payload[16:], forge.Layer4Sum(p.Src, p.Dst, unix.IPPROTO_TCP, p.Payload))
					}
					s.fromClient("it", p)
				})
			}
		}
	}
}

// udpMalformed are datagrams with all lengths and checksums.
func udpMalformed(add adder) {
	for _, family := range families {
		for _, port := range everyone {
			for _, size := range []int{0, 1, 100} {
				for _, c := range []string{"right", "no", "wrong"} {
					add(family, port, fmt.Sprintf("UDP %d bytes, %s checksum", size, c), func(s *session) {
						p := forge.Datagram(s.client, s.vip, forge.Fill(size))
						switch c {
						case "no":
							p.Payload[6], p.Payload[7] = 0, 0
						case "wrong":
							p.Payload[6] ^= 0x55
						}
						s.fromClient("it", p)
						s.fromServer("datagram", func() forge.Packet { return forge.Datagram(s.server, s.seen, []byte("yes")) })
					})
				}
			}
			for _, length := range []int{0, 7, 8, 50, 107, 109, 2000} {
				add(family, port, fmt.Sprintf("UDP length %d instead of 108", length), func(s *session) {
					p := forge.Datagram(s.client, s.vip, forge.Fill(100))
					binary.BigEndian.PutUint16(p.Payload[4:], uint16(length))
					s.fromClient("it", p)
				})
			}
			add(family, port, "UDP only 7 bytes", func(s *session) {
				p := forge.Datagram(s.client, s.vip, nil)
				p.Payload = p.Payload[:7]
				s.fromClient("it", p)
			})
		}
	}
}

var hops = []byte{1, 2, 3, 64}

// sized returns a segment or datagram so that the IP packet has this size.
func (s *session) sized(protocol string, size int, clients bool) forge.Packet {
	header := 20
	if s.family == 6 {
		header = 40
	}
	src, dst := s.client, s.vip
	if !clients {
		src, dst = s.server, s.seen
	}
	if protocol == "UDP" {
		return forge.Datagram(src, dst, forge.Fill(size-header-8))
	}
	data := forge.Fill(size - header - 20)
	if clients {
		return s.clientSegment(forge.PSH|forge.ACK, data).Packet(src, dst)
	}
	return s.serverSegment(forge.PSH|forge.ACK, data).Packet(src, dst)
}

// sizes are packets of clients that fit, just fit and do not fit, with all hop limits.
func sizes(add adder) {
	for _, family := range families {
		for _, protocol := range []string{"TCP", "UDP"} {
			for _, port := range everyone {
				if protocol == "TCP" && (port == unserved || port == hostPort) {
					continue
				}
				for _, size := range []int{100, serverMTU, serverMTU + 1, insideMTU, insideMTU + 1, clientMTU} {
					for _, hop := range hops {
						for _, df := range []bool{true, false} {
							if family == 6 && !df {
								continue
							}
							name := fmt.Sprintf("%s %d bytes, DF %v, hop limit %d", protocol, size, df, hop)
							add(family, port, name, func(s *session) {
								s.begin(protocol)
								p := s.sized(protocol, size, true)
								p.Hop, p.DF = hop, df
								s.fromClient("it", p)
								if p := s.sized(protocol, 100, true); protocol == "UDP" {
									s.fromClient("another", p)
								}
							})
						}
					}
				}
			}
		}
	}
}

// answerSizes are packets of servers.
func answerSizes(add adder) {
	for _, family := range families {
		for _, protocol := range []string{"TCP", "UDP"} {
			for _, port := range served {
				for _, size := range []int{100, returnMTU, returnMTU + 1, serverMTU} {
					for _, hop := range hops {
						for _, df := range []bool{true, false} {
							if family == 6 && !df {
								continue
							}
							name := fmt.Sprintf("%s answer of %d bytes, DF %v, hop limit %d", protocol, size, df, hop)
							add(family, port, name, func(s *session) {
								s.begin(protocol)
								s.fromServer("it", func() forge.Packet {
									p := s.sized(protocol, size, false)
									p.Hop, p.DF = hop, df
									return p
								})
							})
						}
					}
				}
			}
		}
	}
}

// sourcePorts are clients at ports that mean something (RFC 4787, REQ-3a).
func sourcePorts(add func(clientPort uint16, family int, name string, run func(s *session))) {
	for _, family := range families {
		for _, protocol := range []string{"TCP", "UDP"} {
			for _, port := range []uint16{1, 53, 511, 512, 1023, 1024, 65535} {
				add(port, family, fmt.Sprintf("%s from port %d", protocol, port), func(s *session) {
					s.begin(protocol)
					s.live(protocol)
				})
			}
		}
	}
}

// icmpQueries are messages to the VIP itself.
func icmpQueries(add adder) {
	both := add.answered()
	for _, family := range families {
		echo, other := byte(8), byte(13)
		if family == 6 {
			echo, other = 128, 139
		}
		for _, size := range []int{0, 1, 56, 1000, 1400} {
			for _, hop := range hops {
				both(family, fmt.Sprintf("echo request of %d bytes, hop limit %d", size, hop), func(s *session) {
					p := forge.Message(s.client.Addr(), s.vip.Addr(), echo, 0, 0x12340001, forge.Fill(size))
					p.Hop = hop
					s.fromClient("it", p)
				})
			}
		}
		one := func(name string, kind, code byte, change func(p *forge.Packet)) {
			both(family, name, func(s *session) {
				p := forge.Message(s.client.Addr(), s.vip.Addr(), kind, code, 0x12340001, forge.Fill(56))
				if change != nil {
					change(&p)
				}
				s.fromClient("it", p)
			})
		}
		one("echo request, code 1", echo, 1, nil)
		one("echo request, wrong checksum", echo, 0, func(p *forge.Packet) { p.Payload[2] ^= 0x55 })
		one("echo request, only 7 bytes", echo, 0, func(p *forge.Packet) { p.Payload = p.Payload[:7] })
		one("echo request, DSCP", echo, 0, func(p *forge.Packet) { p.TOS = 0xb8 })
		one("echo request without DF", echo, 0, func(p *forge.Packet) { p.DF = false })
		one("echo reply that nobody asked for", map[int]byte{4: 0, 6: 129}[family], 0, nil)
		one("other query", other, 0, nil)
		one("unknown type", 200, 0, nil)
	}
}

// protocols
// otherProtocols are layer-4 protocols that nobody serves.
func otherProtocols(add adder) {
	both := add.answered()
	for _, family := range families {
		for _, protocol := range []byte{2, 4, 41, 47, 50, 51, 59, 112, 132, 136, 253} {
			for _, size := range []int{4, 100} {
				both(family, fmt.Sprintf("protocol %d, %d bytes", protocol, size), func(s *session) {
					s.fromClient("it", forge.Packet{Src: s.client.Addr(), Dst: s.vip.Addr(), Protocol: protocol, Hop: 64, DF: true, Payload: forge.Fill(size)})
				})
			}
		}
	}
}

// mapped returns the IPv6 form of an IPv4 address (RFC 4291, 2.5.5.2).
func mapped(a netip.Addr) netip.Addr { return netip.AddrFrom16(a.As16()) }
