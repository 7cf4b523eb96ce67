// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// TestUndoneHeaders is about what may be around a message that comes in.
func TestUndoneHeaders(t *testing.T) {
	c := nodeCases{}
	for name, change := range map[string]func(p packet) packet{
		"options of IP or extension headers": func(p packet) packet {
			if p.v6() {
				p.exts = []extension{hopByHop(), destOptions()}
			} else {
				p.options = []byte{1, 1, 1, 0}
			}
			return p
		},
		"a VLAN tag":                   func(p packet) packet { p.vlan = 100; return p },
		"a traffic class":              func(p packet) packet { p.tos = 0xb8; return p },
		"the padding of a short frame": func(p packet) packet { p.padding = 5; return p },
		"a last hop":                   func(p packet) packet { return p.withTTL(1) },
	} {
		c.each("a message with "+name, func(n *nodes, ip ipVersion, proto uint8) {
			f := n.flowFromA(ip, proto, ip.client)
			in := change(f.opening())
			out := f.delivered(in)
			out.padding = 0
			f.fromA(in.within(f.message(), keyOfCluster)).toStack(out, "flow_undone undone")
			in = change(f.establishing())
			f.fromA(in).toStack(f.delivered(in), "undone")
			re := change(answer(proto, ip.remote, f.client))
			r := n.b.egressTo(inside, pods, re)
			re.vlan = 0 // redirected
			r.redirected(re.to(f.source), "undone")
		})
	}
	c.each("a whole datagram with a fragment header", func(n *nodes, ip ipVersion, proto uint8) {
		if ip.name == "IPv4" {
			return
		}
		f := n.flowFromA(ip, proto, ip.client)
		in := f.opening()
		in.piece = &piece{atomic: true}
		f.fromA(in.within(f.message(), keyOfCluster)).toStack(f.delivered(in), "flow_undone undone")
	})
	// A signed message in a place that is none is a part of the packet.
	c.each("in a segment that is no SYN", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		for _, flags := range []uint8{ack, syn | ack, syn | rst, syn | fin, fin, psh | ack, rst} {
			in := f.opening()
			in.flags = syn
			p := in.within(f.message(), keyOfCluster)
			p.flags = flags
			r := f.fromA(p)
			f.wantUndone(false)
			if r.counts["flow_undone"] != 0 {
				n.Errorf("flags %#x: counters %v, want no flow", flags, r.counts)
			}
		}
	}, unix.IPPROTO_TCP)
	c.each("in a fragment", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		p := f.opening().within(f.message(), keyOfCluster)
		p.df = false
		for _, piece := range []packet{p.fragment(0, 16), p.fragment(16, 0)} {
			if r := f.fromA(piece); r.counts["flow_undone"] != 0 {
				n.Errorf("counters %v, want no flow", r.counts)
			}
			f.wantUndone(false)
		}
	}, unix.IPPROTO_UDP)
	// A client may send what looks like a message. It is data.
	c.each("of the client's own making, behind a SYN that was announced ahead", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		m := f.message()
		m.Flags = announce.Opens
		f.fromA(f.opening().alone(m, keyOfCluster)).dropped("flow_undone")
		in := f.opening().within(f.message(), foreignKey)
		f.fromA(in).toStack(in.from(f.client), "undone announce_refused")
	}, unix.IPPROTO_TCP)
	c.each("of the client's own making, behind a datagram of a known flow", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		for range 3 {
			in := f.later().within(f.message(), foreignKey)
			f.fromA(in).toStack(in.from(f.client), "undone announce_refused")
		}
	}, unix.IPPROTO_UDP)
	c.each("with a wrong checksum of the surplus area", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		frame := f.opening().within(f.message(), keyOfCluster).bytes()
		for bit := range 16 {
			frame[len(frame)-announce.Len-2+bit/8] ^= 1 << (bit % 8)
			f.wantForged("a bit of the checksum changed", frame)
			frame[len(frame)-announce.Len-2+bit/8] ^= 1 << (bit % 8)
		}
	})
	c.each("to a frontend of B's own: the peer is a client like any other", func(n *nodes, ip ipVersion, proto uint8) {
		n.b.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		f := n.flowFromA(ip, proto, ip.client)
		in := opening(proto, f.source, vip)
		n.b.ingress(inside, in).toStack(in.to(ip.local), "flow_new forwarded")
		n.b.egressTo(inside, pods, answer(proto, ip.local, f.source)).toStack(answer(proto, vip, f.source), "replied")
		in = establishing(proto, f.source, vip)
		n.b.ingress(inside, in).toStack(in.to(ip.local), "forwarded"+andEstablished(proto))
	})
	c.each("seen where packets leave", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		p := f.opening().within(f.message(), keyOfCluster)
		n.b.egressTo(pods, inside, p)
		n.b.egressHost(inside, p)
		f.wantUndone(false)
	})
	c.each("for another host", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client)
		frame := f.opening().within(f.message(), keyOfCluster).bytes()
		frame[5] = 9
		f.wantForged("another MAC address", frame)
	})
	c.run(t)
}

// TestKeysTurn is about a key that takes the place of another one.
func TestKeysTurn(t *testing.T) {
	c := nodeCases{}
	c.each("", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		send := func(i int, undone bool) {
			n.Helper()
			in := opening(proto, nthClient(ip, i), port(ip.vip, "80"))
			r := n.a.ingress(outside, in)
			f := n.flowFromA(ip, proto, nthClient(ip, i))
			f.source = r.message().Src.String()
			got := f.hear(toNode(r.out))
			f.wantUndone(undone)
			if !undone && (got.verdict != tcxNext || got.counts["announce_refused"] != 1) {
				n.Errorf("a message of a key that B does not have: %s, counters %v, want that the packet passes, and announce_refused", verdictNames[got.verdict], got.counts)
			}
		}
		send(0, true)
		n.a.key(1, nextKey)
		n.a.announcing(bootOfA, 1, BlixtAnnouncingFlagANNOUNCING_TELL) // too early
		send(1, false)
		n.b.key(1, nextKey)
		send(2, true)
		n.a.announcing(bootOfA, 0, BlixtAnnouncingFlagANNOUNCING_TELL)
		send(3, true)
		n.b.key(0, announce.Key{}) // dropped
		send(4, false)
		n.a.announcing(bootOfA, 1, BlixtAnnouncingFlagANNOUNCING_TELL)
		send(5, true)
	})
	c.run(t)
}
