// SPDX-License-Identifier: Apache-2.0

// Package forge makes packets that no socket would send, and sends them.
package forge

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// Packet is an IP packet in the making.
type Packet struct {
	Src, Dst netip.Addr
	Protocol byte
	Hop      byte
	TOS      byte
	DF       bool // IPv4 only
	ID       uint32
	// Options are IPv4's, a multiple of 4 bytes.
	Options []byte
	// Extensions are IPv6's, each without the byte that names the next one.
	Extensions []Extension
	Payload    []byte // layer 4 with its header
	// Spoil changes the finished bytes.
	Spoil func(ip []byte)
}

// Extension is an extension header of IPv6.
type Extension struct {
	Kind byte
	Body []byte // from its second byte on
}

// Family is 4 or 6.
func (p Packet) Family() int {
	if p.Src.Is4() {
		return 4
	}
	return 6
}

// Header returns the IP header for so many bytes of payload, in a fragment if that has
// an offset or others follow.
func (p Packet) Header(size, offset int, more, fragmented bool) []byte {
	if p.Family() == 4 {
		h := make([]byte, 20, 20+len(p.Options)+size)
		h = append(h, p.Options...)
		h[0], h[1], h[8], h[9] = byte(4<<4|len(h)/4), p.TOS, p.Hop, p.Protocol
		binary.BigEndian.PutUint16(h[2:], uint16(len(h)+size))
		binary.BigEndian.PutUint16(h[4:], uint16(p.ID))
		flags := uint16(offset / 8)
		if more {
			flags |= 0x2000
		}
		if p.DF {
			flags |= 0x4000
		}
		binary.BigEndian.PutUint16(h[6:], flags)
		src, dst := p.Src.As4(), p.Dst.As4()
		copy(h[12:], src[:])
		copy(h[16:], dst[:])
		binary.BigEndian.PutUint16(h[10:], ^Fold(Sum(0, h)))
		return h
	}
	h := make([]byte, 40, 40+size)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(p.TOS)<<20)
	h[6], h[7] = p.Protocol, p.Hop
	src, dst := p.Src.As16(), p.Dst.As16()
	copy(h[8:], src[:])
	copy(h[24:], dst[:])
	at := 6 // of the byte that names the next header
	chain := p.Extensions
	if fragmented {
		body := make([]byte, 7)
		flags := uint16(offset)
		if more {
			flags |= 1
		}
		binary.BigEndian.PutUint16(body[1:], flags)
		binary.BigEndian.PutUint32(body[3:], p.ID)
		chain = append(append([]Extension{}, chain...), Extension{Kind: unix.IPPROTO_FRAGMENT, Body: body})
	}
	for _, e := range chain {
		h[at] = e.Kind
		at = len(h)
		h = append(append(h, p.Protocol), e.Body...)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+size))
	return h
}

// Bytes returns the whole packet.
func (p Packet) Bytes() []byte {
	b := append(p.Header(len(p.Payload), 0, false, false), p.Payload...)
	if p.Spoil != nil {
		p.Spoil(b)
	}
	return b
}

// Piece is a part of the payload that is sent in a fragment.
type Piece struct{ From, To int }

// Fragment returns the fragment with this piece.
func (p Packet) Fragment(f Piece) []byte {
	to := min(f.To, len(p.Payload))
	return append(p.Header(to-f.From, f.From, to < len(p.Payload), true), p.Payload[f.From:to]...)
}

// Pieces cuts the payload so that no fragment is longer than size.
func (p Packet) Pieces(size int) (pieces []Piece) {
	room := (size - len(p.Header(0, 0, true, true))) &^ 7
	for at := 0; at < len(p.Payload); at += room {
		pieces = append(pieces, Piece{at, min(at+room, len(p.Payload))})
	}
	return pieces
}

// Sum adds 16-bit words (RFC 1071).
func Sum(start uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		start += uint32(b[0]) << 8
	}
	return uint32(Fold(start))
}

// Fold makes 16 bits of a sum.
func Fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// Layer4Sum returns the checksum over pseudo header and payload.
func Layer4Sum(src, dst netip.Addr, protocol byte, payload []byte) uint16 {
	return ^Fold(Sum(Sum(Sum(uint32(protocol)+uint32(len(payload)), src.AsSlice()), dst.AsSlice()), payload))
}

// Segment is a TCP segment.
type Segment struct {
	Seq, Ack uint32
	Flags    byte
	Window   uint16
	Urgent   uint16
	Options  []byte
	Data     []byte
}

// Packet returns the IP packet with the segment.
func (s Segment) Packet(src, dst netip.AddrPort) Packet {
	h := make([]byte, 20, 20+len(s.Options)+len(s.Data))
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint32(h[4:], s.Seq)
	binary.BigEndian.PutUint32(h[8:], s.Ack)
	h[12], h[13] = byte((20+len(s.Options))/4<<4), s.Flags
	binary.BigEndian.PutUint16(h[14:], s.Window)
	binary.BigEndian.PutUint16(h[18:], s.Urgent)
	h = append(append(h, s.Options...), s.Data...)
	binary.BigEndian.PutUint16(h[16:], Layer4Sum(src.Addr(), dst.Addr(), unix.IPPROTO_TCP, h))
	return Packet{Src: src.Addr(), Dst: dst.Addr(), Protocol: unix.IPPROTO_TCP, Hop: 64, DF: true, Payload: h}
}

// Datagram is a UDP datagram.
func Datagram(src, dst netip.AddrPort, data []byte) Packet {
	h := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(h, src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
	h = append(h, data...)
	check := Layer4Sum(src.Addr(), dst.Addr(), unix.IPPROTO_UDP, h)
	if check == 0 {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(h[6:], check)
	return Packet{Src: src.Addr(), Dst: dst.Addr(), Protocol: unix.IPPROTO_UDP, Hop: 64, DF: true, Payload: h}
}

// Message is an ICMP message.
func Message(src, dst netip.Addr, kind, code byte, rest uint32, body []byte) Packet {
	h := []byte{kind, code, 0, 0}
	h = append(binary.BigEndian.AppendUint32(h, rest), body...)
	p := Packet{Src: src, Dst: dst, Protocol: unix.IPPROTO_ICMP, Hop: 64, DF: true}
	check := ^Fold(Sum(0, h))
	if src.Is6() {
		p.Protocol = unix.IPPROTO_ICMPV6
		check = Layer4Sum(src, dst, p.Protocol, h)
	}
	binary.BigEndian.PutUint16(h[2:], check)
	p.Payload = h
	return p
}

// Fill returns so many bytes that a mix-up of which would show.
func Fill(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i/256)
	}
	return b
}
