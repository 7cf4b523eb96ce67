// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// clearPolicies empties the tables of policies.
func (l *lb) clearPolicies() {
	l.Helper()
	for _, m := range []*ebpf.Map{l.FrontendPolicies, l.Policies, l.PolicyStates} {
		clear(l.memory(m))
	}
	for i := range l.PolicyStats.MaxEntries() {
		l.must(l.PolicyStats.Put(i, make([]BlixtPolicyCounters, ebpf.MustPossibleCPU())))
	}
	var source BlixtSourceKey
	for l.Sources.NextKey(nil, &source) == nil {
		l.must(l.Sources.Delete(source))
	}
	deleteAll[BlixtLimitedSourceKey, BlixtLimitedSource](l, l.LimitedSources)
	deleteAll[BlixtAddr, uint32](l, l.Proven)
	for i := range l.SynCounts.MaxEntries() {
		l.must(l.SynCounts.Put(i, BlixtSynCount{}))
	}
}

// policies gives a frontend the policies with these ids.
func (l *lb) policies(frontend uint32, ids ...uint64) {
	l.Helper()
	word := uint64(0)
	for i, id := range ids {
		word |= id << (16 * i)
	}
	l.must(l.FrontendPolicies.Put(frontend, word))
}

// A list is what the sources of a policy say.
type list struct {
	allow, deny []string
	flags       BlixtPolicyFlag
}

// word writes a set of sources, and returns the word that has a policy ask it.
func (l *lb) word(set uint32, s list) uint64 {
	l.Helper()
	put := func(prefixes []string, verdict BlixtSourceVerdict) {
		for _, text := range prefixes {
			p := netip.MustParsePrefix(text)
			bits := uint32(p.Bits())
			if p.Addr().Is4() {
				bits += 96
			} else if p.Overlaps(netip.MustParsePrefix("::ffff:0:0/96")) {
				all := BlixtSourceKey{Bits: 32 + 96, Set: set, Addr: addrOf(netip.MustParseAddr("::ffff:0:0"))}
				if err := l.Sources.Update(all, uint32(BlixtSourceVerdictSOURCE_UNLISTED), ebpf.UpdateNoExist); !errors.Is(err, ebpf.ErrKeyExist) {
					l.must(err)
				}
			}
			l.must(l.Sources.Put(BlixtSourceKey{Bits: 32 + bits, Set: set, Addr: addrOf(p.Masked().Addr())}, uint32(verdict)))
		}
	}
	put(s.allow, BlixtSourceVerdictSOURCE_ALLOWED)
	put(s.deny, BlixtSourceVerdictSOURCE_DENIED)
	if len(s.allow) > 0 {
		s.flags |= BlixtPolicyFlagPOLICY_ONLY_ALLOWED
	}
	return uint64(s.flags)<<32 | uint64(set)
}

// sources makes a policy of a list. Its set has the number of its id.
func (l *lb) sources(id uint32, s list) {
	l.Helper()
	l.must(l.Policies.Put(id, BlixtPolicy{Sources: l.word(id, s)}))
}

// refused returns how many flows a policy has refused, or would have, for a reason.
func (l *lb) refused(id uint32, why BlixtRefusal) (n uint64) {
	l.Helper()
	var each []BlixtPolicyCounters
	l.must(l.PolicyStats.Lookup(id, &each))
	for _, c := range each {
		n += c.Refused[why]
	}
	return n
}

// state returns what the limits of a policy have come to.
func (l *lb) state(id uint32) (s BlixtPolicyState) {
	l.Helper()
	l.must(l.PolicyStates.Lookup(id, &s))
	return s
}

// from4 and from6 begin a flow from a source to port 80 of the exclusive address of its family.
func opens(protocol uint8, source string) packet {
	a := netip.MustParseAddr(source)
	ip := ipVersions[0]
	if a.Is6() {
		ip = ipVersions[1]
	}
	return opening(protocol, netip.AddrPortFrom(a, 40000).String(), port(ip.vip, "80"))
}

// both has frontends 0 and 1, of both families, serve port 80.
func (l *lb) both(protocol uint8) {
	for i, ip := range ipVersions {
		l.backend(uint32(10+i), ip.local)
		l.address(ip.vip, true)
		l.frontend(uint32(i), protocol, port(ip.vip, "80"), uint32(10+i))
	}
}

// admits sends the first packet of a flow from each source, and checks that it gets a backend.
func (l *lb) admits(protocol uint8, sources ...string) {
	l.Helper()
	for _, s := range sources {
		p := opens(protocol, s)
		ip := ipVersions[0]
		if p.v6() {
			ip = ipVersions[1]
		}
		l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
	}
}

// refuses does so, and checks that it is dropped.
func (l *lb) refuses(protocol uint8, counter string, sources ...string) {
	l.Helper()
	for _, s := range sources {
		l.ingress(outside, opens(protocol, s)).dropped(counter)
	}
}

// TestSources: whom policies admit.
func TestSources(t *testing.T) {
	c := cases{}
	for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		named := func(name string, test func(l *lb)) {
			c[protocolName(protocol)+" "+name] = func(l *lb) {
				l.both(protocol)
				test(l)
			}
		}
		one := func(name string, s list, admitted, refused []string) {
			named(name, func(l *lb) {
				l.sources(1, s)
				l.policies(0, 1)
				l.policies(1, 1)
				l.admits(protocol, admitted...)
				l.refuses(protocol, "reject_source", refused...)
				if n := l.refused(1, BlixtRefusalREFUSED_SOURCE); n != uint64(len(refused)) {
					l.Errorf("the policy has counted %d refused flows, want %d", n, len(refused))
				}
			})
		}
		one("an allow list refuses all others, of both families", list{allow: []string{"192.0.2.0/24"}},
			[]string{"192.0.2.3", "192.0.2.254"}, []string{"198.51.100.1", "192.0.3.1", "2001:db8:c::7", "2001:db8:c::c000:203"})
		one("the longest prefix wins", list{allow: []string{"198.0.0.0/8", "198.51.100.0/24"}, deny: []string{"198.51.0.0/16"}},
			[]string{"198.51.100.3", "198.18.0.9"}, []string{"198.51.101.3", "203.0.114.1"})
		one("a deny list admits all others, of both families", list{deny: []string{"198.18.0.0/24", "2001:db8:d::/48"}},
			[]string{"198.18.1.1", "2001:db8:c::7"}, []string{"198.18.0.9", "2001:db8:d::7"})
		one("all of IPv6 says nothing about IPv4", list{allow: []string{"::/0"}}, []string{"2001:db8:c::7"}, []string{"198.51.100.7"})
		one("nor does it if it is denied", list{deny: []string{"::/0"}}, []string{"198.51.100.7"}, []string{"2001:db8:c::7"})
		one("all of both", list{allow: []string{"0.0.0.0/0", "::/0"}}, []string{"2001:db8:c::7", "198.51.100.7"}, nil)
		one("single addresses", list{allow: []string{"198.51.100.7/32", "2001:db8:c::7/128"}},
			[]string{"198.51.100.7", "2001:db8:c::7"}, []string{"198.51.100.6", "2001:db8:c::6"})
		one("what is not meant is counted alone: no list at all", list{}, []string{"198.51.100.7"}, nil)

		named("a route cannot widen: every policy has to admit the source", func(l *lb) {
			l.sources(1, list{allow: []string{"198.18.0.0/15"}})
			l.sources(2, list{allow: []string{"0.0.0.0/0"}})
			l.policies(0, 1, 2)
			l.admits(protocol, "198.18.0.9")
			l.refuses(protocol, "reject_source", "198.51.100.7")
			if n, m := l.refused(1, BlixtRefusalREFUSED_SOURCE), l.refused(2, BlixtRefusalREFUSED_SOURCE); n != 1 || m != 0 {
				l.Errorf("the policies have counted %d and %d refused flows, want 1 and 0", n, m)
			}
		})
		named("the fourth policy is asked, too", func(l *lb) {
			for id := range uint32(3) {
				l.sources(id+1, list{allow: []string{"0.0.0.0/0"}})
			}
			l.sources(4, list{deny: []string{"198.51.100.0/24"}})
			l.policies(0, 1, 2, 3, 4)
			l.admits(protocol, "198.18.0.9")
			l.refuses(protocol, "reject_source", "198.51.100.7")
		})
		named("sets are apart", func(l *lb) {
			l.sources(1, list{allow: []string{"198.18.0.0/15"}})
			l.sources(2, list{deny: []string{"198.18.0.0/15"}})
			l.policies(0, 1)
			l.admits(protocol, "198.18.0.9")
			l.policies(0, 2)
			l.refuses(protocol, "reject_source", "198.18.0.10")
			p := opens(protocol, "198.18.0.9")
			l.ingress(outside, p).toStack(p.to(ipVersions[0].local), "forwarded") // its flow has begun
		})
		named("DryRun counts and admits", func(l *lb) {
			l.sources(1, list{deny: []string{"0.0.0.0/0"}, flags: BlixtPolicyFlagPOLICY_DRY_RUN})
			l.policies(0, 1)
			l.admits(protocol, "198.51.100.7", "198.51.100.8")
			if n := l.refused(1, BlixtRefusalREFUSED_SOURCE); n != 2 {
				l.Errorf("the policy has counted %d flows that it would refuse, want 2", n)
			}
		})
		named("a policy that cannot be enforced lets nothing begin", func(l *lb) {
			for i, ip := range ipVersions {
				k := BlixtFrontendKey{Addr: addrOf(netip.MustParseAddr(ip.vip)), Port: htons(80), Protocol: protocol}
				l.must(l.Frontends.Put(k, BlixtFrontend{Index: uint32(i), IdleTicks: idleTicks, Flags: uint32(BlixtFrontendFlagFRONTEND_REFUSES)}))
			}
			l.refuses(protocol, "reject_unenforced", "198.51.100.7", "2001:db8:c::7")
		})
		named("another port is not asked", func(l *lb) {
			l.sources(1, list{deny: []string{"0.0.0.0/0"}})
			l.policies(1, 1)
			l.admits(protocol, "198.51.100.7")
		})
		named("nobody is told whether there is a backend", func(l *lb) {
			l.publish(0)
			l.sources(1, list{deny: []string{"0.0.0.0/0"}})
			l.policies(0, 1)
			l.refuses(protocol, "reject_source", "198.51.100.7")
		})
		named("a flow that has begun goes on", func(l *lb) {
			f := l.openFlow(ipVersions[0], protocol, true)
			l.sources(1, list{deny: []string{"0.0.0.0/0"}})
			l.policies(0, 1)
			f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "more"), "forwarded")
		})
	}
	c.run(t)
}

// TestSourcesReset: TCP is answered with a RST where the policy says so, UDP never.
func TestSourcesReset(t *testing.T) {
	c := cases{}
	for i, ip := range ipVersions {
		deny := list{deny: []string{"0.0.0.0/0", "::/0"}, flags: BlixtPolicyFlagPOLICY_RESET_SOURCES}
		c[ip.name+" a SYN"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.sources(1, deny)
			l.policies(uint32(i), 1)
			in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_source")
		}
		c[ip.name+" a segment of an unknown flow"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.sources(1, deny)
			l.policies(uint32(i), 1)
			in := tcp(ip.client, port(ip.vip, "80")).segment(ack|psh, 77, 4000, "data")
			l.ingress(outside, in).redirected(in.rstAnswer(rst, 4000, 0), "reject_source")
		}
		c[ip.name+" a datagram"] = func(l *lb) {
			l.both(unix.IPPROTO_UDP)
			l.sources(1, deny)
			l.policies(uint32(i), 1)
			l.ingress(outside, udp(ip.client, port(ip.vip, "80"))).dropped("reject_source")
		}
		c[ip.name+" a flag of limits alone"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.sources(1, list{deny: deny.deny, flags: BlixtPolicyFlagPOLICY_RESET_LIMITS})
			l.policies(uint32(i), 1)
			l.ingress(outside, opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))).dropped("reject_source")
		}
	}
	c.run(t)
}

// TestAllDoors: whoever sends it and however it comes in, a packet is asked.
func TestAllDoors(t *testing.T) {
	c := cases{}
	for i, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c[fmt.Sprintf("%s %s", ip.name, protocolName(protocol))] = func(l *lb) {
				l.serve(ip, protocol, local, remote)
				for index := range uint32(8) {
					l.policies(index, 1)
				}
				_ = i
				l.sources(1, list{deny: []string{"0.0.0.0/0", "::/0"}})
				vip, shared := port(ip.vip, "80"), port(ip.shared, "80")
				l.address(ip.shared, false)
				l.frontend(5, protocol, shared, local)
				pod := addrPort(ap(ip.local).Addr().Next(), 40000).String()
				node := addrPort(netip.MustParseAddr(ip.nodeIn).Next(), 40000).String()
				for _, to := range []string{vip, shared} {
					l.ingress(outside, opening(protocol, ip.client, to)).dropped("reject_source")
					l.ingress(outside, opening(protocol, node, to)).dropped("reject_source")
					l.ingress(pods, opening(protocol, pod, to)).dropped("reject_source")
					l.egressForwarded(pods, opening(protocol, pod, to)).dropped("reject_source")
					l.egressHost(outside, opening(protocol, ip.host, to)).dropped("reject_source")
				}
			}
		}
	}
	c["a mapped address is not IP"] = func(l *lb) {
		l.both(unix.IPPROTO_TCP)
		l.sources(1, list{allow: []string{"10.0.0.0/8", "::/0"}})
		l.policies(1, 1)
		in := opening(unix.IPPROTO_TCP, "[2001:db8:c::7]:40000", port(ipVersions[1].vip, "80"))
		frame := in.bytes()
		mapped := netip.MustParseAddr("::ffff:10.0.0.1").As16()
		copy(frame[14+8:], mapped[:])
		r := l.sendFrame(hook{dev: outside}, in, frame)
		if r.verdict != tcxNext {
			l.Errorf("verdict %d, want next", int32(r.verdict))
		}
		r.wantCounts("not_ours")
	}
	c.run(t)
}

// Without a backend, TCP is dropped where the frontend says so.
func TestDropNoBackend(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		for name, in := range map[string]packet{"SYN": opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80")), "segment": tcp(ip.client, port(ip.vip, "80")).segment(ack, 77, 4000, "data")} {
			c[ip.name+" "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP)
				k := BlixtFrontendKey{Addr: addrOf(netip.MustParseAddr(ip.vip)), Port: htons(80), Protocol: unix.IPPROTO_TCP}
				l.must(l.Frontends.Put(k, BlixtFrontend{IdleTicks: idleTicks, Flags: uint32(BlixtFrontendFlagFRONTEND_DROP_NO_BACKEND)}))
				l.ingress(outside, in).dropped("reject_no_backend")
			}
		}
	}
	c.run(t)
}
