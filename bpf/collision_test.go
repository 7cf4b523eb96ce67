// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCollisions is about flows whose translated tuples would be the same.
func TestCollisions(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "two VIPs, one client socket, one local backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		one, two := port(ip.vip, "80"), port(ip.shared, "80")
		l.backend(other, ip.local) // the same endpoint, of another frontend
		l.frontend(1, proto, two, other)
		a := localFlow{l, ip, proto, one, ip.local, ip.client}
		a.open(true)
		in := opening(proto, ip.client, two)
		out := in.to(ip.local)
		out.src = addrPort(out.src.Addr(), int(in.snat(ip.nodeIn, 0).src.Port()))
		l.ingress(outside, in).toStack(out, "flow_new forwarded flow_port_changed")
		// Replies come from the VIP that they belong to.
		re := answer(proto, ip.local, out.src.String())
		l.egressForwarded(pods, re).toStack(re.from(two).to(ip.client), "replied")
		a.fromBackend(answer(proto, ip.local, ip.client))
		in = establishing(proto, ip.client, two)
		out = in.to(ip.local).from(out.src.String())
		l.ingress(outside, in).toStack(out, "forwarded"+andEstablished(proto))
		a.fromClient(establishing(proto, ip.client, one), "forwarded")
		// So do ICMP errors.
		e := icmpError(ap(ip.local).Addr().String(), ap(ip.client).Addr().String(), 3, 3, 0, out, 0)
		want := icmpError(ip.shared, ap(ip.client).Addr().String(), 3, 3, 0, in, 0)
		if ip.name == "IPv6" {
			e = icmpError(ap(ip.local).Addr().String(), ap(ip.client).Addr().String(), 1, 4, 0, out, 0)
			want = icmpError(ip.shared, ap(ip.client).Addr().String(), 1, 4, 0, in, 0)
		}
		l.egressForwarded(pods, e).toStack(want, "icmp_replied")
	})
	forEachProtocol(c, "two VIPs, one client socket, one remote backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		one, two := port(ip.vip, "80"), port(ip.shared, "80")
		l.backend(other, ip.remote)
		l.frontend(1, proto, two, other)
		for i, vip := range []string{one, two} {
			in := opening(proto, ip.client, vip)
			l.ingress(outside, in).redirected(in.snat(ip.nodeIn, i).to(ip.remote).hop(), "flow_new forwarded")
		}
		for i, vip := range []string{one, two} {
			re := answer(proto, ip.remote, withoutPorts(0, ip.client, ip.vip).snat(ip.nodeIn, i).src.String())
			l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		}
	})
	forEachProtocol(c, "the port of a flow that has ended is used again", func(l *lb, ip ipVersion, proto uint8) {
		for name, end := range map[string]func(localFlow){
			"backend gone": func(c localFlow) { c.removeBackend(local) },
			"idle":         func(c localFlow) { c.age(c.forward(), idleTicks+2); c.age(c.reply(), idleTicks+2) },
		} {
			_ = name
			l.clear()
			l.config(0)
			l.serve(ip, proto, local)
			two := port(ip.shared, "80")
			l.backend(other, ip.local) // the same endpoint, of another frontend
			l.frontend(1, proto, two, other)
			c := l.openFlow(ip, proto, true)
			end(c)
			in := opening(proto, ip.client, two)
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		}
	})
	for _, ip := range ipVersions {
		c[ip.name+" TCP and UDP of one tuple"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.frontend(1, unix.IPPROTO_UDP, port(ip.vip, "80"), remote)
			a := l.openFlow(ip, unix.IPPROTO_TCP, true)
			in := opening(unix.IPPROTO_UDP, ip.client, a.vip)
			out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(unix.IPPROTO_UDP, ip.remote, out.src.String())
			l.ingress(inside, re).redirected(re.from(a.vip).to(ip.client).hop(), "replied")
			a.fromClient(establishing(unix.IPPROTO_TCP, ip.client, a.vip), "forwarded")
			a.fromBackend(answer(unix.IPPROTO_TCP, ip.local, ip.client))
		}
	}
	forEachProtocol(c, "no port left", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(ip.vip, "80"), port(ip.shared, "80"), port(ip.shared, "81")}
		for i, vip := range vips[1:] {
			id := uint32(other + i) // the same endpoint, of another frontend
			l.backend(id, ip.remote)
			l.frontend(uint32(1+i), proto, vip, id)
		}
		seen := map[uint16]bool{}
		for _, vip := range vips[:2] {
			r := l.ingress(outside, opening(proto, ip.client, vip))
			if !r.stale {
				at := len(r.frame) - len(r.in.layer4())
				seen[binary.BigEndian.Uint16(r.out[at:])] = true
			}
			r.wantVerdict(redirect, "flow_new forwarded")
		}
		if !l.complete && (len(seen) != 2 || !seen[snatMin] || !seen[snatMin+1]) {
			l.Errorf("source ports %v, want %d and %d", seen, snatMin, snatMin+1)
		}
		// Neither flow is established: otherwise forged packets could take all ports.
		l.ingress(outside, opening(proto, ip.client, vips[2])).wantVerdict(redirect, "flow_new forwarded")
	})
	forEachProtocol(c, "no port left by established flows", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin + 1}))
		vips := []string{port(ip.vip, "80"), port(ip.shared, "80"), port(ip.shared, "81")}
		for i, vip := range vips[1:] {
			id := uint32(other + i) // the same endpoint, of another frontend
			l.backend(id, ip.remote)
			l.frontend(uint32(1+i), proto, vip, id)
		}
		for _, vip := range vips[:2] {
			l.ingress(outside, opening(proto, ip.client, vip)).wantVerdict(redirect, "flow_new forwarded")
		}
		for i := range 2 {
			l.ingress(inside, answer(proto, ip.remote, port(ip.nodeIn, fmt.Sprint(snatMin+i)))).wantVerdict(redirect, "replied")
		}
		for _, vip := range vips[:2] {
			l.ingress(outside, establishing(proto, ip.client, vip)).wantVerdict(redirect, "forwarded"+andEstablished(proto))
		}
		third := opening(proto, ip.client, vips[2])
		r := l.ingress(outside, third)
		r.wantVerdict(redirect, "reject_ports_exhausted")
		if proto == unix.IPPROTO_TCP {
			r.wantPacket(third.rstAnswer(rst|ack, 0, 1001))
		}
		if proto == unix.IPPROTO_TCP { // a closed connection makes room
			l.ingress(outside, establishing(proto, ip.client, vips[0]).segment(rst, 1001, 0, "")).wantVerdict(redirect, "forwarded flow_closed")
			l.ingress(outside, third).wantVerdict(redirect, "flow_new forwarded")
			l.ingress(outside, establishing(proto, ip.client, vips[1])).wantVerdict(redirect, "forwarded")
		}
	})
	c.run(t)
}

// TestSelectBackend checks the arithmetic of rings against ring.h and blixt.h:
// every node has to select the same slot.
func TestSelectBackend(t *testing.T) {
	l := newLB(t)
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_UDP)
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
			p := udp(ip.client, port(ip.vip, "80"))
			p.src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(first), byte(i)}), uint16(1+i*311))
			slot := uint64(clientHash(p.src)) * size >> 32
			l.ingress(outside, p).toStack(p.to(fmt.Sprintf("10.2.0.%d:53", 10+slot)), "flow_new forwarded")
			var n uint64
			l.must(l.BackendFlows.Lookup(ids[slot], &n))
			if n == 0 {
				t.Errorf("backend_flows of %d is 0, want more", ids[slot])
			}
		}
	}
}
