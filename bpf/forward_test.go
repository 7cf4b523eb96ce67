// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of the tests. A world is one IP version's set of them.
type world struct {
	name               string
	client, host       string // a client's socket, and one of this host
	vip                string // exclusive
	shared             string // shared with the host
	local, remote      string // backends
	nodeIn, nodeOut    string // this node's addresses towards remote backends and towards clients
	nodePods           string // and towards local backends
	narrow, narrowPeer string // a backend and a client behind a path with a small MTU
}

var worlds = []world{
	{
		name: "IPv4", client: "198.51.100.7:40000", host: "192.0.2.1:41000", vip: "203.0.113.1", shared: "203.0.113.2",
		local: "10.2.0.10:8080", remote: "10.1.0.10:8080", nodeIn: "10.1.0.1", nodeOut: "192.0.2.1", nodePods: "10.2.0.1",
		narrow: "10.3.0.10:8080", narrowPeer: "198.18.0.7:40000",
	},
	{
		name: "IPv6", client: "[2001:db8:c::7]:40000", host: "[2001:db8::1]:41000", vip: "2001:db8:f::1", shared: "2001:db8:f::2",
		local: "[fd00:2::10]:8080", remote: "[fd00:1::10]:8080", nodeIn: "fd00:1::1", nodeOut: "2001:db8::1", nodePods: "fd00:2::1",
		narrow: "[fd00:3::10]:8080", narrowPeer: "[2001:db8:d::7]:40000",
	},
}

// port joins an address and a port.
func port(addr, port string) string {
	for _, c := range addr {
		if c == ':' {
			return "[" + addr + "]:" + port
		}
	}
	return addr + ":" + port
}

// Backend ids.
const (
	local  = 1
	remote = 2
	narrow = 3
	other  = 4
)

// serve makes frontend 0, port 80 of the VIP of the world, with a ring of ids.
func (l *lb) serve(w world, protocol uint8, ids ...uint32) {
	l.Helper()
	l.address(w.vip, true)
	l.address(w.shared, false)
	l.backend(local, w.local)
	l.backend(remote, w.remote)
	l.backend(narrow, w.narrow)
	l.frontend(0, protocol, port(w.vip, "80"), ids...)
}

func protocolName(p uint8) string {
	if p == unix.IPPROTO_TCP {
		return "TCP"
	}
	return "UDP"
}

// everywhere makes a case of each IP version and protocol.
func everywhere(c cases, name string, run func(l *lb, w world, protocol uint8)) {
	for _, w := range worlds {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[w.name+" "+protocolName(protocol)+" "+name] = func(l *lb) { run(l, w, protocol) }
		}
	}
}

// opening is the first packet of a flow.
func opening(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to)
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(syn, 1000, 0, "")
		p.tcpOption = []byte{2, 4, 5, 180}
	}
	return p
}

// answer is the first packet of a backend.
func answer(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to).says("four o'clock")
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(syn|ack, 5000, 1001, "")
		p.tcpOption = []byte{2, 4, 5, 180}
	}
	return p
}

// second is the client's packet that establishes the flow.
func second(protocol uint8, from, to string) packet {
	p := proto(protocol, from, to)
	if protocol == unix.IPPROTO_TCP {
		p = p.segment(ack, 1001, 5001, "")
	}
	return p
}

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
	everywhere(c, "from a socket of this host to a local backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, local)
		vip := port(w.vip, "80")
		in := opening(proto, w.host, vip)
		out := in.snat(w.nodePods, 0).to(w.local)
		l.host(outside, in).redirected(out, "flow_new forwarded")
		re := answer(proto, w.local, out.src.String())
		l.ingress(pods, re).redirected(re.from(vip).to(w.host), "replied")
	})
	everywhere(c, "from a socket of this host to another one", func(l *lb, w world, proto uint8) {
		server := port(w.nodeOut, "8080")
		l.serve(w, proto, other)
		l.backend(other, server)
		vip := port(w.vip, "80")
		in := opening(proto, w.host, vip)
		out := in.snat(w.nodeOut, 0).to(server)
		l.host(outside, in).redirected(out, "flow_new forwarded")
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
