// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// An icmpKind is a kind of ICMP error, as a router or a host sends it.
type icmpKind struct {
	name       string
	kind, code uint8
	rest       uint32
}

var icmpKinds = map[string][]icmpKind{
	"IPv4": {{"port unreachable", 3, 3, 0}, {"fragmentation needed", 3, 4, 1400}, {"time exceeded", 11, 0, 0}, {"parameter problem", 12, 0, 0x14000000}},
	"IPv6": {{"port unreachable", 1, 4, 0}, {"packet too big", 2, 0, 1400}, {"time exceeded", 3, 0, 0}, {"parameter problem", 4, 0, 40}},
}

// quotes returns the ways in which an error may quote a packet of a flow: how
// the packet is made, and how many bytes of it are quoted (0: all).
func quotes(ip ipVersion, protocol uint8) map[string]struct {
	make func(packet) packet
	size int
} {
	type quote = struct {
		make func(packet) packet
		size int
	}
	same := func(p packet) packet { return p }
	head := 20
	if ip.name == "IPv6" {
		head = 40
	}
	q := map[string]quote{
		"whole":                       {same, 0},
		"8 bytes of layer 4":          {same, head + 8},
		"4 bytes of layer 4":          {same, head + 4},
		"bytes up to an odd one":      {func(p packet) packet { return p.withPayload("odd") }, 0},
		"a long packet cut":           {func(p packet) packet { return p.withSize(1400) }, 500},
		"a first fragment":            {func(p packet) packet { return p.withSize(1000).fragment(0, 504) }, 0},
		"without the checksum itself": {same, head + 16},
	}
	if protocol == unix.IPPROTO_UDP {
		q["UDP without a checksum"] = quote{func(p packet) packet { p.zero = true; return p }, 0}
	}
	if ip.name == "IPv4" {
		q["IPv4 options"] = quote{func(p packet) packet { p.options = []byte{1, 1, 1, 1, 1, 1, 1, 0}; return p }, 0}
	} else {
		q["extension headers"] = quote{func(p packet) packet { p.exts = []extension{hopByHop(), destOptions()}; return p }, 0}
		q["atomic fragment"] = quote{func(p packet) packet { p.piece = &piece{atomic: true}; return p }, 0}
	}
	return q
}

// withLostHops lowers the hop limit, as on the way to where the packet is quoted.
func withLostHops(p packet) packet { return p.withTTL(61) }

func TestICMPErrors(t *testing.T) {
	c := cases{}
	everyError := func(name string, run func(l *lb, ip ipVersion, protocol uint8, fail func(from, to string, about packet) packet)) {
		for _, ip := range ipVersions {
			for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				for quoteName, q := range quotes(ip, protocol) {
					k := icmpKinds[ip.name][len(quoteName)%4]
					c[fmt.Sprintf("%s %s %s: %s, %s", ip.name, protocolName(protocol), name, k.name, quoteName)] = func(l *lb) {
						run(l, ip, protocol, func(from, to string, about packet) packet {
							return icmpError(from, to, k.kind, k.code, k.rest, q.make(withLostHops(about)), q.size)
						})
					}
				}
				for _, k := range icmpKinds[ip.name] {
					c[fmt.Sprintf("%s %s %s: %s", ip.name, protocolName(protocol), name, k.name)] = func(l *lb) {
						run(l, ip, protocol, func(from, to string, about packet) packet {
							return icmpError(from, to, k.kind, k.code, k.rest, withLostHops(about), 0)
						})
					}
				}
			}
		}
	}
	addr := func(s string) string { return ap(s).Addr().String() }
	router := map[string]string{"IPv4": "10.77.0.1", "IPv6": "fd00:77::1"}

	everyError("of a local backend", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		// From the backend about a packet that it got: translated, it comes from the VIP.
		e := fail(addr(ip.local), addr(ip.client), in.to(ip.local))
		l.ingress(pods, e).untouched("not_ours")
		l.egressForwarded(pods, e).toStack(fail(ip.vip, addr(ip.client), in), "icmp_replied")
		// From a router, or this host, on the way to the backend: its address may mean nothing to the client.
		for _, from := range []string{ip.nodeOut, router[ip.name]} {
			e = fail(from, addr(ip.client), in.to(ip.local))
			l.egressHost(outside, e).toStack(fail(ip.vip, addr(ip.client), in), "icmp_replied")
		}
		// From the client about a reply, and from a router on the way to the client.
		re := answer(proto, ip.local, ip.client)
		l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
		e = fail(addr(ip.client), ip.vip, re.from(vip))
		l.ingress(outside, e).toStack(fail(addr(ip.client), addr(ip.local), re), "icmp_forwarded")
		e = fail(router[ip.name], ip.vip, re.from(vip))
		l.ingress(outside, e).toStack(fail(router[ip.name], addr(ip.local), re), "icmp_forwarded")
	})
	everyError("of a remote backend", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.client, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		e := fail(addr(ip.remote), ip.nodeIn, out)
		l.ingress(inside, e).redirected(fail(ip.vip, addr(ip.client), in).hop(), "icmp_replied")
		e = fail(router[ip.name], ip.nodeIn, out)
		l.ingress(inside, e).redirected(fail(ip.vip, addr(ip.client), in).hop(), "icmp_replied")
		l.egressHost("lo", e).untouched("not_ours")
		re := answer(proto, ip.remote, out.src.String())
		// The backend sees our address as the source of an error about a reply.
		e = fail(addr(ip.client), ip.vip, re.from(vip).to(ip.client))
		l.ingress(outside, e).redirected(fail(ip.nodeIn, addr(ip.remote), re).hop(), "icmp_forwarded")
		e = fail(router[ip.name], ip.vip, re.from(vip).to(ip.client))
		l.ingress(outside, e).redirected(fail(ip.nodeIn, addr(ip.remote), re).hop(), "icmp_forwarded")
	})
	everyError("of a client on this host", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.host, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote)
		l.egressHost(outside, in).redirected(out, "flow_new forwarded")
		e := fail(addr(ip.remote), ip.nodeIn, out)
		l.ingress(inside, e).redirected(fail(ip.vip, addr(ip.host), in), "icmp_replied")
		re := answer(proto, ip.remote, out.src.String())
		e = fail(addr(ip.host), ip.vip, re.from(vip).to(ip.host))
		l.egressHost(outside, e).redirected(fail(ip.nodeIn, addr(ip.remote), re), "icmp_forwarded")
	})
	everyError("of a flow that is reflected", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		pod := port(ap(ip.local).Addr().Next().String(), "5555")
		in := establishing(proto, pod, vip)
		out := in.snat(ip.vip, 0).to(ip.local)
		l.egressForwarded(pods, in).redirected(out.swapMACs(), "flow_new forwarded")
		// From the backend, or from this host on the way to the backend.
		l.egressForwarded(pods, fail(addr(ip.local), ip.vip, out)).redirected(fail(ip.vip, addr(pod), in).swapMACs(), "icmp_replied")
		l.egressHost(outside, fail(ip.nodePods, ip.vip, out)).redirected(fail(ip.vip, addr(pod), in).swapMACs(), "icmp_replied")
		// From the client, or from this host on the way to the client.
		re := answer(proto, ip.local, out.src.String())
		l.egressForwarded(pods, fail(addr(pod), ip.vip, re.from(vip).to(pod))).redirected(fail(ip.vip, addr(ip.local), re).swapMACs(), "icmp_forwarded")
	})
	everyError("about no flow", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, remote)
		about := tcp(port(ip.vip, "80"), ip.client)
		l.ingress(outside, fail(addr(ip.client), ip.vip, about)).dropped("drop_no_flow")
		l.ingress(outside, fail(addr(ip.client), ip.shared, about)).untouched("not_ours")
		l.ingress(outside, fail(addr(ip.client), ip.nodeOut, about)).untouched("not_ours")
	})
	everyError("of a flow whose backend is gone", func(l *lb, ip ipVersion, proto uint8, fail func(from, to string, about packet) packet) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.client, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		l.removeBackend(remote)
		l.ingress(inside, fail(addr(ip.remote), ip.nodeIn, out)).untouched("not_ours")
	})
	c["UDP checksum of the quote becomes zero"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_UDP, local)
		in := udp(ip.client, port(ip.vip, "80")).withPayload("\x00\x00")
		b := in.layer4()
		in = in.withPayload(string(b[6:8])) // now the client's own checksum is 0xffff
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		e := icmpError(addr(ip.local), addr(ip.client), 3, 3, 0, in.to(ip.local), 0)
		l.egressForwarded(pods, e).toStack(icmpError(ip.vip, addr(ip.client), 3, 3, 0, in, 0), "icmp_replied")
	}
	for _, ip := range ipVersions {
		c[ip.name+" broken quotes are about no flow"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			in := establishing(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
			about := in.to(ip.local)
			full := icmpError(addr(ip.local), addr(ip.client), 3, 3, 0, about, 0)
			if ip.name == "IPv6" {
				full = icmpError(addr(ip.local), addr(ip.client), 1, 4, 0, about, 0)
			}
			head := len(full.payload) - len(about.layer4())
			for n := range head + 4 {
				p := full
				p.payload = full.payload[:n]
				l.egressForwarded(pods, p).untouched("not_ours")
			}
			p := full
			p.piece = &piece{from: 0, to: 40} // a fragmented error
			l.egressForwarded(pods, p).untouched("not_ours")
			p = full
			p.payload = about.fragment(16, 0).ipBytes() // a later fragment: it has no ports
			l.egressForwarded(pods, p).untouched("not_ours")
		}
	}
	c["IPv4 redirects and source quenches go nowhere"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_TCP, local)
		in := establishing(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		for _, kind := range []uint8{4, 5} {
			l.egressForwarded(pods, icmpError(addr(ip.local), addr(ip.client), kind, 0, 0, in.to(ip.local), 0)).dropped("drop_unsupported")
			l.egressForwarded(pods, icmpError(addr(ip.local), addr(ip.client), kind, 0, 0, in.to(ip.remote), 0)).untouched("not_ours")
		}
	}
	c["IPv6 errors of a kind not known yet are translated"] = func(l *lb) {
		ip := ipVersions[1]
		l.serve(ip, unix.IPPROTO_TCP, local)
		in := establishing(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		for _, kind := range []uint8{5, 100, 127} {
			e := icmpError(addr(ip.local), addr(ip.client), kind, 0, 0, in.to(ip.local), 0)
			l.egressForwarded(pods, e).toStack(icmpError(ip.vip, addr(ip.client), kind, 0, 0, in, 0), "icmp_replied")
		}
	}
	c.run(t)
}

func (p packet) ipBytes() []byte { p.raw = true; return p.bytes() }
