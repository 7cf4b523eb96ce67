// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// challenging has a frontend for each family that challenges clients from so many new flows in a second on.
func (l *lb) challenging(from uint32) {
	l.Helper()
	l.both(unix.IPPROTO_TCP)
	for i, ip := range ipVersions {
		k := BlixtFrontendKey{Addr: addrOf(netip.MustParseAddr(ip.vip)), Port: htons(80), Protocol: unix.IPPROTO_TCP}
		l.must(l.Frontends.Put(k, BlixtFrontend{Index: uint32(i), IdleTicks: idleTicks, Challenge: from}))
	}
}

// ackOf returns the acknowledgement number of the segment that the program has answered with.
func (r *result) ackOf() uint32 {
	at := 14 + 20
	if r.in.v6() {
		at = 14 + 40
	}
	return binary.BigEndian.Uint32(r.out[at+8:])
}

// challenged sends a SYN, checks that it is answered with an acknowledgement that its sender cannot accept, and returns that.
func (l *lb) challenged(in packet) (cookie uint32) {
	l.Helper()
	r := l.ingress(outside, in)
	cookie = r.ackOf()
	r.redirected(in.rstAnswer(ack, 0, cookie), "reject_unproven")
	if len(r.out) > len(r.frame) {
		l.Errorf("the answer has %d bytes, the SYN %d", len(r.out), len(r.frame))
	}
	if d := cookie - in.seq; d < 1<<31 {
		l.Errorf("%d acknowledges what a client that has sent %d may send", cookie, in.seq)
	}
	return cookie
}

// TestChallenge: who gets a flow while clients have to prove their addresses.
func TestChallenge(t *testing.T) {
	c := cases{}
	for i, ip := range ipVersions {
		vip := port(ip.vip, "80")
		syn1 := opening(unix.IPPROTO_TCP, ip.client, vip)
		reset := func(cookie uint32) packet { return tcp(ip.client, vip).segment(rst, cookie, 0, "") }
		pass := func(l *lb, p packet) {
			l.Helper()
			l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
		}
		named := func(name string, test func(l *lb)) { c[ip.name+" "+name] = test }
		named("a client that answers gets one", func(l *lb) {
			l.challenging(1)
			l.ingress(outside, reset(l.challenged(syn1))).dropped("client_proven drop_no_flow")
			pass(l, syn1)
			another := syn1
			another.src = addrPort(another.src.Addr(), 40001)
			pass(l, another)
		})
		named("whatever its SYN's number is", func(l *lb) {
			l.challenging(1)
			for _, seq := range []uint32{0, 1, 1 << 31, 1<<31 - 1, 0xffffffff} {
				deleteAll[BlixtAddr, uint32](l, l.Proven)
				l.ingress(outside, reset(l.challenged(syn1.segment(syn, seq, 0, "")))).dropped("client_proven drop_no_flow")
			}
		})
		named("a RST that guesses proves nothing", func(l *lb) {
			l.challenging(1)
			cookie := l.challenged(syn1)
			for _, guess := range []uint32{cookie + 1, cookie - 1, ^cookie, 0, 1001} {
				l.ingress(outside, reset(guess)).dropped("drop_no_flow")
			}
			l.challenged(syn1)
		})
		named("nor one with the cookie of another port or address", func(l *lb) {
			l.challenging(1)
			cookie := l.challenged(syn1)
			other := reset(cookie)
			other.src = addrPort(other.src.Addr(), 40001)
			l.ingress(outside, other).dropped("drop_no_flow")
			other.src = addrPort(other.src.Addr().Next(), 40000)
			l.ingress(outside, other).dropped("drop_no_flow")
			l.challenged(syn1)
		})
		named("it has to prove itself again later", func(l *lb) {
			l.challenging(1)
			l.ingress(outside, reset(l.challenged(syn1))).dropped("client_proven drop_no_flow")
			a := addrOf(syn1.src.Addr())
			var tick uint32
			l.must(l.Proven.Lookup(a, &tick))
			l.must(l.Proven.Put(a, tick-62))
			l.challenged(syn1)
		})
		named("a SYN that is repeated for its flow is not challenged", func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			pass(l, syn1)
			l.challenging(1)
			l.ingress(outside, syn1).toStack(syn1.to(ip.local), "forwarded")
		})
		named("a connection goes on, and is taken over from other nodes", func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			f := l.openFlow(ip, unix.IPPROTO_TCP, true)
			l.challenging(1)
			f.fromClient(f.clientPacket(ack|psh, 1001, 5001, "more"), "forwarded")
			p := tcp(ip.client, vip).segment(ack|psh, 1001, 5001, "goes on")
			p.src = addrPort(p.src.Addr(), 40007)
			pass(l, p)
		})
		named("from a number of SYNs in a second on, and for a while after", func(l *lb) {
			l.challenging(20)
			p := syn1
			passed := 0
			for n := range 60 {
				p.src = addrPort(p.src.Addr(), 20000+n)
				if r := l.ingress(outside, p); r.verdict == tcxNext {
					passed++
				}
			}
			if passed < 20 || passed > 40 { // a second may have ended meanwhile
				l.Errorf("%d of 60 passed, want 20", passed)
			}
			l.challenged(syn1)
			var s BlixtSynCount
			l.must(l.SynCounts.Lookup(uint32(i), &s))
			s.Flood -= 11
			s.Tick, s.Number = s.Tick-11, 0
			l.must(l.SynCounts.Put(uint32(i), s))
			pass(l, syn1)
		})
		named("what is like a SYN is dropped, not answered", func(l *lb) {
			l.challenging(1)
			l.ingress(outside, syn1.segment(syn|ack, 1000, 5000, "")).dropped("reject_unproven")
			l.ingress(outside, syn1.segment(syn|fin, 1000, 0, "")).dropped("reject_unproven")
		})
		named("a socket of this host is not challenged", func(l *lb) {
			l.challenging(1)
			in := opening(unix.IPPROTO_TCP, ip.host, vip)
			r := l.egressHost(outside, in)
			if r.verdict == tcxDrop || r.counts["reject_unproven"] > 0 {
				l.Errorf("verdict %d, counts %v", int32(r.verdict), r.counts)
			}
		})
		named("UDP is not challenged", func(l *lb) {
			l.both(unix.IPPROTO_UDP)
			k := BlixtFrontendKey{Addr: addrOf(netip.MustParseAddr(ip.vip)), Port: htons(80), Protocol: unix.IPPROTO_UDP}
			l.must(l.Frontends.Put(k, BlixtFrontend{Index: uint32(i), IdleTicks: idleTicks, Challenge: 1}))
			pass(l, opening(unix.IPPROTO_UDP, ip.client, vip))
		})
		named("a flood of forged sources takes no tokens of limits, and a denied source gets no answer", func(l *lb) {
			l.challenging(1)
			l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1, Sources: l.word(9, list{deny: []string{source(ip, 9) + map[bool]string{true: "/32", false: "/128"}[i == 0]}})})
			l.policies(uint32(i), 1)
			for n := range 8 {
				l.challenged(opens(unix.IPPROTO_TCP, source(ip, n+1)))
			}
			l.refuses(unix.IPPROTO_TCP, "reject_source", source(ip, 9))
			l.ingress(outside, reset(l.challenged(syn1))).dropped("client_proven drop_no_flow")
			pass(l, syn1)
		})
		named("no more challenges than the limit", func(l *lb) {
			l.challenging(1)
			full := make([]uint64, ebpf.MustPossibleCPU())
			for cpu := range full {
				full[cpu] = monotonic() + hour
			}
			l.must(l.AnswerBuckets.Put(uint32(4), full))
			l.ingress(outside, syn1).dropped("drop_answer_limit")
		})
	}
	for name, test := range c { // once: a packet whose size changes loses its complete checksum, and the kernel returns nothing of it
		t.Run(name, func(t *testing.T) { test(newLB(t)) })
	}
}
