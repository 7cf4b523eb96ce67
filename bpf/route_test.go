// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPathMTU(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		mtu, over := uint32(1000), 1200
		if ip.name == "IPv6" {
			mtu, over = 1280, 1400
		}
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			name := ip.name + " " + protocolName(protocol) + " "
			vip := port(ip.vip, "80")
			c[name+"too big for the way to the backend is answered with the MTU"] = func(l *lb) {
				l.serve(ip, protocol, narrow)
				in := opening(protocol, ip.client, vip)
				out := in.snat(ip.nodeIn, 0).to(ip.narrow).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				in = establishing(protocol, ip.client, vip).withSize(over)
				in.df = true
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
				if protocol == unix.IPPROTO_TCP {
					l.egressHost(outside, in).redirected(in.tooBig(mtu).keepMACs(), "reject_too_big")
				} else { // the host fragments its own datagrams
					l.egressHost(outside, in).wantVerdict(redirect, "fragmented")
				}
				// Exactly the MTU fits.
				in = in.withSize(int(mtu) - len(in.withSize(0).ipBytes()))
				l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.narrow).hop(), "forwarded")
				in = in.withSize(len(in.payload) + 1)
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
			c[name+"too big for the way to the client is answered to the backend"] = func(l *lb) {
				l.serve(ip, protocol, remote)
				in := opening(protocol, ip.narrowPeer, vip)
				out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(protocol, ip.remote, out.src.String()).withSize(over)
				re.df = true
				l.ingress(inside, re).redirected(re.tooBig(mtu), "reject_too_big")
			}
			c[name+"the first packet of a flow is too big"] = func(l *lb) {
				l.serve(ip, protocol, narrow)
				in := establishing(protocol, ip.client, vip).withSize(over)
				in.df = true
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
			c[name+"what the device will cut into segments fits"] = func(l *lb) {
				l.serve(ip, protocol, narrow)
				in := establishing(protocol, ip.client, vip).withSize(3000)
				in.df = true
				out := in.snat(ip.nodeIn, 0).to(ip.narrow).hop()
				l.send(hook{dev: outside, gsoSize: 800}, in).redirected(out, "flow_new forwarded")
				l.send(hook{dev: outside, gsoSize: 1300}, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
		}
	}
	c["IPv4 an error that is too big is not answered"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_UDP, remote)
		in := udp(ip.narrowPeer, port(ip.vip, "80")).withSize(1400)
		out := in.snat(ip.nodeIn, 0).to(ip.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		e := icmpError("10.1.0.10", ip.nodeIn, 3, 3, 0, out, 0)
		e.df = true
		l.ingress(inside, e).dropped("drop_too_big")
	}
	c.run(t)
}

func TestRoute(t *testing.T) {
	c := cases{}
	// The answers are those of Linux when it forwards. A blackhole is silent.
	for name, way := range map[string]struct {
		backend      string
		code4, code6 uint8
	}{
		"no route":         {"10.200.0.1:80", 0, 0},
		"no IPv6 route":    {"[fd00:200::1]:80", 0, 0},
		"unreachable":      {"10.4.2.1:80", 1, 0},
		"IPv6 unreachable": {"[fd00:4:2::1]:80", 1, 0},
		"prohibited":       {"10.4.3.1:80", 13, 1},
		"IPv6 prohibited":  {"[fd00:4:3::1]:80", 13, 1},
		"blackhole":        {"10.4.1.1:80", 0, 0},
		"IPv6 blackhole":   {"[fd00:4:1::1]:80", 0, 0},
	} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[name+" "+protocolName(protocol)] = func(l *lb) {
				ip := ipVersions[0]
				if ap(way.backend).Addr().Is6() {
					ip = ipVersions[1]
				}
				l.serve(ip, protocol, other)
				l.backend(other, way.backend)
				vip := port(ip.vip, "80")
				in, own := opening(protocol, ip.client, vip), opening(protocol, ip.host, vip)
				if strings.Contains(name, "blackhole") {
					l.ingress(outside, in).dropped("drop_no_route")
					l.egressHost(outside, own).dropped("drop_no_route")
					return
				}
				l.ingress(outside, in).redirected(in.unreachable(way.code4, way.code6), "reject_unreachable")
				l.egressHost(outside, own).redirected(own.unreachable(way.code4, way.code6).keepMACs(), "reject_unreachable")
				l.egressForwarded(pods, in).redirected(in.unreachable(way.code4, way.code6), "reject_unreachable")
			}
		}
	}
	forEachProtocol(c, "forwarding is off where the packet comes in", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.ingress(noForwarding, opening(proto, ip.client, port(ip.vip, "80"))).dropped("drop_forwarding_off")
	})
	forEachProtocol(c, "forwarding is off, but the stack decides about local backends", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		client := map[string]string{"IPv4": "10.9.0.7:40000", "IPv6": "[fd00:9::7]:40000"}[ip.name]
		in := opening(proto, client, port(ip.vip, "80"))
		l.ingress(noForwarding, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	forEachProtocol(c, "no ports to translate sources to", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: 2, SnatMax: 1}))
		l.ingress(outside, opening(proto, ip.client, port(ip.vip, "80"))).wantVerdict(redirect, "reject_ports_exhausted")
	})
	forEachProtocol(c, "reply from a backend to a client without a route", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		m, f := l.flow(re)
		f.Dst = addrOf(netip.MustParseAddr(map[string]string{"IPv4": "10.200.0.1", "IPv6": "fd00:200::1"}[ip.name])) // the route ends
		l.must(m.Put(keyOf(re), f))
		l.ingress(inside, re).redirected(re.unreachable(0, 0), "reject_unreachable")
	})
	forEachProtocol(c, "client without a route", func(l *lb, ip ipVersion, proto uint8) {
		client := map[string]string{"IPv4": "10.200.0.1:1", "IPv6": "[fd00:200::1]:1"}[ip.name]
		for _, id := range []uint32{local, remote} {
			l.serve(ip, proto, id)
			in := opening(proto, client, port(ip.vip, "80"))
			l.ingress(outside, in).dropped("drop_martian")
			l.wantTable(in, "none")
		}
	})
	c["the route's preferred source"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_TCP, other)
		l.backend(other, "10.5.0.10:80")
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		out := in.snat("192.0.2.1", 0).to("10.5.0.10:80").hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
	}
	c["an IPv4 route with an IPv6 router"] = func(l *lb) {
		ip := ipVersions[0]
		l.serve(ip, unix.IPPROTO_TCP, other)
		l.backend(other, "10.6.0.10:80")
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to("10.6.0.10:80").hop(), "flow_new forwarded")
	}
	c.run(t)
}

func TestHopLimit(t *testing.T) {
	c := cases{}
	// The address of the frontend, not the stack, answers: the stack may have a RST for it.
	forEachProtocol(c, "used up on the way to a remote backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip).withTTL(1)
		l.ingress(outside, in).redirected(in.timeExceeded(), "flow_new reject_hop_limit")
		in = in.withTTL(2)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded")
		in = in.withTTL(1)
		l.ingress(outside, in).redirected(in.timeExceeded(), "reject_hop_limit")
		in.tos = 0xb9 // low delay and more, and a bit of ECN
		l.ingress(outside, in).redirected(in.timeExceeded(), "reject_hop_limit")
	})
	forEachProtocol(c, "used up by fragments", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(800)
		in.df = false
		f := in.fragment(0, 400)
		l.ingress(outside, f).redirected(f.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
		f = f.withTTL(1)
		l.ingress(outside, f).redirected(f.timeExceeded(), "reject_hop_limit")
		f = in.fragment(400, 0).withTTL(1)
		if ip.name == "IPv4" { // RFC 1122, 3.2.2
			l.ingress(outside, f).dropped("drop_hop_limit")
		} else {
			l.ingress(outside, f).redirected(f.timeExceeded(), "reject_hop_limit")
		}
	})
	forEachProtocol(c, "used up by an ICMP error: not answered", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		k := icmpKinds[ip.name][0]
		e := icmpError(ap(ip.remote).Addr().String(), ip.nodeIn, k.kind, k.code, k.rest, out, 0)
		l.ingress(inside, e.withTTL(1)).dropped("drop_hop_limit")
	})
	forEachProtocol(c, "of a packet that leaves: the stack has seen to it", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.local, port(ip.vip, "80")).withTTL(1)
		l.egressForwarded(pods, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote), "flow_new forwarded")
	})
	forEachProtocol(c, "used up on the way to a local backend: the stack decides", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := opening(proto, ip.client, port(ip.vip, "80")).withTTL(1)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	forEachProtocol(c, "used up on the way back", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String()).withTTL(1)
		l.ingress(inside, re).redirected(re.timeExceeded(), "reject_hop_limit")
	})
	forEachProtocol(c, "a packet of this host may have a hop limit of 1", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.host, port(ip.vip, "80")).withTTL(1)
		l.egressHost(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote), "flow_new forwarded")
	})
	c.run(t)
}
