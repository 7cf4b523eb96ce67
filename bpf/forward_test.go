// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestForward(t *testing.T) {
	c := cases{}
	everywhere(c, "to a local backend goes on through the stack, replies turn back at egress", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		re := answer(proto, w.local, w.client)
		l.ingress(pods, re).untouched("not_ours") // before conntrack has seen it
		l.forwarded(pods, re).next(re.from(vip), "replied")
		in = second(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "forwarded flow_established")
		l.ingress(outside, in).next(in.to(w.local), "forwarded")
		l.ingress(pods, re).untouched("not_ours")
		l.forwarded(pods, re).next(re.from(vip), "replied")
	})
	everywhere(c, "to a remote backend is redirected both ways", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.remote, out.src.String())
		l.forwarded(inside, re).untouched("not_ours") // no packet of the flow belongs there
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
		in = second(proto, w.client, vip)
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "forwarded flow_established")
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "forwarded")
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
	})
	everywhere(c, "from a socket of this host to a remote backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := opening(proto, w.host, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote) // a host does not count as a hop
		l.host(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(w.host), "replied")
		in = second(proto, w.host, vip)
		l.host(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote), "forwarded flow_established")
		l.ingress(inside, re).redirected(re.from(vip).to(w.host), "replied")
	})
	// What comes in again is what a stranger with the VIP's address would have sent.
	again := func(l *lb, leave func(packet) *result, w world, proto uint8, client, backend string) {
		l.serve(w, proto, local)
		l.backend(local, backend)
		vip := port(w.vip, "80")
		in := opening(proto, client, vip)
		out := in.snat(w.vip, 0).to(backend).back()
		leave(in).redirected(out, "flow_new forwarded")
		re := answer(proto, backend, out.src.String())
		l.ingress(pods, re).untouched("not_ours") // before conntrack has seen it
		l.forwarded(pods, re).redirected(re.from(vip).to(client).back(), "replied")
		in = second(proto, client, vip)
		leave(in).redirected(in.snat(w.vip, 0).to(backend).back(), "forwarded flow_established")
		leave(in).redirected(in.snat(w.vip, 0).to(backend).back(), "forwarded")
		l.forwarded(pods, re).redirected(re.from(vip).to(client).back(), "replied")
	}
	everywhere(c, "from a socket of this host to a local backend comes in again", func(l *lb, w world, proto uint8) {
		again(l, func(p packet) *result { return l.host(outside, p) }, w, proto, w.host, w.local)
	})
	everywhere(c, "from a socket of this host to another one comes in again", func(l *lb, w world, proto uint8) {
		again(l, func(p packet) *result { return l.host(outside, p) }, w, proto, w.host, port(w.nodeOut, "8080"))
	})
	everywhere(c, "from a pod to a local backend comes in again", func(l *lb, w world, proto uint8) {
		again(l, func(p packet) *result { return l.forwarded(pods, p) }, w, proto, port(ap(w.local).Addr().Next().String(), "5555"), w.local)
	})
	everywhere(c, "from a pod to itself comes in again", func(l *lb, w world, proto uint8) {
		again(l, func(p packet) *result { return l.forwarded(pods, p) }, w, proto, port(ap(w.local).Addr().String(), "5555"), w.local)
	})
	everywhere(c, "from a socket of this host by way of lo to another one", func(l *lb, w world, proto uint8) {
		server := port(w.nodeOut, "8080")
		l.serve(w, proto, other)
		l.backend(other, server)
		vip := port(w.vip, "80")
		in := opening(proto, w.host, vip)
		out := in.snat(w.nodeOut, 0).to(server)
		l.host("lo", in).redirected(out, "flow_new forwarded")
		out.blankMAC = true // as every frame on lo
		l.ingress("lo", out).untouched("not_ours")
		re := answer(proto, server, out.src.String())
		re.blankMAC = true
		l.host("lo", re).untouched("not_ours")
		l.ingress("lo", re).next(re.from(vip).to(w.host), "replied")
	})
	everywhere(c, "from a client to a socket of this host", func(l *lb, w world, proto uint8) {
		server := port(w.nodeOut, "8080")
		l.serve(w, proto, other)
		l.backend(other, server)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(server), "flow_new forwarded")
		re := answer(proto, server, w.client)
		l.host(outside, re).next(re.from(vip), "replied")
	})
	everywhere(c, "from a pod by way of egress to a remote backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip, pod := port(w.vip, "80"), w.local
		in := opening(proto, pod, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.forwarded(pods, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.remote, out.src.String())
		l.ingress(inside, re).next(re.from(vip).to(pod), "replied")
	})
	everywhere(c, "to a backend on the client's own device counts as remote", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip, pod := port(w.vip, "80"), port(w.nodePods, "555")
		pod = ap(pod).Addr().Next().String() // 10.2.0.2, a neighbour of the backend
		pod = port(pod, "555")
		in := opening(proto, pod, vip)
		out := in.snat(w.nodePods, 0).to(w.local).hop()
		l.ingress(pods, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.local, out.src.String())
		l.ingress(pods, re).redirected(re.from(vip).to(pod).hop(), "replied")
	})
	everywhere(c, "to the client itself", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip, pod := port(w.vip, "80"), port(ap(w.local).Addr().String(), "5555")
		in := opening(proto, pod, vip)
		out := in.snat(w.nodePods, 0).to(w.local).hop()
		// On a port of the bridge that the FIB names.
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.local, out.src.String())
		l.ingress(outside, re).redirected(re.from(vip).to(pod).hop(), "replied")
	})
	everywhere(c, "of an address shared with the host", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip := port(w.shared, "80")
		l.frontend(1, proto, vip, local)
		in := opening(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		re := answer(proto, w.local, w.client)
		l.forwarded(pods, re).next(re.from(vip), "replied")
	})
	// Replies go to one of our own addresses, which has frontends too.
	everywhere(c, "of the very address that sources are translated to", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		l.address(w.nodeIn, false)
		vip := port(w.nodeIn, "80")
		l.frontend(1, proto, vip, remote)
		in := opening(proto, w.client, vip)
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
		in = second(proto, w.client, vip)
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "forwarded flow_established")
		l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
	})
	everywhere(c, "with the listener's port the same as the target's", func(l *lb, w world, proto uint8) {
		l.serve(w, proto)
		vip := port(w.vip, "8080")
		l.frontend(1, proto, vip, local)
		in := opening(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
	})
	everywhere(c, "with the padding of a short Ethernet frame", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.client, port(w.vip, "80"))
		in.padding = 9
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "flow_new forwarded")
	})
	everywhere(c, "with a VLAN tag in the frame loses it when redirected", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		in.vlan = 100
		out := in.snat(w.nodeIn, 0).to(w.remote)
		out.vlan = 0
		l.host(outside, in).redirected(out, "flow_new forwarded")
	})
	everywhere(c, "reply with a VLAN tag in the frame keeps it", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		in := opening(proto, w.client, vip)
		l.ingress(outside, in).next(in.to(w.local), "flow_new forwarded")
		re := answer(proto, w.local, w.client)
		re.vlan = 100
		l.forwarded(pods, re).next(re.from(vip), "replied")
	})
	c.run(t)
}

func TestForwardOddHeaders(t *testing.T) {
	c := cases{}
	for name, options := range map[string][]byte{
		"IPv4 options, 4 bytes":  {1, 1, 1, 0},
		"IPv4 options, 40 bytes": append([]byte{7, 39, 4}, make([]byte, 37)...),
	} {
		c[name] = func(l *lb) {
			w := worlds[0]
			l.serve(w, unix.IPPROTO_TCP, remote)
			in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
			in.options = options
			out := in.snat(w.nodeIn, 0).to(w.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(unix.IPPROTO_TCP, w.remote, out.src.String())
			re.options = options
			l.ingress(inside, re).redirected(re.from(port(w.vip, "80")).to(w.client).hop(), "replied")
		}
	}
	for name, exts := range map[string][]extension{
		"IPv6 hop-by-hop options":  {hopByHop()},
		"IPv6 destination options": {destOptions()},
		"IPv6 routing header":      {routing()},
		"IPv6 all of them":         {hopByHop(), destOptions(), routing(), destOptions()},
		"IPv6 eight headers":       {hopByHop(), destOptions(), destOptions(), destOptions(), destOptions(), destOptions(), destOptions(), destOptions()},
	} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[name+" "+protocolName(protocol)] = func(l *lb) {
				w := worlds[1]
				l.serve(w, protocol, remote)
				in := opening(protocol, w.client, port(w.vip, "80"))
				in.exts = exts
				out := in.snat(w.nodeIn, 0).to(w.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(protocol, w.remote, out.src.String())
				re.exts = exts
				l.ingress(inside, re).redirected(re.from(port(w.vip, "80")).to(w.client).hop(), "replied")
			}
		}
	}
	c["IPv6 nine headers are too many"] = func(l *lb) {
		w := worlds[1]
		l.serve(w, unix.IPPROTO_TCP, remote)
		in := opening(unix.IPPROTO_TCP, w.client, port(w.vip, "80"))
		for range 9 {
			in.exts = append(in.exts, destOptions())
		}
		l.ingress(outside, in).dropped("drop_unsupported")
	}
	everywhere(c, "with traffic class and odd length", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := second(proto, w.client, port(w.vip, "80")).says("odd")
		in.tos = 0xb8
		l.ingress(outside, in).redirected(in.snat(w.nodeIn, 0).to(w.remote).hop(), "flow_new forwarded")
	})
	everywhere(c, "without a link header", func(l *lb, w world, proto uint8) {
		// What a test run takes for the Ethernet type has to be IP's.
		client := "8.0.1.7:40000"
		if w.name == "IPv6" {
			client = "[2001:db8:86dd::7]:40000"
		}
		l.serve(w, proto, remote, local)
		l.publish(0, remote)
		vip := port(w.vip, "80")
		in := opening(proto, client, vip)
		in.raw = true
		if w.name == "IPv4" {
			in.options = []byte{1, 1, 1, 0} // the first byte would be that of a multicast address otherwise
		}
		out := in.snat(w.nodeIn, 0).to(w.remote).hop()
		out.raw, out.blankMAC = false, true
		l.ingress(tunnel, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(client).hop(), "replied")
		l.publish(0, local)
		in.src = ap(client[:len(client)-1] + "1")
		l.ingress(tunnel, in).next(in.to(w.local), "flow_new forwarded")
	})
	c.run(t)
}

func TestUDPChecksum(t *testing.T) {
	c := cases{}
	for _, w := range worlds {
		for name, id := range map[string]uint32{"local": local, "remote": remote} {
			c[w.name+" none stays none, "+name+" backend"] = func(l *lb) {
				l.serve(w, unix.IPPROTO_UDP, id)
				vip := port(w.vip, "80")
				in := udp(w.client, vip)
				in.zero = true
				out := in.to(w.local)
				if id == remote {
					out = in.snat(w.nodeIn, 0).to(w.remote).hop()
					l.ingress(outside, in).redirected(out, "flow_new forwarded")
				} else {
					l.ingress(outside, in).next(out, "flow_new forwarded")
				}
				re := out.reversed().hops(64)
				if id == remote {
					l.ingress(inside, re).redirected(re.from(vip).to(w.client).hop(), "replied")
				} else {
					l.forwarded(pods, re).next(re.from(vip), "replied")
				}
			}
			c[w.name+" computed to zero becomes 0xffff, "+name+" backend"] = func(l *lb) {
				l.serve(w, unix.IPPROTO_UDP, id)
				in := udp(w.client, port(w.vip, "80"))
				translate := func(p packet) packet {
					if id == remote {
						return p.snat(w.nodeIn, 0).to(w.remote).hop()
					}
					return p.to(w.local)
				}
				// Two bytes of payload make the sum of the translated packet come out as zero.
				in = in.says("\x00\x00")
				b := translate(in).layer4()
				check := uint16(b[6])<<8 | uint16(b[7])
				in.payload = []byte{byte(check >> 8), byte(check)}
				out := translate(in)
				if b := out.layer4(); b[6] != 0xff || b[7] != 0xff {
					l.Fatalf("test packet has checksum %#x%x, want 0xffff", b[6], b[7])
				}
				r := l.ingress(outside, in)
				if id == remote {
					r.redirected(out, "flow_new forwarded")
				} else {
					r.next(out, "flow_new forwarded")
				}
			}
		}
	}
	c.run(t)
}
