// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
	urg
	ece
	cwr
)

// packet is an IP packet in the making.
type packet struct {
	src, dst netip.Addr
	protocol byte
	hop      byte
	tos      byte
	df       bool // IPv4 only
	id       uint32
	// options are IPv4's, a multiple of 4 bytes.
	options []byte
	// extensions are IPv6's, each without the byte that names the next one.
	extensions []extension
	payload    []byte // layer 4 with its header
	// spoil changes the finished bytes.
	spoil func(ip []byte)
}

type extension struct {
	kind byte
	body []byte // from its second byte on
}

func (p packet) family() int {
	if p.src.Is4() {
		return 4
	}
	return 6
}

// header returns the IP header for so many bytes of payload, in a fragment if that has
// an offset or others follow.
func (p packet) header(size, offset int, more, fragmented bool) []byte {
	if p.family() == 4 {
		h := make([]byte, 20, 20+len(p.options)+size)
		h = append(h, p.options...)
		h[0], h[1], h[8], h[9] = byte(4<<4|len(h)/4), p.tos, p.hop, p.protocol
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+size))
		binary.BigEndian.PutUint16(h[4:], uint16(p.id))
		flags := uint16(offset / 8)
		if more {
			flags |= 0x2000
		}
		if p.df {
			flags |= 0x4000
		}
		binary.BigEndian.PutUint16(h[6:], flags)
		src, dst := p.src.As4(), p.dst.As4()
		copy(h[12:], src[:])
		copy(h[16:], dst[:])
		binary.BigEndian.PutUint16(h[10:], ^fold(sum(0, h)))
		return h
	}
	h := make([]byte, 40, 40+size)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(p.tos)<<20)
	h[6], h[7] = p.protocol, p.hop
	src, dst := p.src.As16(), p.dst.As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	at := 6 // of the byte that names the next header
	chain := p.extensions
	if fragmented {
		body := make([]byte, 7)
		flags := uint16(offset)
		if more {
			flags |= 1
		}
		binary.BigEndian.PutUint16(body[1:], flags)
		binary.BigEndian.PutUint32(body[3:], p.id)
		chain = append(append([]extension{}, chain...), extension{unix.IPPROTO_FRAGMENT, body})
	}
	for _, e := range chain {
		h[at] = e.kind
		at = len(h)
		h = append(append(h, p.protocol), e.body...)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+size))
	return h
}

func (p packet) bytes() []byte {
	b := append(p.header(len(p.payload), 0, false, false), p.payload...)
	if p.spoil != nil {
		p.spoil(b)
	}
	return b
}

// piece is a part of the payload that is sent in a fragment.
type piece struct{ from, to int }

// fragment returns the fragment with this piece.
func (p packet) fragment(f piece) []byte {
	to := min(f.to, len(p.payload))
	return append(p.header(to-f.from, f.from, to < len(p.payload), true), p.payload[f.from:to]...)
}

// pieces cuts the payload so that no fragment is longer than size.
func (p packet) pieces(size int) (pieces []piece) {
	room := (size - len(p.header(0, 0, true, true))) &^ 7
	for at := 0; at < len(p.payload); at += room {
		pieces = append(pieces, piece{at, min(at+room, len(p.payload))})
	}
	return pieces
}

// sum adds 16-bit words (RFC 1071).
func sum(start uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		start += uint32(b[0]) << 8
	}
	return uint32(fold(start))
}

func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// layer4Sum returns the checksum over pseudo header and payload.
func layer4Sum(src, dst netip.Addr, protocol byte, payload []byte) uint16 {
	return ^fold(sum(sum(sum(uint32(protocol)+uint32(len(payload)), src.AsSlice()), dst.AsSlice()), payload))
}

// segment is a TCP segment.
type segment struct {
	seq, ack uint32
	flags    byte
	window   uint16
	urgent   uint16
	options  []byte
	data     []byte
}

func (s segment) packet(src, dst netip.AddrPort) packet {
	h := make([]byte, 20, 20+len(s.options)+len(s.data))
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint32(h[4:], s.seq)
	binary.BigEndian.PutUint32(h[8:], s.ack)
	h[12], h[13] = byte((20+len(s.options))/4<<4), s.flags
	binary.BigEndian.PutUint16(h[14:], s.window)
	binary.BigEndian.PutUint16(h[18:], s.urgent)
	h = append(append(h, s.options...), s.data...)
	binary.BigEndian.PutUint16(h[16:], layer4Sum(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, h))
	return packet{src: src.Addr(), dst: dst.Addr(), protocol: unix.IPPROTO_TCP, hop: 64, df: true, payload: h}
}

// datagram is a UDP datagram.
func datagram(src, dst netip.AddrPort, data []byte) packet {
	h := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
	h = append(h, data...)
	check := layer4Sum(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, h)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(h[6:], check)
	return packet{src: src.Addr(), dst: dst.Addr(), protocol: unix.IPPROTO_UDP, hop: 64, df: true, payload: h}
}

// message is an ICMP message.
func message(src, dst netip.Addr, kind, code byte, rest uint32, body []byte) packet {
	h := []byte{kind, code, 0, 0}
	h = append(binary.BigEndian.AppendUint32(h, rest), body...)
	p := packet{src: src, dst: dst, protocol: unix.IPPROTO_ICMP, hop: 64, df: true}
	check := ^fold(sum(0, h))
	if src.Is6() {
		p.protocol = unix.IPPROTO_ICMPV6
		check = layer4Sum(src, dst, p.protocol, h)
	}
	binary.BigEndian.PutUint16(h[2:], check)
	p.payload = h
	return p
}

// fill returns so many bytes that a mix-up of which would show.
func fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/256)
	}
	return b
}
