// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCollisions is about flows whose translated tuples would be equal.
func TestCollisions(t *testing.T) {
	c := cases{}
	everywhere(c, "two VIPs, one client socket, one local backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		one, two := port(w.vip, "80"), port(w.shared, "80")
		l.frontend(1, proto, two, local)
		a := conversation{l, w, proto, one, w.local, w.client}
		a.open(true)
		in := opening(proto, w.client, two)
		out := in.to(w.local)
		out.src = addrPort(out.src.Addr(), int(in.snat(w.nodeIn, 0).src.Port()))
		l.ingress(outside, in).next(out, "flow_new forwarded flow_port_changed")
		// Replies find the VIP that they belong to.
		re := answer(proto, w.local, out.src.String())
		l.forwarded(pods, re).next(re.from(two).to(w.client), "replied")
		a.here(answer(proto, w.local, w.client))
		in = second(proto, w.client, two)
		out = in.to(w.local).from(out.src.String())
		l.ingress(outside, in).next(out, "forwarded flow_established")
		a.there(second(proto, w.client, one), "forwarded")
		// And so do errors.
		e := icmpError(ap(w.local).Addr().String(), ap(w.client).Addr().String(), 3, 3, 0, out, 0)
		want := icmpError(w.shared, ap(w.client).Addr().String(), 3, 3, 0, in, 0)
		if w.name == "IPv6" {
			e = icmpError(ap(w.local).Addr().String(), ap(w.client).Addr().String(), 1, 4, 0, out, 0)
			want = icmpError(w.shared, ap(w.client).Addr().String(), 1, 4, 0, in, 0)
		}
		l.forwarded(pods, e).next(want, "icmp_replied")
	})
	everywhere(c, "two VIPs, one client socket, one remote backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		one, two := port(w.vip, "80"), port(w.shared, "80")
		l.frontend(1, proto, two, remote)
		for i, vip := range []string{one, two} {
			in := opening(proto, w.client, vip)
			l.ingress(outside, in).redirected(in.snat(w.nodeIn, i).to(w.remote).hop(), "flow_new forwarded")
		}
		for i, vip := range []string{one, two} {
			re := answer(proto, w.remote, withoutPorts(0, w.client, w.vip).snat(w.nodeIn, i).src.String())
			l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
		}
	})
	everywhere(c, "the port of a flow that is over is taken again", func(l *lb, w world, proto uint8) {
		for name, end := range map[string]func(conversation){
			"backend gone": func(c conversation) { c.gone(local) },
			"idle":         func(c conversation) { c.age(c.forward(), idleTicks+2); c.age(c.reverse(), idleTicks+2) },
		} {
			_ = name
			l.clear()
			l.config(0)
			l.serve(w, proto, local)
			two := port(w.shared, "80")
			l.backend(other, w.local) // the same endpoint, of another frontend
			l.frontend(1, proto, two, other)
			c := l.converse(w, proto, true)
			end(c)
			in := opening(proto, w.client, two)
			l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		}
	})
	for _, w := range worlds {
		c[w.name+" TCP and UDP of one tuple"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			l.frontend(1, unix.IPPROTO_UDP, port(w.vip, "80"), remote)
			a := l.converse(w, unix.IPPROTO_TCP, true)
			in := opening(unix.IPPROTO_UDP, w.client, a.vip)
			out := in.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(unix.IPPROTO_UDP, w.remote, out.src.String())
			l.ingress(inside, re).redirected(re.from(a.vip).to(w.client).hop(), "replied")
			a.there(second(unix.IPPROTO_TCP, w.client, a.vip), "forwarded")
			a.here(answer(unix.IPPROTO_TCP, w.local, w.client))
		}
	}
	everywhere(c, "no port left", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(w.vip, "80"), port(w.shared, "80"), port(w.shared, "81")}
		l.frontend(1, proto, vips[1], remote)
		l.frontend(2, proto, vips[2], remote)
		seen := map[uint16]bool{}
		for _, vip := range vips[:2] {
			r := l.ingress(outside, opening(proto, w.client, vip))
			if !r.stale {
				at := len(r.frame) - len(r.in.layer4())
				seen[binary.BigEndian.Uint16(r.out[at:])] = true
			}
			r.check(redirect, "flow_new forwarded")
		}
		if !l.complete && (len(seen) != 2 || !seen[snatMin] || !seen[snatMin+1]) {
			l.Errorf("source ports %v, want %d and %d", seen, snatMin, snatMin+1)
		}
		// Neither is established yet: a flood would keep all ports.
		l.ingress(outside, opening(proto, w.client, vips[2])).check(redirect, "flow_new forwarded")
	})
	everywhere(c, "no port left by established flows", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(w.vip, "80"), port(w.shared, "80"), port(w.shared, "81")}
		l.frontend(1, proto, vips[1], remote)
		l.frontend(2, proto, vips[2], remote)
		for _, vip := range vips[:2] {
			l.ingress(outside, opening(proto, w.client, vip)).check(redirect, "flow_new forwarded")
		}
		for i := range 2 {
			l.ingress(inside, answer(proto, w.remote, port(w.nodeIn, fmt.Sprint(snatMin+i)))).check(redirect, "replied")
		}
		for _, vip := range vips[:2] {
			l.ingress(outside, second(proto, w.client, vip)).check(redirect, "forwarded flow_established")
		}
		third := opening(proto, w.client, vips[2])
		l.ingress(outside, third).dropped("drop_ports_exhausted")
		if proto == unix.IPPROTO_TCP { // one that is over makes room
			l.ingress(outside, second(proto, w.client, vips[0]).segment(rst, 1001, 0, "")).check(redirect, "forwarded")
			l.ingress(outside, third).check(redirect, "flow_new forwarded")
			l.ingress(outside, second(proto, w.client, vips[1])).check(redirect, "forwarded")
		}
	})
	c.run(t)
}

// TestPick holds the ring's arithmetic to its description in blixt.h, which
// every node has to agree on.
func TestPick(t *testing.T) {
	l := newLB(t)
	w := worlds[0]
	l.serve(w, unix.IPPROTO_UDP)
	const size = 7
	ids := make([]uint32, size)
	for i := range ids {
		ids[i] = uint32(10 + i)
		l.backend(ids[i], fmt.Sprintf("10.2.0.%d:53", 10+i))
	}
	for _, first := range []int{0, 1} { // even and odd slots
		l.publish(0, make([]uint32, 1-first+2)...)
		l.publish(0, ids...)
		for i := range 200 {
			p := udp(w.client, port(w.vip, "80"))
			p.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(first), byte(i)}), uint16(1+i*311))
			slot := uint64(clientHash(p.src)) * size >> 32
			l.ingress(outside, p).next(p.to(fmt.Sprintf("10.2.0.%d:53", 10+slot)), "flow_new forwarded")
			var n uint64
			l.must(l.BackendFlows.Lookup(ids[slot], &n))
			if n == 0 {
				t.Errorf("backend_flows of %d is 0, want more", ids[slot])
			}
		}
	}
}
