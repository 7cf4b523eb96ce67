// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// An icmpKind is an ICMP error as a router or a host sends it.
type icmpKind struct {
	name       string
	kind, code uint8
	rest       uint32
}

var icmpKinds = map[string][]icmpKind{
	"IPv4": {{"port unreachable", 3, 3, 0}, {"fragmentation needed", 3, 4, 1400}, {"time exceeded", 11, 0, 0}, {"parameter problem", 12, 0, 0x14000000}},
	"IPv6": {{"port unreachable", 1, 4, 0}, {"packet too big", 2, 0, 1400}, {"time exceeded", 3, 0, 0}, {"parameter problem", 4, 0, 40}},
}

// quotes are the ways in which a packet of a flow is quoted: how the packet is
// made, and how many bytes of it are in the error (0: all).
func quotes(w world, protocol uint8) map[string]struct {
	make func(packet) packet
	size int
} {
	type quote = struct {
		make func(packet) packet
		size int
	}
	same := func(p packet) packet { return p }
	head := 20
	if w.name == "IPv6" {
		head = 40
	}
	q := map[string]quote{
		"whole":                       {same, 0},
		"8 bytes of layer 4":          {same, head + 8},
		"4 bytes of layer 4":          {same, head + 4},
		"bytes up to an odd one":      {func(p packet) packet { return p.says("odd") }, 0},
		"a long packet cut":           {func(p packet) packet { return p.sized(1400) }, 500},
		"a first fragment":            {func(p packet) packet { return p.sized(1000).cut(0, 504) }, 0},
		"without the checksum itself": {same, head + 16},
	}
	if protocol == unix.IPPROTO_UDP {
		q["UDP without a checksum"] = quote{func(p packet) packet { p.zero = true; return p }, 0}
	}
	if w.name == "IPv4" {
		q["IPv4 options"] = quote{func(p packet) packet { p.options = []byte{1, 1, 1, 1, 1, 1, 1, 0}; return p }, 0}
	} else {
		q["extension headers"] = quote{func(p packet) packet { p.exts = []extension{hopByHop(), destOptions()}; return p }, 0}
		q["atomic fragment"] = quote{func(p packet) packet { p.piece = &piece{atomic: true}; return p }, 0}
	}
	return q
}

// A quoted packet has lost hops on its way; its sender's TTL does not matter.
func lost(p packet) packet { return p.hops(61) }

func TestICMPErrors(t *testing.T) {
	c := cases{}
	everyError := func(name string, run func(l *lb, w world, protocol uint8, fail func(from, to string, about packet) packet)) {
		for _, w := range worlds {
			for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				for quoteName, q := range quotes(w, protocol) {
					k := icmpKinds[w.name][len(quoteName)%4]
					c[fmt.Sprintf("%s %s %s: %s, %s", w.name, protocolName(protocol), name, k.name, quoteName)] = func(l *lb) {
						run(l, w, protocol, func(from, to string, about packet) packet {
							return icmpError(from, to, k.kind, k.code, k.rest, q.make(lost(about)), q.size)
						})
					}
				}
				for _, k := range icmpKinds[w.name] {
					c[fmt.Sprintf("%s %s %s: %s", w.name, protocolName(protocol), name, k.name)] = func(l *lb) {
						run(l, w, protocol, func(from, to string, about packet) packet {
							return icmpError(from, to, k.kind, k.code, k.rest, lost(about), 0)
						})
					}
				}
			}
		}
	}
	addr := func(s string) string { return ap(s).Addr().String() }
	router := map[string]string{"IPv4": "10.77.0.1", "IPv6": "fd00:77::1"}

	everyError("of a local backend", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		in := second(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		// From the backend about what it got: it comes from the VIP then.
		e := fail(addr(w.local), addr(w.client), in.to(w.local))
		l.ingress(pods, e).untouched("not_ours")
		l.forwarded(pods, e).next(fail(w.vip, addr(w.client), in), "icmp_replied")
		// From a router, or this host, on the way to it: that stays who it is.
		e = fail(w.nodeOut, addr(w.client), in.to(w.local))
		l.host(outside, e).next(fail(w.nodeOut, addr(w.client), in), "icmp_replied")
		// From the client about a reply, and from a router on its way.
		re := answer(proto, w.local, w.client)
		l.forwarded(pods, re).next(re.from(vip), "replied")
		e = fail(addr(w.client), w.vip, re.from(vip))
		l.ingress(outside, e).next(fail(addr(w.client), addr(w.local), re), "icmp_forwarded")
		e = fail(router[w.name], w.vip, re.from(vip))
		l.ingress(outside, e).next(fail(router[w.name], addr(w.local), re), "icmp_forwarded")
	})
	everyError("of a remote backend", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := second(proto, w.client, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		e := fail(addr(w.remote), w.nodeIn, out)
		l.ingress(inside, e).redirected(fail(w.vip, addr(w.client), in).hop(), "icmp_replied")
		e = fail(router[w.name], w.nodeIn, out)
		l.ingress(inside, e).redirected(fail(router[w.name], addr(w.client), in).hop(), "icmp_replied")
		l.host("lo", e).untouched("not_ours")
		re := answer(proto, w.remote, out.src.String())
		// Whoever reports about a reply is behind our address for the backend.
		e = fail(addr(w.client), w.vip, re.from(vip).to(w.client))
		l.ingress(outside, e).redirected(fail(w.nodeIn, addr(w.remote), re).hop(), "icmp_forwarded")
		e = fail(router[w.name], w.vip, re.from(vip).to(w.client))
		l.ingress(outside, e).redirected(fail(w.nodeIn, addr(w.remote), re).hop(), "icmp_forwarded")
	})
	everyError("of a client on this host", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := second(proto, w.host, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote)
		l.host(outside, in).redirected(out, "flow_new forwarded")
		e := fail(addr(w.remote), w.nodeIn, out)
		l.ingress(inside, e).redirected(fail(w.vip, addr(w.host), in), "icmp_replied")
		re := answer(proto, w.remote, out.src.String())
		e = fail(addr(w.host), w.vip, re.from(vip).to(w.host))
		l.host(outside, e).redirected(fail(w.nodeIn, addr(w.remote), re), "icmp_forwarded")
	})
	everyError("of a flow that comes in again", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		pod := port(ap(w.local).Addr().Next().String(), "5555")
		in := second(proto, pod, vip)
		out := in.snat(w.vip, 0).to(w.local)
		l.forwarded(pods, in).redirected(out.back(), "flow_new forwarded")
		// From the backend, or from this host on the way to it.
		l.forwarded(pods, fail(addr(w.local), w.vip, out)).redirected(fail(w.vip, addr(pod), in).back(), "icmp_replied")
		l.host(outside, fail(w.nodePods, w.vip, out)).redirected(fail(w.nodePods, addr(pod), in).back(), "icmp_replied")
		// From the client, or from this host on the way to it.
		re := answer(proto, w.local, out.src.String())
		l.forwarded(pods, fail(addr(pod), w.vip, re.from(vip).to(pod))).redirected(fail(w.vip, addr(w.local), re).back(), "icmp_forwarded")
	})
	everyError("about no flow", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, remote)
		about := tcp(port(w.vip, "80"), w.client)
		l.ingress(outside, fail(addr(w.client), w.vip, about)).dropped("drop_no_flow")
		l.ingress(outside, fail(addr(w.client), w.shared, about)).untouched("not_ours")
		l.ingress(outside, fail(addr(w.client), w.nodeOut, about)).untouched("not_ours")
	})
	everyError("of a flow whose backend is gone", func(l *lb, w world, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := second(proto, w.client, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		l.gone(remote)
		l.ingress(inside, fail(addr(w.remote), w.nodeIn, out)).untouched("not_ours")
	})
	c["UDP checksum of the quote comes out as zero"] = func(l *lb) {
		w := worlds[0]
		l.serve(w, unix.IPPROTO_UDP, local)
		in := udp(w.client, port(w.vip, "80")).says("\x00\x00")
		b := in.layer4()
		in = in.says(string(b[6:8])) // now the client's own checksum is 0xffff
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		e := icmpError(addr(w.local), addr(w.client), 3, 3, 0, in.to(w.local), 0)
		l.forwarded(pods, e).next(icmpError(w.vip, addr(w.client), 3, 3, 0, in, 0), "icmp_replied")
	}
	for _, w := range worlds {
		c[w.name+" broken quotes are about no flow"] = func(l *lb) {
			l.serve(w, unix.IPPROTO_TCP, local)
			in := second(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
			l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
			about := in.to(w.local)
			full := icmpError(addr(w.local), addr(w.client), 3, 3, 0, about, 0)
			if w.name == "IPv6" {
				full = icmpError(addr(w.local), addr(w.client), 1, 4, 0, about, 0)
			}
			head := len(full.payload) - len(about.layer4())
			for n := range head + 4 {
				p := full
				p.payload = full.payload[:n]
				l.forwarded(pods, p).untouched("not_ours")
			}
			p := full
			p.piece = &piece{from: 0, to: 40} // an error in fragments
			l.forwarded(pods, p).untouched("not_ours")
			p = full
			p.payload = about.cut(16, 0).quoted() // a later fragment: it has no ports
			l.forwarded(pods, p).untouched("not_ours")
		}
	}
	c.run(t)
}

func (p packet) quoted() []byte { p.raw = true; return p.bytes() }
