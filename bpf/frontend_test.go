// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// ranges gives an address of a version of IP these ranges, of frontends that are there.
func (l *lb) ranges(addr string, protocol uint8, of ...BlixtPortRange) {
	l.Helper()
	a := addrOf(ap(port(addr, "1")).Addr())
	var v BlixtAddress
	l.must(l.Addresses.Lookup(a, &v))
	v.Flags |= uint32(BlixtAddressFlagADDRESS_RANGES)
	l.must(l.Addresses.Put(a, v))
	var r BlixtPortRanges
	copy(r.Of[:], of)
	l.must(l.PortRanges.Put(BlixtFrontendKey{Addr: a, Protocol: protocol}, r))
}

// mapped changes which port of a backend the frontend with this port leads to.
func (l *lb) mapped(addr string, protocol uint8, p uint16, flags BlixtFrontendFlag) {
	l.Helper()
	key := BlixtFrontendKey{Addr: addrOf(ap(port(addr, "1")).Addr()), Port: htons(p), Protocol: protocol}
	var f BlixtFrontend
	l.must(l.Frontends.Lookup(key, &f))
	f.Flags |= uint32(flags)
	f.FirstPort = p
	l.must(l.Frontends.Put(key, f))
}

const (
	keepPort  = BlixtFrontendFlagFRONTEND_KEEP_PORT
	shiftPort = BlixtFrontendFlagFRONTEND_SHIFT_PORT
)

// serveRange has the frontend of port 10000 serve 10000-20000, by one backend.
func (l *lb) serveRange(ip ipVersion, protocol uint8, flags BlixtFrontendFlag, id uint32) {
	l.Helper()
	l.serve(ip, protocol, local)
	l.frontend(1, protocol, port(ip.vip, "10000"), id)
	l.mapped(ip.vip, protocol, 10000, flags)
	l.ranges(ip.vip, protocol, BlixtPortRange{First: 10000, Last: 20000, Port: htons(10000)})
}

// at returns the same host with another port.
func at(addr string, p int) string { return addrPort(ap(addr).Addr(), p).String() }

// The golden case port-range.
func TestPortRange(t *testing.T) {
	c := cases{}
	for name, target := range map[string]struct {
		flags BlixtFrontendFlag
		to    func(p int) int
	}{
		"kept":    {keepPort, func(p int) int { return p }},
		"shifted": {shiftPort, func(p int) int { return p - 10000 + 8080 }},
	} {
		forEachProtocol(c, "ports are "+name+", towards a backend of this node", func(l *lb, ip ipVersion, proto uint8) {
			l.serveRange(ip, proto, target.flags, local)
			for _, p := range []int{10000, 10001, 15000, 20000} {
				f := localFlow{l, ip, proto, port(ip.vip, fmt.Sprint(p)), at(ip.local, target.to(p)), ip.client}
				f.open(true)
				f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "more"), "forwarded")
				f.fromBackend(continuing(proto, f.backend, f.client))
			}
		})
		forEachProtocol(c, "ports are "+name+", towards another node", func(l *lb, ip ipVersion, proto uint8) {
			l.serveRange(ip, proto, target.flags, remote)
			for i, p := range []int{10000, 13007, 20000} {
				vip, backend, client := port(ip.vip, fmt.Sprint(p)), at(ip.remote, target.to(p)), at(ip.client, 40000+i)
				in := opening(proto, client, vip)
				out := in.snat(ip.nodeIn, 0).to(backend).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(proto, backend, out.src.String())
				l.ingress(inside, re).redirected(re.from(vip).to(client).hop(), "replied")
				in = establishing(proto, client, vip)
				l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(backend).hop(), "forwarded"+andEstablished(proto))
			}
		})
	}
	forEachProtocol(c, "what the backend's port would be beyond, has no backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.backend(local, at(ip.local, 65535))
		l.frontend(1, proto, port(ip.vip, "10000"), local)
		l.mapped(ip.vip, proto, 10000, shiftPort)
		l.ranges(ip.vip, proto, BlixtPortRange{First: 1, Last: 20000, Port: htons(10000)})
		in := opening(proto, ip.client, port(ip.vip, "10001"))
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
		} else {
			l.ingress(outside, in).dropped("reject_no_backend")
		}
		f := localFlow{l, ip, proto, port(ip.vip, "9999"), at(ip.local, 65534), ip.client} // below the frontend's own
		f.open(true)
	})
	forEachProtocol(c, "a port's own frontend comes first, then a range, then all ports", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.frontend(1, proto, port(ip.vip, "10000"), remote)
		l.frontend(2, proto, port(ip.vip, "15000"), narrow)
		l.backend(other, at(ip.local, 9999))
		l.frontend(3, proto, port(ip.vip, "7"), other)
		l.mapped(ip.vip, proto, 10000, keepPort)
		l.ranges(ip.vip, proto, BlixtPortRange{First: 10000, Last: 20000, Port: htons(10000)}, BlixtPortRange{First: 1, Last: 65535, Port: htons(7)})
		for p, backend := range map[int]uint32{80: local, 9999: other, 10000: remote, 14999: remote, 15000: narrow, 15001: remote, 20000: remote, 20001: other, 65535: other, 1: other} {
			in := opening(proto, ip.client, port(ip.vip, fmt.Sprint(p)))
			if _, _, err := l.run(hook{dev: outside}, in.bytes(), 0); err != nil {
				l.Fatal(err)
			}
			if _, f := l.flow(in); f.Backend != backend {
				l.Errorf("port %d: backend %d, want %d", p, f.Backend, backend)
			}
		}
	})
	forEachProtocol(c, "of one protocol is none of the other, nor of another address", func(l *lb, ip ipVersion, proto uint8) {
		l.serveRange(ip, proto, keepPort, local)
		l.ranges(ip.shared, proto) // none
		others := uint8(unix.IPPROTO_TCP)
		if proto == others {
			others = unix.IPPROTO_UDP
		}
		in := opening(others, ip.client, port(ip.vip, "10001"))
		if others == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
		} else {
			l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
		}
		l.ingress(outside, opening(proto, ip.client, port(ip.shared, "10001"))).untouched("not_ours")
	})
	forEachProtocol(c, "beyond it nothing is served", func(l *lb, ip ipVersion, proto uint8) {
		l.serveRange(ip, proto, keepPort, local)
		for _, p := range []string{"9999", "20001"} {
			in := opening(proto, ip.client, port(ip.vip, p))
			if proto == unix.IPPROTO_TCP {
				l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
			} else {
				l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
			}
		}
	})
	forEachProtocol(c, "whose frontend is gone serves nothing", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.ranges(ip.vip, proto, BlixtPortRange{First: 10000, Last: 20000, Port: htons(10000)})
		in := opening(proto, ip.client, port(ip.vip, "10001"))
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
		} else {
			l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
		}
	})
	forEachProtocol(c, "that shrinks keeps its flows", func(l *lb, ip ipVersion, proto uint8) {
		l.serveRange(ip, proto, keepPort, local)
		f := localFlow{l, ip, proto, port(ip.vip, "15000"), at(ip.local, 15000), ip.client}
		f.open(true)
		l.mapped(ip.vip, proto, 10000, shiftPort) // and now it is 13080
		f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "as it began"), "forwarded")
		l.ranges(ip.vip, proto, BlixtPortRange{First: 10000, Last: 10010, Port: htons(10000)})
		f.fromClient(f.clientPacket(ack|psh, 1001+11, 5001, "still here"), "forwarded")
		f.fromBackend(continuing(proto, f.backend, f.client))
	})
	forEachProtocol(c, "a flow has the time-out of its frontend", func(l *lb, ip ipVersion, proto uint8) {
		l.serveRange(ip, proto, keepPort, local)
		f := localFlow{l, ip, proto, port(ip.vip, "15000"), at(ip.local, 15000), ip.client}
		f.open(true)
		if _, e := l.flow(f.forward()); e.IdleTicks != idleTicks || e.Frontend != 1 {
			l.Errorf("the flow has %d idle ticks and frontend %d, want %d and 1", e.IdleTicks, e.Frontend, idleTicks)
		}
	})
	forEachProtocol(c, "from a pod to a backend of the same node is reflected, also if all ports are served", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.frontend(1, proto, port(ip.vip, "10000"), local)
		l.mapped(ip.vip, proto, 10000, keepPort)
		l.ranges(ip.vip, proto, BlixtPortRange{First: 1, Last: 65535, Port: htons(10000)})
		vip, backend, client := port(ip.vip, "12345"), at(ip.local, 12345), at(ip.local, 5555)
		in := opening(proto, client, vip)
		out := in.snat(ip.vip, 0).to(backend).swapMACs()
		l.egressForwarded(pods, in).redirected(out, "flow_new forwarded")
		re := answer(proto, backend, out.src.String())
		l.ingress(pods, re).untouched("not_ours")
		l.egressForwarded(pods, re).redirected(re.from(vip).to(client).swapMACs(), "replied")
	})
	for _, ip := range ipVersions {
		c[ip.name+" UDP fragments"] = func(l *lb) {
			l.serveRange(ip, unix.IPPROTO_UDP, keepPort, local)
			f := localFlow{l, ip, unix.IPPROTO_UDP, port(ip.vip, "15000"), at(ip.local, 15000), ip.client}
			whole := f.forward().withSize(1000)
			f.fromClient(whole.fragment(0, 504), "flow_new forwarded")
			f.fromClient(whole.fragment(504, 0), "forwarded")
		}
		c[ip.name+" UDP flows of a backend that does not serve any more move"] = func(l *lb) {
			l.serveRange(ip, unix.IPPROTO_UDP, keepPort, local)
			f := localFlow{l, ip, unix.IPPROTO_UDP, port(ip.vip, "15000"), at(ip.local, 15000), ip.client}
			f.open(true)
			l.publish(1, remote)
			l.setServing(false)
			in := f.clientPacket(0, 0, 0, "who serves me?")
			l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(at(ip.remote, 15000)).hop(), "flow_new forwarded")
		}
	}
	c.run(t)
}

// On addresses that the host shares, ranges are as frontends there are.
func TestPortRangeOfTheHost(t *testing.T) {
	c := cases{}
	share := func(l *lb, ip ipVersion, proto uint8) {
		l.share(ip, proto, "10000", remote)
		l.mapped(ip.nodeOut, proto, 10000, keepPort)
		l.ranges(ip.nodeOut, proto, BlixtPortRange{First: 10000, Last: 10999, Port: htons(10000)})
	}
	forEachProtocol(c, "where the host listens, it wins", func(l *lb, ip ipVersion, proto uint8) {
		share(l, ip, proto)
		sock := l.socket(proto, port(ip.nodeOut, "10500"), socketOptions{})
		in := opening(proto, ip.client, port(ip.nodeOut, "10500"))
		l.ingress(outside, in).untouched("host_listens")
		l.wantHostListens(proto, port(ip.nodeOut, "10000")) // by the frontend's own port
		sock.close()
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(at(ip.remote, 10500)).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "what is masqueraded from one of its ports gets another", func(l *lb, ip ipVersion, proto uint8) {
		share(l, ip, proto)
		out := opening(proto, port(ip.nodeOut, "10500"), at(ip.client, 9))
		l.egressForwarded(pods, out).toStack(out.snat(ip.nodeOut, 0), "host_translated")
		out = opening(proto, port(ip.nodeOut, "11000"), at(ip.client, 9)) // behind it
		l.egressForwarded(pods, out).untouched("not_ours")
	})
	c.run(t)
}

// Clients of ranges are announced as others are.
func TestPortRangeIsAnnounced(t *testing.T) {
	c := nodeCases{}
	c.each("the pod sees its client", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		n.a.frontend(1, proto, port(ip.vip, "10000"), remote)
		n.a.mapped(ip.vip, proto, 10000, keepPort)
		n.a.ranges(ip.vip, proto, BlixtPortRange{First: 10000, Last: 20000, Port: htons(10000)})
		backend := at(ip.remote, 15000)
		in := opening(proto, ip.client, port(ip.vip, "15000"))
		out := in.snat(ip.nodeIn, 0).to(backend).hop()
		told := n.a.ingress(outside, in)
		told.announces(out, n.told(ip.client), "flow_new forwarded announced")
		// B undoes what A has sent.
		n.b.ingress(inside, opening(proto, out.src.String(), backend).within(about(ip.client), keyOfCluster)).
			toStack(opening(proto, ip.client, backend), "flow_undone undone")
		re := answer(proto, backend, ip.client)
		n.b.egressTo(inside, pods, re).redirected(re.to(out.src.String()), "undone")
		re = re.to(out.src.String())
		n.a.ingress(inside, re).redirected(re.from(in.dst.String()).to(ip.client).hop(), "replied")
	})
	c.run(t)
}
