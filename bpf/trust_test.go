// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// martians are sources that no sender outside this host can have.
func martians(ip ipVersion) []string {
	if ip.name == "IPv4" {
		return []string{"0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.254", "224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255", ip.vip}
	}
	return []string{"::", "::1", "ff02::1", "ff0e::1", ip.vip}
}

func TestMartian(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "begins no flow and gets no answer", func(l *lb, ip ipVersion, proto uint8) {
		for _, id := range []uint32{local, remote, uint32(BlixtBackendIdBACKEND_REJECT)} {
			l.serve(ip, proto, id)
			for _, source := range martians(ip) {
				for _, to := range []string{port(ip.vip, "80"), port(ip.vip, "81")} { // a frontend, and an unserved port
					in := opening(proto, port(source, "4000"), to)
					l.ingress(outside, in).dropped("drop_martian")
					l.egressForwarded(pods, in).dropped("drop_martian") // a pod's
					l.wantTable(in, "none")
				}
				ping := echo(source, ip.vip)
				l.ingress(outside, ping).dropped("drop_martian")
			}
		}
	})
	forEachProtocol(c, "is the stack's business on a port of a shared address that has no frontend", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		for _, source := range martians(ip) {
			l.ingress(outside, opening(proto, port(source, "4000"), port(ip.shared, "81"))).untouched("not_ours")
		}
	})
	forEachProtocol(c, "is the source that is the destination", func(l *lb, ip ipVersion, proto uint8) {
		l.frontend(1, proto, port(ip.shared, "80"), remote)
		l.serve(ip, proto, remote)
		l.giveBackend(remote, 1)
		for _, from := range []string{"80", "4000"} {
			l.ingress(outside, opening(proto, port(ip.shared, from), port(ip.shared, "80"))).dropped("drop_martian")
		}
	})
	forEachProtocol(c, "is not an address shared with a host", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, port(ip.shared, "4000"), port(ip.vip, "80"))
		l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
	})
	forEachProtocol(c, "is what the host itself may send", func(l *lb, ip ipVersion, proto uint8) {
		vip, server := port(ip.vip, "80"), port(ip.nodeOut, "8080")
		loopback := map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"}[ip.name]
		for i, source := range []string{port(ip.vip, "4000"), port(loopback, "4001")} {
			l.serve(ip, proto, other)
			l.backend(other, server)
			in := opening(proto, source, vip)
			out := in.snat(ip.nodeOut, 0).to(server)
			l.egressHost("lo", in).redirected(out, "flow_new forwarded")
			out.blankMAC = true
			l.ingress("lo", out).untouched("not_ours")
			re := answer(proto, server, out.src.String())
			re.blankMAC = true
			l.ingress("lo", re).toStack(re.from(vip).to(source), "replied")
			l.publish(0, remote)
			in = opening(proto, port(ap(source).Addr().String(), []string{"4002", "4003"}[i]), vip)
			l.egressHost("lo", in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote), "flow_new forwarded")
		}
	})
	forEachProtocol(c, "passes with others while draining", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.config(BlixtConfigFlagCONFIG_DRAIN)
		for _, source := range martians(ip) {
			for _, to := range []string{port(ip.vip, "80"), port(ip.vip, "81")} {
				l.ingress(outside, opening(proto, port(source, "4000"), to)).untouched("drained")
			}
		}
	})
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		c["IPv6 "+protocolName(protocol)+" link-local is forwarded to no backend, but answered"] = func(l *lb) {
			ip := ipVersions[1]
			for _, id := range []uint32{local, remote} {
				l.serve(ip, protocol, id)
				for _, source := range []string{"fe80::7", "febf::7"} {
					l.ingress(outside, opening(protocol, port(source, "4000"), port(ip.vip, "80"))).dropped("drop_martian")
				}
			}
			in := echo("fe80::7", ip.vip)
			l.ingress(outside, in).redirected(in.echoReply(), "ping_answered")
			l.egressHost(outside, opening(protocol, "[fe80::7]:4000", port(ip.vip, "80"))).wantVerdict(redirect, "flow_new forwarded")
		}
	}
	for _, ip := range ipVersions {
		c[ip.name+" reports no ICMP error"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, local)
			f := l.openFlow(ip, unix.IPPROTO_UDP, true)
			source := map[string]string{"IPv4": "224.0.0.1", "IPv6": "ff02::1"}[ip.name]
			kind := map[string]uint8{"IPv4": 3, "IPv6": 1}[ip.name]
			l.ingress(outside, icmpError(source, ip.vip, kind, 4, 0, proto(unix.IPPROTO_UDP, f.vip, ip.client), 0)).dropped("drop_martian")
		}
	}
	c.run(t)
}

// mapped is a socket of IPv4 as an IPv4-mapped or IPv4-compatible IPv6 address.
func mapped(prefix, socket string) string {
	return "[" + prefix + ap(socket).Addr().String() + "]:" + socket[strings.LastIndex(socket, ":")+1:]
}

// TestIPv4InIPv6 sends IPv6 packets with addresses of IPv4.
func TestIPv4InIPv6(t *testing.T) {
	c := cases{}
	ip := ipVersions[0]
	for _, prefix := range []string{"::ffff:", "::"} {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			name := protocolName(protocol) + " " + prefix + "/96 "
			c[name+"acts on no flow"] = func(l *lb) {
				l.serve(ip, protocol, local)
				f := l.openFlow(ip, protocol, true)
				in := establishing(protocol, mapped(prefix, f.client), mapped(prefix, f.vip))
				re := answer(protocol, mapped(prefix, f.backend), mapped(prefix, f.client))
				if protocol == unix.IPPROTO_TCP {
					in = in.segment(rst|ack, 1001, 5001, "")
					re = re.segment(rst|ack, 5001, 1001, "")
				}
				l.ingress(outside, in).untouched("not_ours")
				l.egressForwarded(pods, re).untouched("not_ours")
				l.wantTable(f.forward(), livesIn(protocol))
				if got := l.endFlags(f.forward()) | l.endFlags(f.reply()); got != 0 {
					l.Errorf("an IPv6 packet has marked the IPv4 flow with %#x", got)
				}
			}
			c[name+"reaches no frontend and gets no answer"] = func(l *lb) {
				l.serve(ip, protocol, local)
				for _, to := range []string{port(ip.vip, "80"), port(ip.vip, "81")} {
					for _, in := range []packet{
						opening(protocol, mapped(prefix, ip.client), mapped(prefix, to)),
						opening(protocol, ipVersions[1].client, mapped(prefix, to)),
						opening(protocol, mapped(prefix, ip.client), port(ipVersions[1].vip, "80")),
						echo("2001:db8:c::7", prefix+ip.vip),
					} {
						l.ingress(outside, in).untouched("not_ours")
						l.egressHost(outside, in).untouched("not_ours")
					}
				}
			}
			c[name+"in the quote of an ICMPv6 error is about no flow"] = func(l *lb) {
				l.serve(ip, protocol, local)
				f := l.openFlow(ip, protocol, true)
				about := proto(protocol, mapped(prefix, f.vip), mapped(prefix, f.client)) // as the client got it
				e := icmpError("2001:db8:c::7", ipVersions[1].vip, 1, 4, 0, about, 0)
				l.address(ipVersions[1].vip, true)
				l.ingress(outside, e).dropped("drop_no_flow")
				about = proto(protocol, mapped(prefix, f.client), mapped(prefix, f.backend)) // as the backend got it
				e = icmpError("fd00:2::10", "2001:db8:c::7", 1, 4, 0, about, 0)
				l.egressForwarded(pods, e).untouched("not_ours")
			}
		}
	}
	c.run(t)
}

// TestBackendOfAnotherFrontend is about rings that hold the id of a backend that
// is in use again, for another frontend.
func TestBackendOfAnotherFrontend(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "gets no flow", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.frontend(1, proto, port(ip.shared, "80"), local)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		r := l.ingress(outside, in)
		if proto == unix.IPPROTO_TCP {
			r.redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_no_backend")
		} else {
			r.dropped("reject_no_backend")
		}
		l.wantTable(in, "none")
		l.ingress(outside, in.to(port(ip.shared, "80"))).toStack(in.to(ip.local), "flow_new forwarded")
	})
	c.run(t)
}
