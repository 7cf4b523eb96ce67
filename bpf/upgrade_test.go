// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A previous program is in front of this one, at the same hooks, and serves its flows.
func TestProgramBehindAPreviousOne(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "a flow to a backend of this node has a port of ours", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.config(BlixtConfigFlagCONFIG_UPGRADING)
		in, vip := opening(proto, ip.client, port(ip.vip, "80")), port(ip.vip, "80")
		out := in.snat(ap(ip.client).Addr().String(), 0).to(ip.local)
		l.ingress(outside, in).toStack(out, "flow_new flow_port_changed forwarded")
		re := answer(proto, ip.local, out.src.String())
		l.egressForwarded(pods, re).toStack(re.from(vip).to(ip.client), "replied")
	})
	forEachProtocol(c, "a flow keeps its port if none of ours is left", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{Flags: uint32(BlixtConfigFlagCONFIG_UPGRADING), SnatMin: 1, SnatMax: 0}))
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
	})
	for _, ip := range ipVersions {
		c[ip.name+" UDP replies of the previous program leave as they are"] = func(l *lb) {
			out := udp(l.share(ip, unix.IPPROTO_UDP, "2222", local), ip.client)
			l.config(BlixtConfigFlagCONFIG_UPGRADING)
			l.egressForwarded(pods, out).untouched("not_ours")
		}
	}
	forEachProtocol(c, "what the previous program has sent to a socket comes in by lo", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		for _, in := range []packet{answer(proto, vip, port(ip.vip, "40000")), opening(proto, port(ip.vip, "40000"), vip), echo(ip.vip, ip.vip)} {
			in.blankMAC = true
			l.ingress("lo", in).untouched("not_ours")
		}
	})
	// The previous program goes from one device after another: a backend's segments may meet
	// this one alone, and the host would reset the connection, which this program takes over.
	for _, ip := range ipVersions {
		for name, one := range map[string]struct {
			flags  BlixtConfigFlag
			change func(l *lb, re *packet)
			lost   bool
		}{
			"is dropped":                             {BlixtConfigFlagCONFIG_UPGRADING, nil, true},
			"passes if there is no previous program": {0, nil, false},
			"passes if this program is one":          {BlixtConfigFlagCONFIG_UPGRADING | BlixtConfigFlagCONFIG_DRAIN, nil, false},
			"passes if it begins a connection":       {BlixtConfigFlagCONFIG_UPGRADING, func(_ *lb, re *packet) { re.flags |= syn }, false},
			"passes if the cluster has no such port": {BlixtConfigFlagCONFIG_UPGRADING, func(_ *lb, re *packet) { re.dst = addrPort(re.dst.Addr(), snatMax+101) }, false},
			"passes if its backend was never announced to": {BlixtConfigFlagCONFIG_UPGRADING, func(l *lb, _ *packet) {
				deleteAll[BlixtFrontendKey, uint32](l, l.AnnouncedBackends)
			}, false},
		} {
			c[ip.name+" a segment to the previous program's port "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, remote)
				l.must(l.Announcing.Put(uint32(0), BlixtAnnounceConfig{Flags: uint8(BlixtAnnouncingFlagANNOUNCING_TELL), PortsMin: snatMin, PortsMax: snatMax + 100}))
				backend := ap(ip.remote)
				l.must(l.AnnouncedBackends.Put(BlixtFrontendKey{Addr: addrOf(backend.Addr()), Port: htons(backend.Port()), Protocol: unix.IPPROTO_TCP}, uint32(0)))
				l.config(one.flags)
				re := continuing(unix.IPPROTO_TCP, ip.remote, addrPort(netip.MustParseAddr(ip.nodeIn), snatMax+50).String())
				if one.change != nil {
					one.change(l, &re)
				}
				if r := l.ingress(inside, re); one.lost {
					r.dropped("drop_flow_gone")
				} else {
					r.untouched("not_ours")
				}
			}
		}
	}
	c.run(t)
}
