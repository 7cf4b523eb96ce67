// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/forge"
)

// parsed is an IP packet taken apart.
type parsed struct {
	family         int
	src, dst       netip.Addr
	protocol       byte // of layer 4
	hop, tos       byte
	df, more       bool
	offset         int
	id             uint32
	fragmented     bool
	headerGood     bool   // IPv4's checksum
	extra          []byte // options or extension headers, without a fragment header
	payload        []byte // layer 4
	total, present int    // bytes, by the header and in fact
}

func parse(b []byte) (p parsed, ok bool) {
	if len(b) < 20 {
		return p, false
	}
	if p.family = int(b[0] >> 4); p.family == 4 {
		length := int(b[0]&15) * 4
		if length < 20 || len(b) < length {
			return p, false
		}
		p.src, _ = netip.AddrFromSlice(b[12:16])
		p.dst, _ = netip.AddrFromSlice(b[16:20])
		p.tos, p.hop, p.protocol = b[1], b[8], b[9]
		p.id = uint32(binary.BigEndian.Uint16(b[4:]))
		flags := binary.BigEndian.Uint16(b[6:])
		p.df, p.more, p.offset = flags&0x4000 != 0, flags&0x2000 != 0, int(flags&0x1fff)*8
		p.fragmented = p.more || p.offset > 0
		p.headerGood = forge.Fold(forge.Sum(0, b[:length])) == 0xffff
		p.extra = b[20:length]
		p.total = int(binary.BigEndian.Uint16(b[2:]))
		p.present = min(p.total, len(b))
		p.payload = b[length:max(length, p.present)]
		return p, true
	}
	if p.family != 6 || len(b) < 40 {
		return p, false
	}
	p.src, _ = netip.AddrFromSlice(b[8:24])
	p.dst, _ = netip.AddrFromSlice(b[24:40])
	p.tos, p.hop, p.protocol, p.headerGood = byte(binary.BigEndian.Uint32(b)>>20), b[7], b[6], true
	p.total = 40 + int(binary.BigEndian.Uint16(b[4:]))
	p.present = min(p.total, len(b))
	b = b[40:p.present]
	for p.offset == 0 && len(b) >= 8 && slices.Contains([]byte{unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS, unix.IPPROTO_FRAGMENT}, p.protocol) {
		size := int(b[1])*8 + 8
		if p.protocol == unix.IPPROTO_FRAGMENT {
			size = 8
			flags := binary.BigEndian.Uint16(b[2:])
			p.fragmented, p.more, p.offset = true, flags&1 != 0, int(flags&^7)
			p.id = binary.BigEndian.Uint32(b[4:])
		} else {
			p.extra = append(append(p.extra[:len(p.extra):len(p.extra)], p.protocol), b[1:min(size, len(b))]...)
		}
		p.protocol = b[0]
		b = b[min(size, len(b)):]
	}
	p.payload = b
	return p, true
}

// reassemble puts fragments together as Linux does: what is there already is
// ignored, what overlaps in part makes the datagram useless (RFC 5722). What cannot be put together stays as
// it is.
func reassemble(packets [][]byte) (whole []parsed) {
	type key struct {
		src, dst netip.Addr
		id       uint32
	}
	var order []key
	parts := map[key][]parsed{}
	for _, b := range packets {
		p, ok := parse(b)
		if !ok {
			whole = append(whole, parsed{payload: b})
			continue
		}
		if !p.more && p.offset == 0 { // an atomic fragment is whole (RFC 6946)
			whole = append(whole, p)
			continue
		}
		k := key{p.src, p.dst, p.id}
		if parts[k] == nil {
			order = append(order, k)
		}
		parts[k] = append(parts[k], p)
	}
	for _, k := range order {
		fragments := parts[k]
		kept, complete := arrange(fragments)
		all := kept[0]
		for _, f := range kept[1:] {
			complete = complete && f.offset == len(all.payload)
			all.payload = append(all.payload[:len(all.payload):len(all.payload)], f.payload...)
		}
		complete = complete && all.offset == 0 && !kept[len(kept)-1].more
		if !complete {
			whole = append(whole, fragments...)
			continue
		}
		all.more = false
		all.total += len(all.payload) - len(fragments[0].payload)
		all.present = all.total
		whole = append(whole, all)
	}
	return whole
}

// arrange returns the fragments that count, by their offsets, and whether none of them
// makes the datagram useless. What lies within others that were there before and are
// contiguous counts as a duplicate.
func arrange(arrived []parsed) (kept []parsed, useful bool) {
	useful = true
	for _, f := range arrived {
		end, covered, overlaps := f.offset+len(f.payload), f.offset, false
		for _, k := range kept {
			if k.offset <= covered {
				covered = max(covered, k.offset+len(k.payload))
			}
			overlaps = overlaps || f.offset < k.offset+len(k.payload) && k.offset < end
		}
		if overlaps && covered >= end {
			continue
		}
		useful = useful && !overlaps
		kept = append(kept, f)
		slices.SortStableFunc(kept, func(a, b parsed) int { return cmp.Compare(a.offset, b.offset) })
	}
	return kept, useful
}

// describer names what packets contain.
type describer struct {
	// port names a port of an address.
	port func(a netip.Addr, p uint16) string
	// sent are packets whose quotes are recognized.
	sent [][]byte
}

func addrName(a netip.Addr) string {
	if name := names[a]; name != "" {
		return name
	}
	return a.String()
}

// describe tells everything about a packet that a receiver may care about: not IP's
// identification, nor where a datagram was cut.
func (d describer) describe(p parsed) string {
	if p.family == 0 {
		return fmt.Sprintf("not IP: %x", p.payload[:min(40, len(p.payload))])
	}
	var s strings.Builder
	fmt.Fprintf(&s, "IPv%d hop %d", p.family, p.hop)
	if p.tos != 0 {
		fmt.Fprintf(&s, " tos %#x", p.tos)
	}
	if p.df {
		s.WriteString(" DF")
	}
	if !p.headerGood {
		s.WriteString(" WRONG HEADER CHECKSUM")
	}
	if len(p.extra) > 0 {
		fmt.Fprintf(&s, " options %x", p.extra)
	}
	if p.more || p.offset > 0 {
		fmt.Fprintf(&s, " %s > %s protocol %d FRAGMENT %d-%d more=%v", addrName(p.src), addrName(p.dst), p.protocol, p.offset, p.offset+len(p.payload), p.more)
		return s.String()
	}
	s.WriteString(" " + d.layer4(p))
	return s.String()
}

func (d describer) layer4(p parsed) string {
	l4 := p.payload
	ends := func() string {
		return fmt.Sprintf("%s:%s > %s:%s", addrName(p.src), d.port(p.src, binary.BigEndian.Uint16(l4)), addrName(p.dst), d.port(p.dst, binary.BigEndian.Uint16(l4[2:])))
	}
	check := func(none bool) string {
		switch {
		case none:
			return "no checksum"
		case forge.Layer4Sum(p.src, p.dst, p.protocol, l4) != 0:
			return "WRONG CHECKSUM"
		}
		return "sum ok"
	}
	switch {
	case p.protocol == unix.IPPROTO_TCP && len(l4) >= 20:
		header := min(max(int(l4[12]>>4)*4, 20), len(l4))
		return fmt.Sprintf("TCP %s %s seq %d ack %d window %d urgent %d options %x data %s, %s", ends(), flagNames(l4[13]),
			binary.BigEndian.Uint32(l4[4:]), binary.BigEndian.Uint32(l4[8:]), binary.BigEndian.Uint16(l4[14:]), binary.BigEndian.Uint16(l4[18:]),
			l4[20:header], digest(l4[header:]), check(false))
	case p.protocol == unix.IPPROTO_UDP && len(l4) >= 8:
		size := int(binary.BigEndian.Uint16(l4[4:]))
		odd := ""
		if size != len(l4) {
			odd = fmt.Sprintf(" length %d of %d", size, len(l4))
			if size >= 8 && size < len(l4) {
				l4 = l4[:size]
			}
		}
		return fmt.Sprintf("UDP %s%s data %s, %s", ends(), odd, digest(l4[8:]), check(l4[6] == 0 && l4[7] == 0))
	case (p.protocol == unix.IPPROTO_ICMP && p.family == 4 || p.protocol == unix.IPPROTO_ICMPV6 && p.family == 6) && len(l4) >= 8:
		good := "sum ok"
		if p.family == 4 && forge.Fold(forge.Sum(0, l4)) != 0xffff || p.family == 6 && forge.Layer4Sum(p.src, p.dst, p.protocol, l4) != 0 {
			good = "WRONG CHECKSUM"
		}
		head := fmt.Sprintf("ICMP %s > %s type %d code %d rest %#x", addrName(p.src), addrName(p.dst), l4[0], l4[1], binary.BigEndian.Uint32(l4[4:]))
		if p.family == 4 && slices.Contains([]byte{3, 4, 5, 11, 12}, l4[0]) || p.family == 6 && l4[0] < 128 {
			return fmt.Sprintf("%s %s, %s", head, d.quote(l4[8:]), good)
		}
		data := l4[8:]
		if p.family == 4 && l4[0] == 14 && len(data) == 12 {
			data = data[:4] // the rest of a timestamp reply is the time
		}
		return fmt.Sprintf("%s data %s, %s", head, digest(data), good)
	}
	return fmt.Sprintf("protocol %d %s > %s data %s", p.protocol, addrName(p.src), addrName(p.dst), digest(l4))
}

// quote describes the packet that an ICMP error quotes, in short if it is one that its
// receiver has sent.
func (d describer) quote(b []byte) string {
	q, ok := parse(b)
	if !ok {
		return fmt.Sprintf("quotes %x", b[:min(len(b), 28)])
	}
	enough := len(q.payload) >= 8
	for _, s := range d.sent {
		o, _ := parse(s)
		if n := min(len(o.payload), len(q.payload)); enough && o.src == q.src && o.dst == q.dst && o.protocol == q.protocol && o.total == q.total &&
			o.tos == q.tos && o.df == q.df && o.offset == q.offset && o.more == q.more && bytes.Equal(o.extra, q.extra) && bytes.Equal(o.payload[:n], q.payload[:n]) {
			if !q.headerGood {
				return "quotes it with a WRONG HEADER CHECKSUM"
			}
			return "quotes it"
		}
	}
	var s strings.Builder
	fmt.Fprintf(&s, "quotes IPv%d of %d bytes %s > %s protocol %d", q.family, q.total, addrName(q.src), addrName(q.dst), q.protocol)
	if q.df {
		s.WriteString(" DF")
	}
	if !q.headerGood {
		s.WriteString(" WRONG HEADER CHECKSUM")
	}
	if q.offset > 0 || q.more {
		fmt.Fprintf(&s, " fragment at %d", q.offset)
	}
	if q.offset == 0 && len(q.payload) >= 8 && (q.protocol == unix.IPPROTO_TCP || q.protocol == unix.IPPROTO_UDP) {
		fmt.Fprintf(&s, " ports %s %s, %x", d.port(q.src, binary.BigEndian.Uint16(q.payload)), d.port(q.dst, binary.BigEndian.Uint16(q.payload[2:])), q.payload[4:8])
	} else {
		fmt.Fprintf(&s, " %x", q.payload[:min(8, len(q.payload))])
	}
	return s.String()
}

func flagNames(f byte) string {
	var s []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"} {
		if f&(1<<i) != 0 {
			s = append(s, name)
		}
	}
	if s == nil {
		return "no flags"
	}
	return strings.Join(s, "|")
}

func digest(b []byte) string {
	if len(b) == 0 {
		return "none"
	}
	return fmt.Sprintf("%d bytes %08x", len(b), crc32.ChecksumIEEE(b))
}
