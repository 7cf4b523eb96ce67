// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flags of a TCP header.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	psh = 0x08
	ack = 0x10
)

// MAC addresses of every device of the lab, and of its peer.
var (
	deviceMAC = [6]byte{2, 0, 0, 0, 0, 1}
	peerMAC   = [6]byte{2, 0, 0, 0, 0, 2}
)

// A packet is the description of a frame. The zero value of a field stands for
// what a plain packet has.
type packet struct {
	src, dst netip.AddrPort
	protocol uint8
	ttl      uint8 // 0: 64
	id       uint32
	df       bool
	tos      uint8

	flags     uint8 // TCP
	seq, ack  uint32
	tcpOption []byte
	window0   bool
	zero      bool // UDP without a checksum
	partial   bool // the checksum is the sum of the pseudo header, for the device to complete
	icmpType  uint8
	icmpCode  uint8
	icmpRest  uint32
	payload   []byte
	tail      []byte // what follows layer 4: none of its sums or lengths covers it

	options  []byte      // IPv4
	exts     []extension // IPv6, before the fragment header
	lateExts []extension // IPv6, behind it
	piece    *piece      // the packet is this part of the datagram

	raw      bool   // no link header
	vlan     uint16 // a tag in the frame
	swapped  bool   // the MAC addresses are swapped: it is sent back
	blankMAC bool   // a link header was put in front of a raw packet
	padding  int    // bytes behind the IP packet
}

// An extension header: its type, and all of it but the first byte.
type extension struct {
	protocol uint8
	body     []byte
}

// A piece is a fragment: which bytes of what follows the IP header.
type piece struct {
	from, to int // if to is 0: up to the end
	atomic   bool
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func tcp(src, dst string) packet {
	return packet{src: ap(src), dst: ap(dst), protocol: unix.IPPROTO_TCP, df: true, id: 7,
		flags: ack | psh, seq: 1000, ack: 2000, payload: []byte("GET / HTTP/1.1\r\n")}
}

func udp(src, dst string) packet {
	return packet{src: ap(src), dst: ap(dst), protocol: unix.IPPROTO_UDP, id: 7, payload: []byte("what is the time?")}
}

// proto makes a packet of TCP or UDP.
func proto(protocol uint8, src, dst string) packet {
	if protocol == unix.IPPROTO_TCP {
		return tcp(src, dst)
	}
	return udp(src, dst)
}

func echo(src, dst string) packet {
	p := packet{src: netip.AddrPortFrom(netip.MustParseAddr(src), 0), dst: netip.AddrPortFrom(netip.MustParseAddr(dst), 0),
		protocol: unix.IPPROTO_ICMP, icmpType: 8, icmpRest: 0x12340001, payload: []byte("are you there?")}
	if p.v6() {
		p.protocol, p.icmpType = unix.IPPROTO_ICMPV6, 128
	}
	return p
}

// icmpError makes an ICMP error about a packet. It quotes that many bytes of the
// packet, from its IP header on; 0: all.
func icmpError(from, to string, kind, code uint8, rest uint32, about packet, quote int) packet {
	p := echo(from, to)
	p.icmpType, p.icmpCode, p.icmpRest = kind, code, rest
	about.raw = true
	p.payload = about.bytes()
	if quote > 0 {
		p.payload = p.payload[:quote]
	}
	return p
}

func (p packet) v6() bool { return p.dst.Addr().Is6() }

// Changes that a test makes to a packet: each returns a changed copy.

func (p packet) from(s string) packet        { p.src = ap(s); return p }
func (p packet) to(s string) packet          { p.dst = ap(s); return p }
func (p packet) withID(id uint32) packet     { p.id = id; return p }
func (p packet) withTTL(n uint8) packet      { p.ttl = n; return p }
func (p packet) hop() packet                 { p.ttl = p.hopLimit() - 1; return p }
func (p packet) withPayload(s string) packet { p.payload = []byte(s); return p }
func (p packet) swapMACs() packet            { p.swapped = true; return p }
func (p packet) keepMACs() packet            { p.swapped = false; return p }
func (p packet) fragment(from, to int) packet {
	p.piece = &piece{from: from, to: to}
	return p
}
func (p packet) segment(flags uint8, seq, ack uint32, payload string) packet {
	p.flags, p.seq, p.ack, p.payload = flags, seq, ack, []byte(payload)
	return p
}

// rstAnswer is the RST that answers the packet.
func (p packet) rstAnswer(flags uint8, seq, ack uint32) packet {
	p = p.reversed().withTTL(64).swapMACs().segment(flags, seq, ack, "")
	p.tcpOption, p.window0, p.padding = nil, true, 0
	return p
}

// turnedIntoRST is the RST that a packet of a backend is turned into.
func (p packet) turnedIntoRST() packet {
	p = p.segment(rst|ack, p.seq, p.ack, "").withTTL(64)
	p.tcpOption, p.window0, p.padding = nil, true, 0
	return p
}

// icmpAnswer is the ICMP error that answers the packet.
func (p packet) icmpAnswer(kind, code uint8, rest uint32) packet {
	raw := p
	raw.raw, raw.padding, raw.vlan = true, 0, 0
	most := 576 - 28 // RFC 1812, 4.3.2.3
	if p.v6() {
		most = 1280 - 48 // RFC 4443, 2.4
	}
	e := icmpError(p.dst.Addr().String(), p.src.Addr().String(), kind, code, rest, raw, min(len(raw.bytes()), most))
	if !p.v6() {
		e.df, e.tos = true, 0xc0|p.tos&0x1c // RFC 6864, 4.1 and RFC 1812, 4.3.2.5
	}
	e.vlan = p.vlan
	return e.swapMACs()
}

func (p packet) portUnreachable() packet {
	return p.unreachable(3, 4)
}

// unreachable is the answer of a router, with its codes for IPv4 and IPv6.
func (p packet) unreachable(code4, code6 uint8) packet {
	if p.v6() {
		return p.icmpAnswer(1, code6, 0)
	}
	return p.icmpAnswer(3, code4, 0)
}

func (p packet) timeExceeded() packet {
	if p.v6() {
		return p.icmpAnswer(3, 0, 0)
	}
	return p.icmpAnswer(11, 0, 0)
}

func (p packet) tooBig(mtu uint32) packet {
	if p.v6() {
		return p.icmpAnswer(2, 0, mtu)
	}
	return p.icmpAnswer(3, 4, mtu)
}

// echoReply is the reply to an echo request.
func (p packet) echoReply() packet {
	p = p.reversed().withTTL(64).swapMACs()
	p.icmpType = 0
	if p.v6() {
		p.icmpType = 129
	}
	return p
}

func (p packet) reversed() packet {
	p.src, p.dst = p.dst, p.src
	return p
}
func (p packet) withSize(n int) packet {
	p.payload = make([]byte, n)
	for i := range p.payload {
		p.payload[i] = byte(i * 7)
	}
	return p
}

func (p packet) hopLimit() uint8 {
	if p.ttl == 0 {
		return 64
	}
	return p.ttl
}

// layer4 returns the datagram from the layer-4 header on, with its checksum, and its tail.
func (p packet) layer4() []byte { return append(p.summed(), p.tail...) }

func (p packet) summed() []byte {
	var b []byte
	var at int
	switch p.protocol {
	case unix.IPPROTO_TCP:
		b = binary.BigEndian.AppendUint16(b, p.src.Port())
		b = binary.BigEndian.AppendUint16(b, p.dst.Port())
		b = binary.BigEndian.AppendUint32(b, p.seq)
		b = binary.BigEndian.AppendUint32(b, p.ack)
		b = append(b, byte(5+len(p.tcpOption)/4)<<4, p.flags, 0xfa, 0xf0, 0, 0, 0, 0)
		if p.window0 {
			b[14], b[15] = 0, 0
		}
		b = append(append(b, p.tcpOption...), p.payload...)
		at = 16
	case unix.IPPROTO_UDP:
		b = binary.BigEndian.AppendUint16(b, p.src.Port())
		b = binary.BigEndian.AppendUint16(b, p.dst.Port())
		b = binary.BigEndian.AppendUint16(b, uint16(8+len(p.payload)))
		b = append(append(b, 0, 0), p.payload...)
		at = 6
		if p.zero {
			return b
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		b = append(b, p.icmpType, p.icmpCode, 0, 0)
		b = append(binary.BigEndian.AppendUint32(b, p.icmpRest), p.payload...)
		at = 2
	default:
		return p.payload
	}
	var pseudo []byte
	if p.protocol != unix.IPPROTO_ICMP {
		pseudo = pseudoHeader(p.src.Addr(), p.dst.Addr(), p.protocol, len(b))
	}
	if p.partial {
		sum := onesSum(binary.BigEndian.AppendUint16(pseudo, uint16(len(p.tail)))) // the device sums the tail, too
		if sum == 0xffff {
			sum = 0 // the same number in ones' complement, and harder to get right
		}
		binary.BigEndian.PutUint16(b[at:], sum)
		return b
	}
	check := ^onesSum(append(pseudo, b...))
	if check == 0 && p.protocol == unix.IPPROTO_UDP {
		check = 0xffff // RFC 768: zero means "none"
	}
	binary.BigEndian.PutUint16(b[at:], check)
	return b
}

// bytes builds the frame.
func (p packet) bytes() []byte {
	var b []byte
	ethertype := uint16(unix.ETH_P_IP)
	if p.v6() {
		ethertype = unix.ETH_P_IPV6
	}
	if !p.raw {
		to, from := deviceMAC, peerMAC
		if p.swapped {
			to, from = from, to
		}
		if p.blankMAC {
			to, from = [6]byte{}, [6]byte{}
		}
		b = append(append(b, to[:]...), from[:]...)
		if p.vlan != 0 {
			b = binary.BigEndian.AppendUint16(b, unix.ETH_P_8021Q)
			b = binary.BigEndian.AppendUint16(b, p.vlan)
		}
		b = binary.BigEndian.AppendUint16(b, ethertype)
	}
	if p.v6() {
		b = p.appendIPv6(b)
	} else {
		b = p.appendIPv4(b)
	}
	return append(b, make([]byte, p.padding)...)
}

func (p packet) slice(whole []byte) (part []byte, offset int, more bool) {
	if p.piece == nil || p.piece.atomic {
		return whole, 0, false
	}
	to := p.piece.to
	if to == 0 {
		to = len(whole)
	}
	return whole[p.piece.from:to], p.piece.from, to < len(whole)
}

func (p packet) appendIPv4(b []byte) []byte {
	part, offset, more := p.slice(p.layer4())
	word := uint16(offset / 8)
	if more {
		word |= 0x2000
	}
	if p.df {
		word |= 0x4000
	}
	h := []byte{byte(0x45 + len(p.options)/4), p.tos}
	h = binary.BigEndian.AppendUint16(h, uint16(20+len(p.options)+len(part)))
	h = binary.BigEndian.AppendUint16(h, uint16(p.id))
	h = binary.BigEndian.AppendUint16(h, word)
	h = append(h, p.hopLimit(), p.protocol, 0, 0)
	h = append(append(h, p.src.Addr().AsSlice()...), p.dst.Addr().AsSlice()...)
	h = append(h, p.options...)
	binary.BigEndian.PutUint16(h[10:], ^onesSum(h))
	return append(append(b, h...), part...)
}

func (p packet) appendIPv6(b []byte) []byte {
	exts := p.exts
	rest := chain(p.lateExts, p.protocol, p.layer4())
	first := p.protocol
	if len(p.lateExts) > 0 {
		first = p.lateExts[0].protocol
	}
	part, offset, more := p.slice(rest)
	if p.piece != nil {
		word := uint16(offset)
		if more {
			word |= 1
		}
		body := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16([]byte{0}, word), p.id)
		exts = append(append([]extension{}, exts...), extension{unix.IPPROTO_FRAGMENT, body})
	}
	part = chain(exts, first, part)
	if len(exts) > 0 {
		first = exts[0].protocol
	}
	b = append(b, 0x60|p.tos>>4, p.tos<<4, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
	b = append(b, first, p.hopLimit())
	b = append(append(b, p.src.Addr().AsSlice()...), p.dst.Addr().AsSlice()...)
	return append(b, part...)
}

// chain puts extension headers in front of data of the protocol next.
func chain(exts []extension, next uint8, data []byte) []byte {
	var b []byte
	for i, e := range exts {
		follows := next
		if i+1 < len(exts) {
			follows = exts[i+1].protocol
		}
		b = append(append(b, follows), e.body...)
	}
	return append(b, data...)
}

// Extension headers that contain padding only, of 6 and of 14 bytes.
func hopByHop() extension { return extension{unix.IPPROTO_HOPOPTS, []byte{0, 1, 4, 0, 0, 0, 0}} }
func destOptions() extension {
	return extension{unix.IPPROTO_DSTOPTS, append([]byte{1, 1, 12}, make([]byte, 12)...)}
}

// routing is a routing header with no segments left: the packet is at its destination.
func routing() extension {
	return extension{unix.IPPROTO_ROUTING, append([]byte{2, 4, 0}, make([]byte, 20)...)}
}

func addrPort(a netip.Addr, port int) netip.AddrPort { return netip.AddrPortFrom(a, uint16(port)) }
