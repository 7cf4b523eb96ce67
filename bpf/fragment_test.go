// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestFragments(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "fragments follow the first one, local backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.client, vip).withSize(1500)
		in.df, in.id = false, 0x1234
		id := l.fragmentID()
		for i, f := range []packet{in.fragment(0, 512), in.fragment(512, 1024), in.fragment(1024, 0)} {
			l.ingress(outside, f).toStack(f.to(ip.local).withID(id), []string{"flow_new forwarded", "forwarded", "forwarded"}[i])
		}
		re := answer(proto, ip.local, ip.client).withSize(1500)
		re.df, re.id = false, 0x4321
		for _, f := range []packet{re.fragment(0, 512), re.fragment(512, 1024), re.fragment(1024, 0)} {
			l.ingress(pods, f).untouched("not_ours")
		}
		id = l.fragmentID()
		for _, f := range []packet{re.fragment(0, 512), re.fragment(512, 1024), re.fragment(1024, 0)} {
			l.egressForwarded(pods, f).toStack(f.from(vip).withID(id), "replied")
		}
		in.id = 0x1235 // the client's second datagram establishes the flow
		f := in.fragment(0, 512)
		l.ingress(outside, f).toStack(f.to(ip.local), "forwarded"+map[bool]string{true: " flow_established", false: ""}[establishesWith(proto, in)])
	})
	forEachProtocol(c, "fragments follow the first one, remote backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		in := establishing(proto, ip.client, vip).withSize(1500)
		in.df, in.id = false, 0x12345678&0xffff
		id := l.fragmentID()
		for i, f := range []packet{in.fragment(0, 512), in.fragment(512, 1024), in.fragment(1024, 0)} {
			out := f.snat(ip.nodeIn, 0).to(ip.remote).hop().withID(id)
			l.ingress(outside, f).redirected(out, []string{"flow_new forwarded", "forwarded", "forwarded"}[i])
		}
		re := answer(proto, ip.remote, in.snat(ip.nodeIn, 0).src.String()).withSize(1500)
		re.df, re.id = false, 0x4321
		id = l.fragmentID()
		for _, f := range []packet{re.fragment(0, 512), re.fragment(512, 1024), re.fragment(1024, 0)} {
			l.ingress(inside, f).redirected(f.from(vip).to(ip.client).hop().withID(id), "replied")
		}
	})
	forEachProtocol(c, "later fragment without its first", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		l.ingress(outside, in.fragment(512, 0)).dropped("fragment_held")
		l.egressForwarded(pods, in.fragment(512, 0)).dropped("drop_fragment")
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		in.id++
		l.ingress(outside, in.fragment(512, 0)).untouched("drained") // the program that takes over keeps it
		l.config(0)
		in = in.to(port(ip.shared, "80"))
		l.ingress(outside, in.fragment(512, 0)).dropped("fragment_held")
		in = in.to(ip.remote)
		l.ingress(outside, in.fragment(512, 0)).untouched("not_ours")
		l.interested(keyOf(in).Dst, BlixtInterestFlagINTEREST_HOST) // as if a flow's source were translated to it
		in.id++
		l.must(l.BackendAddresses.Put(addrOf(in.src.Addr()), uint32(0)))
		l.ingress(outside, in.fragment(512, 0)).dropped("fragment_held")
		in.id++
		in = in.withSize(1600) // more than an Ethernet frame holds
		l.ingress(outside, in.fragment(8, 0)).untouched("not_ours")
	})
	forEachProtocol(c, "later fragment whose first was not ours", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := establishing(proto, ip.client, port(ip.vip, "81")).withSize(1500)
		in.df = false
		l.ingress(outside, in.to(port(ip.shared, "81")).fragment(0, 512)).untouched("not_ours")
		l.ingress(outside, in.to(port(ip.shared, "81")).fragment(512, 0)).untouched("not_ours")
		l.ingress(outside, in.fragment(0, 512)) // rejected
		l.ingress(outside, in.fragment(512, 0)).dropped("drop_fragment")
	})
	forEachProtocol(c, "later fragment of another datagram", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		f := in.fragment(0, 512)
		l.ingress(outside, f).toStack(f.to(ip.local), "flow_new forwarded")
		for _, change := range []func(*packet){
			func(p *packet) { p.id++ },
			func(p *packet) { p.src = addrPort(p.src.Addr().Next(), 40000) },
		} {
			g := in.fragment(512, 0)
			change(&g)
			l.ingress(outside, g).dropped("fragment_held")
		}
	})
	forEachProtocol(c, "first fragment to an unserved port", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, uint32(BlixtBackendIdBACKEND_REJECT))
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		f := in.fragment(0, 512)
		l.ingress(outside, f).dropped("reject_no_backend") // no RST: the rest of the segment is still to come
		f = f.to(port(ip.vip, "81"))
		if proto == unix.IPPROTO_TCP {
			l.ingress(outside, f).dropped("drop_fragment")
		} else {
			l.ingress(outside, f).redirected(f.portUnreachable(), "reject_unserved")
		}
	})
	forEachProtocol(c, "fragments of a flow whose backend is gone", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		f := in.fragment(0, 512)
		l.ingress(outside, f).toStack(f.to(ip.local), "flow_new forwarded")
		l.removeBackend(local)
		l.ingress(outside, in.fragment(512, 0)).dropped("reject_backend_gone")
	})
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		// RFC 6946: a whole packet with a fragment header.
		c["IPv6 "+protocolName(protocol)+" atomic fragment is whole"] = func(l *lb) {
			ip := ipVersions[1]
			l.serve(ip, protocol, local)
			in := opening(protocol, ip.client, port(ip.vip, "80"))
			in.piece = &piece{atomic: true}
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
			in = in.to(port(ip.vip, "81"))
			if protocol == unix.IPPROTO_TCP {
				l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
			} else {
				l.ingress(outside, in).redirected(in.portUnreachable(), "reject_unserved")
			}
		}
		c["IPv6 "+protocolName(protocol)+" fragments behind other extension headers"] = func(l *lb) {
			ip := ipVersions[1]
			l.serve(ip, protocol, remote)
			in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(1200)
			in.exts = []extension{hopByHop(), routing()}
			id := l.fragmentID()
			for i, f := range []packet{in.fragment(0, 512), in.fragment(512, 0)} {
				out := f.snat(ip.nodeIn, 0).to(ip.remote).hop().withID(id)
				l.ingress(outside, f).redirected(out, []string{"flow_new forwarded", "forwarded"}[i])
			}
		}
		// The fragment header names the options as the next header, not the protocol: all that later fragments show.
		c["IPv6 "+protocolName(protocol)+" fragments whose data begins with destination options"] = func(l *lb) {
			ip := ipVersions[1]
			l.serve(ip, protocol, remote)
			in := establishing(protocol, ip.client, port(ip.vip, "80")).withSize(1200)
			in.lateExts = []extension{destOptions()}
			id := l.fragmentID()
			for i, f := range []packet{in.fragment(0, 512), in.fragment(512, 0)} {
				l.ingress(outside, f).redirected(f.snat(ip.nodeIn, 0).to(ip.remote).hop().withID(id), []string{"flow_new forwarded", "forwarded"}[i])
			}
		}
	}
	c.run(t)
}

// TestFragmentsOfClientsStayApart has two clients choose one identification.
func TestFragmentsOfClientsStayApart(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "to a remote backend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		ids := map[uint32]bool{}
		for i := range 3 {
			in := establishing(proto, addrPort(ap(ip.client).Addr().Next(), 40000+i).String(), port(ip.vip, "80")).withSize(1500)
			in.df, in.id = false, 0x1234
			id := l.fragmentID()
			ids[id&0xffff] = true
			for j, f := range []packet{in.fragment(0, 512), in.fragment(512, 0), in.fragment(0, 512)} { // and the first one twice
				r := l.ingress(outside, f)
				r.wantVerdict(redirect, []string{"flow_new forwarded", "forwarded", "forwarded"}[j])
				if n := l.fragmentID(); n != id+1 {
					t.Errorf("the fragments of one datagram use up %d identifications", n-id)
				}
			}
		}
		if len(ids) != 3 {
			t.Errorf("three clients with one identification get %v", ids)
		}
	})
	c.run(t)
}

// TestIdentificationInUseAgain has a client use an identification for its next datagram,
// to another port, at once.
func TestIdentificationInUseAgain(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "by another flow", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.frontend(1, proto, port(ip.vip, "81"), remote)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		l.ingress(outside, in.fragment(0, 512)).toStack(in.fragment(0, 512).to(ip.local), "flow_new forwarded")
		again := in.to(port(ip.vip, "81"))
		l.ingress(outside, again.fragment(0, 512)).wantVerdict(redirect, "flow_new forwarded")
		l.ingress(outside, again.fragment(512, 0)).wantVerdict(redirect, "forwarded")
	})
	c.run(t)
}

// TestOddFragments sends what attackers like (RFC 1858, RFC 3128, RFC 5722): nothing of it
// reaches another port than the first fragment names, and receivers decide about the rest.
func TestOddFragments(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "tiny, overlapping and repeated", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		in := establishing(proto, ip.client, port(ip.vip, "80")).withSize(1500)
		in.df = false
		if proto == unix.IPPROTO_TCP { // half a header
			l.ingress(outside, in.fragment(0, 8)).untouched("malformed")
		} else {
			l.ingress(outside, in.fragment(0, 8)).toStack(in.fragment(0, 8).to(ip.local), "flow_new forwarded")
		}
		in.id++
		first := in.fragment(0, 512)
		l.ingress(outside, first).wantVerdict(tcxNext, map[bool]string{true: "flow_new forwarded", false: "forwarded"}[proto == unix.IPPROTO_TCP])
		for _, f := range []packet{in.fragment(24, 512), in.fragment(256, 1024), in.fragment(512, 1024), in.fragment(512, 1024)} {
			l.ingress(outside, f).toStack(f.to(ip.local), "forwarded")
		}
		// Another first fragment names another port: only what follows it goes there.
		other := first.to(port(ip.vip, "81"))
		l.ingress(outside, other)
		l.ingress(outside, in.fragment(1024, 0)).toStack(in.fragment(1024, 0).to(ip.local), "forwarded")
	})
	c.run(t)
}

// TestForgedFragmentsEvictNoOthers floods the table with first fragments of clients that
// nobody has answered.
func TestForgedFragmentsEvictNoOthers(t *testing.T) {
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			l := newLB(t)
			l.serve(ip, unix.IPPROTO_UDP, local)
			in := udp(ip.client, port(ip.vip, "80")).withSize(1500)
			in.df = false
			l.ingress(outside, in.withSize(10)).wantVerdict(tcxNext, "flow_new forwarded")
			l.egressForwarded(pods, udp(ip.local, ip.client)).wantVerdict(tcxNext, "replied")
			f := in.fragment(0, 512)
			l.ingress(outside, f).toStack(f.to(ip.local), "forwarded")
			id := l.fragmentID() - 1
			for i := range 4 * int(l.Fragments.MaxEntries()) {
				forged := in
				forged.src = addrPort(in.src.Addr(), 1024+i)
				forged.id = uint32(1000 + i)
				l.ingress(outside, forged.fragment(0, 512))
			}
			f = in.fragment(512, 0)
			l.ingress(outside, f).toStack(f.to(ip.local).withID(id), "forwarded")
		})
	}
}

// establishesWith reports whether the client's packet establishes the flow. For
// UDP every packet does.
func establishesWith(protocol uint8, p packet) bool {
	return protocol == unix.IPPROTO_TCP && p.ack == 5001
}

// TestRefragmentedAnswers has a bridge put an IPv6 answer together and the stack take it
// apart again: only its first fragment looks as if it came in by the bridge.
func TestRefragmentedAnswers(t *testing.T) {
	c := cases{}
	c["IPv6 UDP"] = func(l *lb) {
		ip := ipVersions[1]
		l.serve(ip, unix.IPPROTO_UDP, local)
		in := udp(ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		l.egressForwarded(pods, udp(ip.local, ip.client)).wantVerdict(tcxNext, "replied")
		re := udp(ip.local, ip.client).withSize(1500)
		first, later := re.fragment(0, 512), re.fragment(512, 0)
		l.egressForwarded(pods, first).toStack(first.from(port(ip.vip, "80")), "replied")
		l.egressForwarded(inside, later).toStack(later.from(port(ip.vip, "80")), "replied")
		re.id++
		l.egressForwarded(inside, re.fragment(0, 512)).untouched("wrong_device")
	}
	c.run(t)
}
