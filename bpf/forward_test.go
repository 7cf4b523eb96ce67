// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestForward(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "to a local backend continues through the stack, replies are translated at egress", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		re := answer(proto, ip.local, ip.client)
		l.ingress(pods, re).untouched("not_ours") // before conntrack has seen it
		l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
		in = establishing(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "forwarded"+andEstablished(proto))
		l.ingress(outside, in).toStack(in.to(ip.local), "forwarded")
		l.ingress(pods, re).untouched("not_ours")
		l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
	})
	forEachProtocol(c, "to a remote backend is redirected both ways", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		l.egressForwarded(inside, re).untouched("not_ours") // no packet of the flow is seen there
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		in = establishing(proto, ip.client, vip)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded"+andEstablished(proto))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded")
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
	})
	forEachProtocol(c, "from a socket of this host to a remote backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.host, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote) // the host that sends is no hop
		l.egressHost(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(ip.host), "replied")
		in = establishing(proto, ip.host, vip)
		l.egressHost(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote), "forwarded"+andEstablished(proto))
		l.ingress(inside, re).redirected(re.from(vip).to(ip.host), "replied")
	})
	// A reflected packet looks as if a stranger with the VIP's address had sent it.
	fromPod := func(l *lb) func(packet) *result {
		return func(p packet) *result {
			l.ingress(pods, p).untouched("not_ours") // before conntrack has seen it
			return l.egressForwarded(pods, p)
		}
	}
	reflected := func(l *lb, leave, reply func(packet) *result, ip ipVersion, proto uint8, client, backend string) {
		l.serve(ip, proto, local)
		l.backend(local, backend)
		vip := port(ip.vip, "80")
		in := opening(proto, client, vip)
		out := in.snat(ip.vip, 0).to(backend).swapMACs()
		leave(in).redirected(out, "flow_new forwarded")
		re := answer(proto, backend, out.src.String())
		reply(re).redirected(re.from(vip).to(client).swapMACs(), "replied")
		in = establishing(proto, client, vip)
		leave(in).redirected(in.snat(ip.vip, 0).to(backend).swapMACs(), "forwarded"+andEstablished(proto))
		leave(in).redirected(in.snat(ip.vip, 0).to(backend).swapMACs(), "forwarded")
		reply(re).redirected(re.from(vip).to(client).swapMACs(), "replied")
	}
	forEachProtocol(c, "from a socket of this host to a local backend is reflected", func(l *lb, ip ipVersion, proto uint8) {
		reflected(l, func(p packet) *result { return l.egressHost(outside, p) }, fromPod(l), ip, proto, ip.host, ip.local)
	})
	forEachProtocol(c, "from a socket of this host to another one is reflected", func(l *lb, ip ipVersion, proto uint8) {
		host := func(p packet) *result { return l.egressHost(outside, p) }
		reflected(l, host, host, ip, proto, ip.host, port(ip.nodeOut, "8080"))
	})
	forEachProtocol(c, "from a pod to a local backend is reflected", func(l *lb, ip ipVersion, proto uint8) {
		reflected(l, func(p packet) *result { return l.egressForwarded(pods, p) }, fromPod(l), ip, proto, port(ap(ip.local).Addr().Next().String(), "5555"), ip.local)
	})
	forEachProtocol(c, "from a pod to itself is reflected", func(l *lb, ip ipVersion, proto uint8) {
		reflected(l, func(p packet) *result { return l.egressForwarded(pods, p) }, fromPod(l), ip, proto, port(ap(ip.local).Addr().String(), "5555"), ip.local)
	})
	forEachProtocol(c, "from a socket of this host through lo to another one", func(l *lb, ip ipVersion, proto uint8) {
		server := port(ip.nodeOut, "8080")
		l.serve(ip, proto, other)
		l.backend(other, server)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.host, vip)
		out := in.snat(ip.nodeOut, 0).to(server)
		l.egressHost("lo", in).redirected(out, "flow_new forwarded")
		out.blankMAC = true // as every frame on lo
		l.ingress("lo", out).untouched("not_ours")
		re := answer(proto, server, out.src.String())
		re.blankMAC = true
		l.egressHost("lo", re).untouched("not_ours")
		l.ingress("lo", re).toStack(re.from(vip).to(ip.host), "replied")
	})
	forEachProtocol(c, "from a client to a socket of this host", func(l *lb, ip ipVersion, proto uint8) {
		server := port(ip.nodeOut, "8080")
		l.serve(ip, proto, other)
		l.backend(other, server)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(server), "flow_new forwarded")
		re := answer(proto, server, ip.client)
		l.egressHost(outside, re).toStack(re.from(vip), "replied")
	})
	forEachProtocol(c, "from a pod to a remote backend, seen at egress", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip, pod := port(ip.vip, "80"), ip.local
		in := opening(proto, pod, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote) // the stack has counted the hop
		l.egressForwarded(pods, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(pod), "replied") // to come in by the device that leads to the frontend
	})
	forEachProtocol(c, "to a backend on the client's own device counts as remote", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip, pod := port(ip.vip, "80"), port(ip.nodePods, "555")
		pod = ap(pod).Addr().Next().String() // 10.2.0.2, a neighbour of the backend
		pod = port(pod, "555")
		in := opening(proto, pod, vip)
		out := in.snat(ip.nodePods, 0).to(ip.local).hop()
		l.ingress(pods, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.local, out.src.String())
		l.ingress(pods, re).redirected(re.from(vip).to(pod).hop(), "replied")
	})
	forEachProtocol(c, "to the client itself", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip, pod := port(ip.vip, "80"), port(ap(ip.local).Addr().String(), "5555")
		in := opening(proto, pod, vip)
		out := in.snat(ip.nodePods, 0).to(ip.local).hop()
		// Seen on a port of the bridge; the FIB names the bridge.
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.local, out.src.String())
		l.ingress(outside, re).redirected(re.from(vip).to(pod).hop(), "replied")
	})
	forEachProtocol(c, "of an address shared with the host", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip := port(ip.shared, "80")
		l.frontend(1, proto, vip, local)
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		re := answer(proto, ip.local, ip.client)
		l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
	})
	// Replies go to an address of this node that has frontends, too.
	forEachProtocol(c, "of the address that sources are translated to", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		l.address(ip.nodeIn, false)
		vip := port(ip.nodeIn, "80")
		l.frontend(1, proto, vip, remote)
		in := opening(proto, ip.client, vip)
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		in = establishing(proto, ip.client, vip)
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded"+andEstablished(proto))
		l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
	})
	forEachProtocol(c, "with the listener's port the same as the target's", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto)
		vip := port(ip.vip, "8080")
		l.frontend(1, proto, vip, local)
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	forEachProtocol(c, "with the padding of a short Ethernet frame", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		in.padding = 9
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "with a VLAN tag in the frame loses it when redirected", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		in.vlan = 100
		out := in.snat(ip.nodeIn, 0).to(ip.remote)
		out.vlan = 0
		l.egressHost(outside, in).redirected(out, "flow_new forwarded")
	})
	forEachProtocol(c, "reply with a VLAN tag in the frame keeps it", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		in := opening(proto, ip.client, vip)
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		re := answer(proto, ip.local, ip.client)
		re.vlan = 100
		l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
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
			ip := ipVersions[0]
			l.serve(ip, unix.IPPROTO_TCP, remote)
			in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
			in.options = options
			out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			re := answer(unix.IPPROTO_TCP, ip.remote, out.src.String())
			re.options = options
			l.ingress(inside, re).redirected(re.from(port(ip.vip, "80")).to(ip.client).hop(), "replied")
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
				ip := ipVersions[1]
				l.serve(ip, protocol, remote)
				in := opening(protocol, ip.client, port(ip.vip, "80"))
				in.exts = exts
				out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(protocol, ip.remote, out.src.String())
				re.exts = exts
				l.ingress(inside, re).redirected(re.from(port(ip.vip, "80")).to(ip.client).hop(), "replied")
			}
		}
	}
	c["IPv6 nine headers are too many"] = func(l *lb) {
		ip := ipVersions[1]
		l.serve(ip, unix.IPPROTO_TCP, remote)
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		for range 9 {
			in.exts = append(in.exts, destOptions())
		}
		l.ingress(outside, in).dropped("drop_unsupported")
	}
	forEachProtocol(c, "with traffic class and odd length", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withPayload("odd")
		in.tos = 0xb8
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "without a link header", func(l *lb, ip ipVersion, proto uint8) {
		// A test run takes two bytes of this address for the EtherType: they have to be IP's.
		client := "8.0.1.7:40000"
		if ip.name == "IPv6" {
			client = "[2001:db8:86dd::7]:40000"
		}
		l.serve(ip, proto, remote, local)
		l.publish(0, remote)
		vip := port(ip.vip, "80")
		in := opening(proto, client, vip)
		in.raw = true
		if ip.name == "IPv4" {
			in.options = []byte{1, 1, 1, 0} // without options the first byte would be that of a multicast address
		}
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		out.raw, out.blankMAC = false, true
		l.ingress(tunnel, in).redirected(out, "flow_new forwarded")
		re := answer(proto, ip.remote, out.src.String())
		l.ingress(inside, re).redirected(re.from(vip).to(client).hop(), "replied")
		l.publish(0, local)
		in.src = ap(client[:len(client)-1] + "1")
		l.ingress(tunnel, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	c.run(t)
}

func TestUDPChecksum(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		for name, id := range map[string]uint32{"local": local, "remote": remote} {
			c[ip.name+" none stays none, "+name+" backend"] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_UDP, id)
				vip := port(ip.vip, "80")
				in := udp(ip.client, vip)
				in.zero = true
				out := in.to(ip.local)
				if id == remote {
					out = in.snat(ip.nodeIn, 0).to(ip.remote).hop()
					l.ingress(outside, in).redirected(out, "flow_new forwarded")
				} else {
					l.ingress(outside, in).toStack(out, "flow_new forwarded")
				}
				re := out.reversed().withTTL(64)
				if id == remote {
					l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
				} else {
					l.egressForwarded(pods, re).toStack(re.from(vip), "replied")
				}
			}
			c[ip.name+" computed to zero becomes 0xffff, "+name+" backend"] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_UDP, id)
				in := udp(ip.client, port(ip.vip, "80"))
				translate := func(p packet) packet {
					if id == remote {
						return p.snat(ip.nodeIn, 0).to(ip.remote).hop()
					}
					return p.to(ip.local)
				}
				// These two bytes of payload make the checksum of the translated packet zero.
				in = in.withPayload("\x00\x00")
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
					r.toStack(out, "flow_new forwarded")
				}
			}
		}
	}
	c.run(t)
}
