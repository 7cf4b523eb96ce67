// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Flags of a TCP header.
const (
	fin = 0x01
	syn = 0x02
	rst = 0x04
	ack = 0x10
)

// A header tells where things are in a packet.
type header struct {
	v6       bool
	protocol uint8
	l4       int // offset of the layer-4 header
	end      int // of the packet: what follows is padding of the link
	src, dst netip.Addr
}

// add adds up 16-bit words in ones' complement (RFC 1071).
func add(start uint32, b []byte) uint16 {
	sum := uint64(start)
	for ; len(b) > 1; b = b[2:] {
		sum += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func headerOf(ip []byte) (h header, err error) {
	cut := errors.New("packet cut short")
	if len(ip) < 20 {
		return h, cut
	}
	switch ip[0] >> 4 {
	case 4:
		h.protocol, h.l4, h.end = ip[9], int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
		if binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
			return h, errors.New("a fragment")
		}
		h.src, h.dst = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:]))
	case 6:
		if len(ip) < 40 {
			return h, cut
		}
		h.v6, h.protocol, h.l4, h.end = true, ip[6], 40, 40+int(binary.BigEndian.Uint16(ip[4:]))
		h.src, h.dst = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:]))
		for h.protocol == unix.IPPROTO_HOPOPTS || h.protocol == unix.IPPROTO_ROUTING || h.protocol == unix.IPPROTO_DSTOPTS || h.protocol == unix.IPPROTO_FRAGMENT {
			if len(ip) < h.l4+8 {
				return h, cut
			}
			length := 8 + int(ip[h.l4+1])*8
			if h.protocol == unix.IPPROTO_FRAGMENT {
				length = 8
				if binary.BigEndian.Uint16(ip[h.l4+2:])&0xfff9 != 0 { // RFC 6946: one that is the whole packet
					return h, errors.New("a fragment")
				}
			}
			h.protocol, h.l4 = ip[h.l4], h.l4+length
		}
	default:
		return h, errors.New("neither IPv4 nor IPv6")
	}
	least, known := map[uint8]int{unix.IPPROTO_TCP: 20, unix.IPPROTO_UDP: 8}[h.protocol]
	if !known {
		return h, fmt.Errorf("protocol %d", h.protocol)
	}
	if h.end > len(ip) || h.end < h.l4+least {
		return h, cut
	}
	return h, nil
}

func (h header) tuple(ip []byte) Tuple {
	at := func(offset int) uint16 { return binary.BigEndian.Uint16(ip[h.l4+offset:]) }
	return Tuple{netip.AddrPortFrom(h.src, at(0)), netip.AddrPortFrom(h.dst, at(2)), h.protocol}
}

// resize writes the length of the packet ip, and the sum of an IPv4 header.
func (h header) resize(ip []byte) {
	if h.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
		return
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], ^add(0, ip[:int(ip[0]&15)*4]))
}

// sum returns the sum of all of layer 4 with its pseudo header: 0xffff if its checksum is right.
func (h header) sum(l4 []byte) uint16 {
	var pseudo []byte
	pseudo = append(append(pseudo, h.src.AsSlice()...), h.dst.AsSlice()...)
	pseudo = binary.BigEndian.AppendUint32(append(pseudo, 0, 0, 0, h.protocol), uint32(len(l4)))
	return add(uint32(add(0, pseudo)), l4)
}

// TupleOf returns the tuple of a packet of TCP or UDP.
func TupleOf(ip []byte) (Tuple, error) {
	h, err := headerOf(ip)
	if err != nil {
		return Tuple{}, err
	}
	return h.tuple(ip), nil
}

// surplus is what stands behind a SYN, or behind a datagram of this many bytes: the padding to an even
// number, the checksum of RFC 9868 and the message. Its words and its length add up to zero.
func surplus(before int, message []byte) []byte {
	pad := before % 2
	check := ^add(uint32(pad+2+len(message)), message)
	if check == 0 {
		check = 0xffff // zero means "none"
	}
	return append(binary.BigEndian.AppendUint16(make([]byte, pad), check), message...)
}

// Within returns the packet with the message m: a SYN without data, or a datagram. Its own checksum stays.
func (m Message) Within(ip []byte, key Key) ([]byte, error) {
	h, err := headerOf(ip)
	if err != nil {
		return nil, err
	}
	size := h.end - h.l4
	if h.protocol == unix.IPPROTO_TCP && (ip[h.l4+13]&(syn|ack) != syn || size != int(ip[h.l4+12]>>4)*4) {
		return nil, errors.New("not a SYN without data")
	}
	if m.Kind == 0 {
		m.Kind = KindSurplus
	}
	ip = append(slices.Clone(ip[:h.end]), surplus(size, m.Encode(key, h.tuple(ip)))...)
	h.resize(ip)
	return ip, nil
}

// Alone returns a packet that has nothing but the message m: a segment or a datagram like ip. Its checksum is right.
func (m Message) Alone(ip []byte, key Key) ([]byte, error) {
	h, err := headerOf(ip)
	if err != nil {
		return nil, err
	}
	m.Flags |= Alone
	if m.Kind == 0 {
		m.Kind = map[uint8]uint8{unix.IPPROTO_TCP: KindTCP, unix.IPPROTO_UDP: KindSurplus}[h.protocol]
	}
	message := m.Encode(key, h.tuple(ip))
	size, at := 20, 16 // of the header; of its checksum
	if h.protocol == unix.IPPROTO_UDP {
		size, at = 8, 6
	}
	area := message
	if h.protocol == unix.IPPROTO_UDP {
		area = surplus(size, message)
	}
	ip = append(slices.Clone(ip[:h.l4+size]), area...)
	l4 := ip[h.l4:] // what the checksum covers
	if h.protocol == unix.IPPROTO_TCP {
		l4[12] = 15 << 4
	} else {
		l4 = l4[:size]
		binary.BigEndian.PutUint16(l4[4:], uint16(size))
	}
	binary.BigEndian.PutUint16(l4[at:], 0)
	check := ^h.sum(l4)
	if check == 0 && h.protocol == unix.IPPROTO_UDP {
		check = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], check)
	h.resize(ip)
	return ip, nil
}

// Found is a message in a packet.
type Found struct {
	Message
	Tuple
	Alone  bool   // the packet has nothing else
	Signed []byte // the message's bytes
	Rest   []byte // the packet without the message, if that is within
	Pad    uint8  // the byte in front of it that makes its place even: zero
	Off    uint16 // what the surplus area and its length add up to: zero, if its checksum is right
}

// Genuine reports whether the key has signed the message for this packet.
func (f Found) Genuine(key Key) bool { return Genuine(key, f.Tuple, f.Signed) }

// Find returns the message that a packet carries.
func Find(ip []byte) (f Found, err error) {
	h, err := headerOf(ip)
	if err != nil {
		return f, err
	}
	l4 := ip[h.l4:h.end]
	size, within := len(l4), false // of layer 4 without the message
	if h.protocol == unix.IPPROTO_TCP {
		head := int(l4[12]>>4) * 4
		flags := l4[13] & (fin | syn | rst | ack)
		switch {
		case head < 20 || head > len(l4):
			return f, errors.New("malformed TCP header")
		case flags == syn && len(l4) == head+2+Len:
			size, within = head, true
		case head == 60 && len(l4) == head && l4[20] == KindTCP:
			f.Signed, f.Alone = l4[20:], true
		default:
			return f, errors.New("no place of a message in this segment")
		}
	} else {
		size = int(binary.BigEndian.Uint16(l4[4:]))
		if size < 8 || size > len(l4) || len(l4)-size != size%2+2+Len {
			return f, errors.New("no surplus area of a message's length")
		}
		within = true
		f.Alone = size == 8
	}
	if within {
		area := l4[size:]
		if size%2 == 1 {
			f.Pad = area[0]
		}
		f.Off = ^add(uint32(len(area)), area[size%2:])
		f.Signed = area[size%2+2:]
		if f.Signed[0] != KindSurplus {
			return f, errors.New("not a message's kind")
		}
		f.Rest = slices.Clone(ip[:h.l4+size])
		h.resize(f.Rest)
	}
	f.Message, err = Parse(f.Signed)
	if err != nil {
		return f, err
	}
	f.Tuple = h.tuple(ip)
	return f, nil
}
