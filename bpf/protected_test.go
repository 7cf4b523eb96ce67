// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"
)

const masqueradeMark = 0x4000

// flag gives the backend flags beside those that it has.
func (l *lb) flag(id uint32, flags BlixtBackendFlag) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(id, &b))
	b.Flags |= uint16(flags)
	l.must(l.Backends.Put(id, b))
}

// protect has IPsec policies cover a client, or let it pass.
func (l *lb) protect(client string, covered uint32) {
	l.Helper()
	a := netip.MustParseAddr(client)
	key := BlixtClientPrefix{Bits: 128, Addr: addrOf(a)}
	l.must(l.ProtectedClients.Put(key, covered))
}

// TestPathThroughTheStack: what the host's firewall and IPsec policies have to see.
func TestPathThroughTheStack(t *testing.T) {
	c := cases{}
	for _, flags := range []BlixtBackendFlag{BlixtBackendFlagBACKEND_STACK, BlixtBackendFlagBACKEND_STACK | BlixtBackendFlagBACKEND_PROTECTED} {
		name := map[bool]string{true: "protected: ", false: "chosen: "}[flags&BlixtBackendFlagBACKEND_PROTECTED != 0]
		forEachProtocol(c, name+"to a remote backend", func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, remote)
			l.flag(remote, flags)
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, MasqueradeMark: masqueradeMark}))
			vip := port(ip.vip, "80")
			forward := func(in packet, counters string) {
				l.ingress(outside, in).toStack(in.to(ip.remote), counters)
				if l.mark != masqueradeMark {
					l.Errorf("the mark is %#x", l.mark)
				}
				re := answer(proto, ip.remote, ip.client)
				l.ingress(inside, re).untouched("not_ours") // before conntrack has seen it
				l.egressForwarded(inside, re).toStack(re.from(vip), "replied")
			}
			forward(opening(proto, ip.client, vip), "flow_new forwarded")
			forward(establishing(proto, ip.client, vip), "forwarded"+andEstablished(proto))
		})
	}
	forEachProtocol(c, "to a local backend is not masqueraded", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, local)
		l.flag(local, BlixtBackendFlagBACKEND_STACK|BlixtBackendFlagBACKEND_PROTECTED)
		l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMax, MasqueradeMark: masqueradeMark}))
		in := opening(proto, ip.client, port(ip.vip, "80"))
		l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		if l.mark != 0 {
			l.Errorf("the mark is %#x", l.mark)
		}
	})
	forEachProtocol(c, "what leaves is refused if protected, and redirected if not", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		vip := port(ip.vip, "80")
		own, forwarded := opening(proto, ip.host, vip), opening(proto, ip.client, vip)
		l.flag(remote, BlixtBackendFlagBACKEND_STACK|BlixtBackendFlagBACKEND_PROTECTED)
		l.egressHost(outside, own).redirected(own.unreachable(13, 1).keepMACs(), "reject_protected")
		l.egressForwarded(pods, forwarded).redirected(forwarded.unreachable(13, 1), "reject_protected")
		l.backend(remote, ip.remote)
		l.flag(remote, BlixtBackendFlagBACKEND_STACK)
		l.egressHost(outside, own).redirected(own.snat(ip.nodeIn, 0).to(ip.remote), "flow_new forwarded")
	})
	c.run(t)
}

// TestClientsOfIPsec: a client that policies cover gets nothing, whoever would answer.
func TestClientsOfIPsec(t *testing.T) {
	c := cases{}
	for name, id := range map[string]uint32{"local": local, "remote": remote} {
		forEachProtocol(c, "begins no flow to a "+name+" backend", func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, id)
			l.protect(addrOnly(ip.client), 1)
			l.ingress(outside, opening(proto, ip.client, port(ip.vip, "80"))).dropped("drop_protected")
			l.ingress(outside, opening(proto, ip.client, port(ip.vip, "81"))).dropped("drop_protected") // no RST, no ICMP error
			l.protect(addrOnly(ip.client), 0)
			l.ingress(outside, opening(proto, ip.client, port(ip.vip, "80"))).wantVerdict(map[uint32]uint32{local: tcxNext, remote: redirect}[id], "flow_new forwarded")
		})
		forEachProtocol(c, "loses its flow to a "+name+" backend within a tick", func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, id)
			vip := port(ip.vip, "80")
			in := opening(proto, ip.client, vip)
			l.ingress(outside, in).wantVerdict(map[uint32]uint32{local: tcxNext, remote: redirect}[id], "flow_new forwarded")
			l.age(in, 1)
			l.protect(addrOnly(ip.client), 1)
			l.ingress(outside, establishing(proto, ip.client, vip)).dropped("drop_protected")
			if m, _ := l.flow(in); m != nil {
				l.Error("the flow goes on")
			}
		})
	}
	c.run(t)
}

func addrOnly(addrPort string) string { return ap(addrPort).Addr().String() }
