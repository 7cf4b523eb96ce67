// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUntouched(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "of others", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		for _, p := range []packet{
			opening(proto, ip.client, ip.local), // directly to a backend
			opening(proto, ip.client, ip.remote),
			answer(proto, ip.local, ip.client), // and its reply
			opening(proto, ip.local, ip.client),
			answer(proto, port(ip.vip, "80"), ip.client), // from the VIP: translated by another node
		} {
			for _, h := range []hook{{dev: outside}, {dev: pods}, {dev: "lo"}, {dev: outside, egress: true}, {dev: outside, egress: true, from: pods}} {
				p.blankMAC = h.dev == "lo"
				l.send(h, p).untouched("not_ours")
			}
		}
	})
	forEachProtocol(c, "to another MAC address, at ingress", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		for _, mac := range [][]byte{{2, 0, 0, 0, 0, 9}, {255, 255, 255, 255, 255, 255}, {1, 0, 94, 0, 0, 1}} {
			frame := in.bytes()
			copy(frame, mac)
			l.sendFrame(hook{dev: outside}, in, frame).untouched("")
		}
	})
	for name, frame := range map[string][]byte{
		"ARP":      append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), append([]byte{8, 6}, make([]byte, 46)...)...),
		"STP":      append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), append([]byte{0, 39}, make([]byte, 46)...)...),
		"LLDP":     append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), append([]byte{0x88, 0xcc}, make([]byte, 46)...)...),
		"VLAN ARP": append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), append([]byte{0x81, 0, 0, 5, 8, 6}, make([]byte, 46)...)...),
		"tag only": append(append(append([]byte{}, deviceMAC[:]...), peerMAC[:]...), 0x81, 0, 0),
	} {
		c[name] = func(l *lb) {
			l.serve(ipVersions[0], unix.IPPROTO_TCP, local)
			for _, h := range []hook{{dev: outside}, {dev: outside, egress: true}} {
				l.sendFrame(h, packet{}, frame).untouched("not_ours")
			}
		}
	}
	c.run(t)
}

// samples returns valid packets of every kind to the VIP.
func samples(ip ipVersion) map[string]packet {
	s := map[string]packet{}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		name := protocolName(protocol)
		s[name] = establishing(protocol, ip.client, port(ip.vip, "80"))
		s[name+" with the other port"] = establishing(protocol, ip.client, port(ip.vip, "81"))
		tagged := s[name]
		tagged.vlan = 5
		s[name+" tagged"] = tagged
		fragment := s[name].withSize(600)
		fragment.df = false
		s[name+" first fragment"], s[name+" later fragment"] = fragment.fragment(0, 512), fragment.fragment(512, 0)
		s[name+" error"] = icmpError("192.0.2.1", ip.vip, 3, 3, 0, answer(protocol, port(ip.vip, "80"), ip.client), 0)
		if ip.name == "IPv4" {
			options := s[name]
			options.options = []byte{1, 1, 1, 0}
			s[name+" options"] = options
		} else {
			exts := s[name]
			exts.exts = []extension{hopByHop(), routing(), destOptions()}
			s[name+" extensions"] = exts
			s[name+" error"] = icmpError("2001:db8::1", ip.vip, 1, 4, 0, answer(protocol, port(ip.vip, "80"), ip.client), 0)
		}
	}
	s["ping"] = echo(ap(ip.client).Addr().String(), ip.vip)
	s["SCTP"] = withoutPorts(unix.IPPROTO_SCTP, ip.client, ip.vip)
	return s
}

// TestTruncated cuts packets of every kind at every length: a packet that is
// shorter than it claims is passed on.
func TestTruncated(t *testing.T) {
	for _, ip := range ipVersions {
		for name, p := range samples(ip) {
			t.Run(ip.name+" "+name, func(t *testing.T) {
				l := newLB(t)
				l.serve(ip, p.protocol, local)
				frame := p.bytes()
				shortest := 15 // the least that a test run takes
				if p.vlan == 0 {
					shortest = 14 + map[bool]int{false: 20, true: 40}[p.v6()]
				}
				for n := shortest; n < len(frame); n++ {
					r := l.sendFrame(hook{dev: outside, egress: true}, p, frame[:n])
					counter := "malformed"
					if n < r.linkLen()+1 || n < 20 {
						counter = "not_ours"
					}
					r.untouched(counter)
				}
			})
		}
	}
}

func TestMalformed(t *testing.T) {
	c := cases{}
	spoil := func(name string, ip ipVersion, p packet, change func(b []byte)) {
		c[ip.name+" "+name] = func(l *lb) {
			l.serve(ip, p.protocol, local)
			frame := p.bytes()
			change(frame[14:])
			l.sendFrame(hook{dev: outside}, p, frame).untouched("malformed")
		}
	}
	v4, v6 := ipVersions[0], ipVersions[1]
	p4, u4 := tcp(v4.client, port(v4.vip, "80")), udp(v4.client, port(v4.vip, "80"))
	p6, u6 := tcp(v6.client, port(v6.vip, "80")), udp(v6.client, port(v6.vip, "80"))
	for ihl := range byte(5) {
		spoil(fmt.Sprintf("IHL of %d", ihl), v4, p4, func(b []byte) { b[0] = 0x40 | ihl })
	}
	spoil("IHL beyond the packet", v4, u4, func(b []byte) { b[0] = 0x4f })
	spoil("length below the header", v4, p4, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 19) })
	spoil("length zero", v4, p4, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 0) })
	spoil("length beyond the packet", v4, p4, func(b []byte) { b[3]++ })
	spoil("length that cuts the TCP header", v4, p4, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 39) })
	spoil("length that cuts the UDP header", v4, u4, func(b []byte) { binary.BigEndian.PutUint16(b[2:], 27) })
	spoil("length beyond the packet", v6, p6, func(b []byte) { b[5]++ })
	spoil("length zero", v6, p6, func(b []byte) { b[4], b[5] = 0, 0 })
	spoil("length that cuts the TCP header", v6, p6, func(b []byte) { b[5] = 19 })
	spoil("length that cuts the UDP header", v6, u6, func(b []byte) { b[5] = 7 })
	for doff := range byte(5) {
		spoil(fmt.Sprintf("TCP header of %d words", doff), v4, p4, func(b []byte) { b[20+12] = doff << 4 })
		spoil(fmt.Sprintf("TCP header of %d words", doff), v6, p6, func(b []byte) { b[40+12] = doff << 4 })
	}
	spoil("TCP header beyond the packet", v4, p4, func(b []byte) { b[20+12] = 0xf0 })
	spoil("TCP header beyond the packet", v6, p6, func(b []byte) { b[40+12] = 0xf0 })
	ext := p6
	ext.exts = []extension{hopByHop()}
	spoil("extension header beyond the packet", v6, ext, func(b []byte) { b[41] = 200 })
	c["IPv6 payload of another version"] = func(l *lb) {
		l.serve(v6, unix.IPPROTO_TCP, local)
		frame := p6.bytes()
		frame[14] = 0x40
		l.sendFrame(hook{dev: outside}, p6, frame).untouched("not_ours")
	}
	c.run(t)
}

// terminal returns the number of packets that end here, translated that of
// packets that change.
func (c counts) terminal() (n uint64) {
	for name, v := range c {
		if strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_") || name == "fragment_held" {
			n += v
		}
	}
	return n
}

func (c counts) translated() uint64 {
	return c["forwarded"] + c["replied"] + c["icmp_forwarded"] + c["icmp_replied"] + c["ping_answered"] + c["fragmented"] + c.terminal()
}

// checkInvariants checks what holds for every packet.
func (r *result) checkInvariants() {
	r.l.Helper()
	switch r.verdict {
	case tcxNext:
		if r.counts.translated() == 0 && !bytes.Equal(r.out, r.frame) {
			r.l.Errorf("passed on with counters %v, but changed (-want +got):\n%s", r.counts, diff(r.frame, r.out, r.in.raw))
		}
		if r.counts.terminal() != 0 && r.counts["reject_backend_gone"] != 1 { // a RST to the client continues through the stack
			r.l.Errorf("passed on with counters %v, want none of an end", r.counts)
		}
	case tcxDrop:
		if r.counts.terminal() != 1 {
			r.l.Errorf("dropped with counters %v, want exactly one of an end", r.counts)
		}
	case redirect:
		if r.counts.translated() != 1 {
			r.l.Errorf("redirected with counters %v, want exactly one that explains it", r.counts)
		}
	default:
		r.l.Errorf("verdict %d, want one of next, drop, redirect", int32(r.verdict))
	}
	if r.counts["drop_error"] != 0 {
		r.l.Errorf("the kernel rejected a rewrite: counters %v, packet\n%s", r.counts, strings.Join(dump(r.frame, r.in.raw), "\n"))
	}
	if mac := r.hook.mac(); len(r.counts) == 0 && (r.hook.egress || bytes.Equal(r.frame[:6], mac[:])) {
		r.l.Error("no counter rose, want one at least")
	}
}

// TestMutated changes bytes of valid packets at random.
func TestMutated(t *testing.T) {
	for _, ip := range ipVersions {
		for name, p := range samples(ip) {
			t.Run(ip.name+" "+name, func(t *testing.T) {
				l := newLB(t)
				l.serve(ip, unix.IPPROTO_TCP, local)
				l.frontend(1, unix.IPPROTO_UDP, port(ip.vip, "80"), remote)
				l.frontend(2, unix.IPPROTO_UDP, port(ip.vip, "82"), narrow)
				random := rand.New(rand.NewPCG(1, 2))
				hooks := []hook{{dev: outside}, {dev: inside}, {dev: outside, egress: true}, {dev: outside, egress: true, from: pods}}
				for range 400 {
					frame := p.bytes()
					for range 1 + random.IntN(3) {
						frame[14+random.IntN(len(frame)-14)] = byte(random.Uint32())
					}
					r, err := l.runRaw(hooks[random.IntN(len(hooks))], frame[:len(frame)-random.IntN(2)*random.IntN(8)])
					l.must(err)
					r.checkInvariants()
				}
			})
		}
	}
}

// runRaw passes arbitrary bytes through the program. Its error is the kernel's,
// which does not accept all bytes as a packet.
func (l *lb) runRaw(h hook, frame []byte) (*result, error) {
	l.Helper()
	r := &result{l: l, hook: h, frame: frame}
	before := l.counters()
	var err error
	r.verdict, r.out, err = l.run(h, frame, 0)
	r.counts = l.counters().minus(before)
	return r, err
}

func (c counts) minus(before counts) counts {
	for name, n := range before {
		if c[name] -= n; c[name] == 0 {
			delete(c, name)
		}
	}
	return c
}
