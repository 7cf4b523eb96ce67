// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestPathMTU(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		mtu, over := uint32(1000), 1200
		if w.name == "IPv6" {
			mtu, over = 1280, 1400
		}
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			name := w.name + " " + protocolName(protocol) + " "
			vip := port(w.vip, "80")
			c[name+"too big for the way to the backend is answered with the MTU"] = func(l *lb) {
				l.serve(w, protocol, narrow)
				in := opening(protocol, w.client, vip)
				out := in.snat(w.nodeIn, 0).to(w.narrow).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				in = second(protocol, w.client, vip).sized(over)
				in.df = true
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
				l.host(outside, in).redirected(in.tooBig(mtu).forth(), "reject_too_big")
				// Exactly the MTU fits.
				in = in.sized(int(mtu) - len(in.sized(0).quoted()))
				l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.narrow).hop(), "forwarded")
				in = in.sized(len(in.payload) + 1)
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
			c[name+"too big for the way to the client is answered to the backend"] = func(l *lb) {
				l.serve(w, protocol, remote)
				in := opening(protocol, w.narrowPeer, vip)
				out := in.snat(w.nodeIn, 0).to(w.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(protocol, w.remote, out.src.String()).sized(over)
				re.df = true
				l.ingress(inside, re).redirected(re.tooBig(mtu), "reject_too_big")
			}
			c[name+"the first packet of a flow is too big"] = func(l *lb) {
				l.serve(w, protocol, narrow)
				in := second(protocol, w.client, vip).sized(over)
				in.df = true
				l.ingress(outside, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
			c[name+"what the device will cut into segments fits"] = func(l *lb) {
				l.serve(w, protocol, narrow)
				in := second(protocol, w.client, vip).sized(3000)
				in.df = true
				out := in.snat(w.nodeIn, 0).to(w.narrow).hop()
				l.send(hook{dev: outside, gsoSize: 800}, in).redirected(out, "flow_new forwarded")
				l.send(hook{dev: outside, gsoSize: 1300}, in).redirected(in.tooBig(mtu), "reject_too_big")
			}
		}
	}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		c["IPv4 "+protocolName(protocol)+" that may be fragmented is dropped"] = func(l *lb) {
			w := worlds[0]
			l.serve(w, protocol, narrow)
			in := second(protocol, w.client, port(w.vip, "80")).sized(1200)
			in.df = false
			l.ingress(outside, in).dropped("drop_too_big")
		}
	}
	c["IPv4 an error that is too big is not answered"] = func(l *lb) {
		w := worlds[0]
		l.serve(w, unix.IPPROTO_UDP, remote)
		in := udp(w.narrowPeer, port(w.vip, "80")).sized(1400)
		out := in.snat(w.nodeIn, 0).to(w.remote)
		l.ingress(outside, in).redirected(out.hop(), "flow_new forwarded")
		e := icmpError("10.1.0.10", w.nodeIn, 3, 3, 0, out, 0)
		e.df = true
		l.ingress(inside, e).dropped("drop_too_big")
	}
	c.run(t)
}

func TestRoute(t *testing.T) {
	c := cases{}
	for name, way := range map[string]string{
		"no route": "10.200.0.1:80", "blackhole": "10.4.1.1:80", "unreachable": "10.4.2.1:80", "prohibited": "10.4.3.1:80",
		"no IPv6 route": "[fd00:200::1]:80",
	} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[name+" "+protocolName(protocol)] = func(l *lb) {
				w := worlds[0]
				if ap(way).Addr().Is6() {
					w = worlds[1]
				}
				l.serve(w, protocol, other)
				l.backend(other, way)
				l.ingress(outside, opening(protocol, w.client, port(w.vip, "80"))).dropped("drop_no_route")
				l.host(outside, opening(protocol, w.host, port(w.vip, "80"))).dropped("drop_no_route")
			}
		}
	}
	everywhere(c, "forwarding is off where the packet comes in", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.ingress(still, opening(proto, w.client, port(w.vip, "80"))).dropped("drop_forwarding_off")
	})
	everywhere(c, "forwarding is off, but the stack decides about local backends", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		in := opening(proto, w.client, port(w.vip, "80"))
		l.ingress(still, in).next(in.to(w.local), "flow_new forwarded")
	})
	everywhere(c, "no ports to translate sources to", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.must(l.BlixtLayout1.Put(uint32(0), BlixtConfig{SnatMin: 2, SnatMax: 1}))
		l.ingress(outside, opening(proto, w.client, port(w.vip, "80"))).dropped("drop_ports_exhausted")
	})
	everywhere(c, "reply from a backend to a client without a route", func(l *lb, w world, proto uint8) {
		client := map[string]string{"IPv4": "100.64.0.1:1", "IPv6": "[fd00:200::1]:1"}[w.name]
		l.serve(w, proto, remote)
		in := opening(proto, client, port(w.vip, "80"))
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		l.ingress(inside, answer(proto, w.remote, out.src.String())).dropped("drop_no_route")
	})
	c["the route's preferred source"] = func(l *lb) {
		w := worlds[0]
		l.serve(w, unix.IPPROTO_TCP, other)
		l.backend(other, "10.5.0.10:80")
		in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
		out := in.snat("192.0.2.1", 0).to("10.5.0.10:80").hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
	}
	c["an IPv4 route by way of an IPv6 router"] = func(l *lb) {
		w := worlds[0]
		l.serve(w, unix.IPPROTO_TCP, other)
		l.backend(other, "10.6.0.10:80")
		in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to("10.6.0.10:80").hop(), "flow_new forwarded")
	}
	c.run(t)
}

func TestHopLimit(t *testing.T) {
	c := cases{}
	everywhere(c, "used up on the way to a remote backend: the stack answers", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		for _, n := range []uint8{1} {
			l.ingress(outside, opening(proto, w.client, vip).hops(n)).untouched("flow_new hop_limit_passed")
		}
		in := opening(proto, w.client, vip).hops(2)
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "forwarded")
		l.ingress(outside, in.hops(1)).untouched("hop_limit_passed")
	})
	everywhere(c, "used up on the way to a local backend is the stack's business", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		in := opening(proto, w.client, port(w.vip, "80")).hops(1)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
	})
	everywhere(c, "used up on the way back", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.client, port(w.vip, "80"))
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		l.ingress(inside, answer(proto, w.remote, out.src.String()).hops(1)).dropped("drop_hop_limit")
	})
	everywhere(c, "of a packet made here may be one", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.host, port(w.vip, "80")).hops(1)
		l.host(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote), "flow_new forwarded")
	})
	c.run(t)
}
