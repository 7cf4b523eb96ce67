// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// limits makes a policy of limits alone. Prefixes of sources are /32 and /64 unless it says otherwise.
func (l *lb) limits(id uint32, p BlixtPolicy) {
	l.Helper()
	if p.SourceBits4 == 0 {
		p.SourceBits4, p.SourceBits6 = 128, 64
	}
	l.must(l.Policies.Put(id, p))
}

const hour = 3600e9 // ns

// source returns the i-th address of a network that clients are in.
func source(ip ipVersion, i int) string {
	if ip.name == "IPv4" {
		return netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}).String()
	}
	a := netip.MustParseAddr("2001:db8:c::").As16()
	binary.BigEndian.PutUint16(a[6:], uint16(i)) // another /64
	a[15] = 7
	return netip.AddrFrom16(a).String()
}

// concurrent returns the flows that policy 1 counts.
func (l *lb) concurrent() int32 { return int32(l.state(1).Concurrent) }

// concurrentOfFirst returns the flows that it counts for the first source.
func (l *lb) concurrentOfFirst(ip ipVersion) int32 {
	var s BlixtLimitedSource
	l.must(l.LimitedSources.Lookup(BlixtLimitedSourceKey{Policy: 1, Addr: addrOf(prefixOfFirst(ip))}, &s))
	return int32(s.Concurrent)
}

// TestLimitsOfNewFlows: how many flows may begin.
func TestLimitsOfNewFlows(t *testing.T) {
	c := cases{}
	for i, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			// from begins a flow of the n-th source, from another port each time.
			port := 1024
			from := func(l *lb, n int) *result {
				port++
				p := opens(protocol, source(ip, n))
				p.src = netip.AddrPortFrom(p.src.Addr(), uint16(port))
				return l.ingress(outside, p)
			}
			pass := func(l *lb, r *result) { l.Helper(); r.toStack(r.in.to(ip.local), "flow_new forwarded") }
			named := func(name string, test func(l *lb)) {
				c[fmt.Sprintf("%s %s %s", ip.name, protocolName(protocol), name)] = func(l *lb) {
					l.both(protocol)
					l.policies(uint32(i), 1)
					test(l)
				}
			}
			named("each source has a burst of its own", func(l *lb) {
				l.limits(1, BlixtPolicy{SourceInterval: hour, SourceBurst: 2})
				for range 2 {
					pass(l, from(l, 1))
				}
				from(l, 1).dropped("reject_rate")
				pass(l, from(l, 2))
				if n := l.refused(1, BlixtRefusalREFUSED_SOURCE_RATE); n != 1 {
					l.Errorf("%d flows of sources refused, want 1", n)
				}
			})
			named("all sources have one together", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 3})
				for n := range 3 {
					pass(l, from(l, n+1))
				}
				from(l, 9).dropped("reject_rate")
				if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_RATE); n != 1 {
					l.Errorf("%d flows of all sources refused, want 1", n)
				}
			})
			named("limits stack: who is over the second takes nothing of the first", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 4})
				l.limits(2, BlixtPolicy{SourceInterval: hour, SourceBurst: 1})
				l.policies(uint32(i), 1, 2)
				pass(l, from(l, 1))
				for range 10 {
					from(l, 1).dropped("reject_rate")
				}
				for n := range 3 {
					pass(l, from(l, n+2))
				}
				from(l, 9).dropped("reject_rate")
				if a, b := l.refused(1, BlixtRefusalREFUSED_TOTAL_RATE), l.refused(2, BlixtRefusalREFUSED_SOURCE_RATE); a != 1 || b != 10 {
					l.Errorf("the policies have refused %d and %d, want 1 and 10", a, b)
				}
			})
			named("a denied source takes nothing", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1})
				l.sources(2, list{deny: []string{source(ip, 5) + "/" + map[bool]string{true: "32", false: "128"}[i == 0]}})
				l.policies(uint32(i), 1, 2)
				from(l, 5).dropped("reject_source")
				pass(l, from(l, 1))
			})
			named("DryRun counts, and uses up only what it would admit", func(l *lb) {
				l.limits(1, BlixtPolicy{Sources: uint64(BlixtPolicyFlagPOLICY_DRY_RUN) << 32, TotalInterval: hour, TotalBurst: 1})
				for range 3 {
					pass(l, from(l, 1))
				}
				if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_RATE); n != 2 {
					l.Errorf("%d flows would have been refused, want 2", n)
				}
			})
			named("what is repeated is not charged again", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1})
				p := opens(protocol, source(ip, 1))
				l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
				for range 3 {
					l.ingress(outside, p).toStack(p.to(ip.local), "forwarded")
				}
			})
			named("nor is it when the ring has another backend meanwhile", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1})
				p := opens(protocol, source(ip, 1))
				l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
				other := addrPort(ap(ip.local).Addr().Next(), 8080).String()
				l.backend(30, other)
				l.publish(uint32(i), 30)
				if protocol == unix.IPPROTO_UDP { // it stays where it is as long as its backend serves
					var b BlixtBackend
					l.must(l.Backends.Lookup(uint32(10+i), &b))
					b.Flags |= uint16(BlixtBackendFlagBACKEND_NOT_SERVING)
					l.must(l.Backends.Put(uint32(10+i), b))
				}
				l.ingress(outside, p).toStack(p.to(other), "flow_new forwarded")
			})
			named("a flow that has ended is", func(l *lb) {
				l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1})
				p := opens(protocol, source(ip, 1))
				l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
				l.age(p, 2*idleTicks)
				l.age(p.reversed().from(ip.local), 2*idleTicks)
				l.ingress(outside, p).dropped("flow_expired reject_rate")
			})
			named("sources that have the same prefix count as one", func(l *lb) {
				l.limits(1, BlixtPolicy{SourceInterval: hour, SourceBurst: 1, SourceBits4: 96 + 24, SourceBits6: 32})
				pass(l, from(l, 1))
				from(l, 2).dropped("reject_rate")
			})
			named("a forgotten source begins anew", func(l *lb) {
				l.limits(1, BlixtPolicy{SourceInterval: hour, SourceBurst: 1})
				pass(l, from(l, 1))
				deleteAll[BlixtLimitedSourceKey, BlixtLimitedSource](l, l.LimitedSources)
				pass(l, from(l, 1))
			})
		}
		c[ip.name+" TCP is reset where the policy says so"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.limits(1, BlixtPolicy{Sources: uint64(BlixtPolicyFlagPOLICY_RESET_LIMITS) << 32, TotalInterval: hour, TotalBurst: 0})
			l.policies(uint32(i), 1)
			in := opens(unix.IPPROTO_TCP, source(ip, 1))
			l.ingress(outside, in).redirected(in.rstAnswer(rst|ack, 0, 1001), "reject_rate")
		}
		c[ip.name+" five thousand connections from a failed node are not charged"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1, SourceInterval: hour, SourceBurst: 1, TotalConcurrent: 1, SourceConcurrent: 1})
			l.policies(uint32(i), 1)
			for n := range 5000 {
				p := tcp(ip.client, port(ip.vip, "80")).segment(ack|psh, 1001, 5001, "goes on")
				p.src = netip.AddrPortFrom(p.src.Addr(), uint16(1024+n))
				l.ingress(outside, p).toStack(p.to(ip.local), "flow_new forwarded")
			}
			in := opens(unix.IPPROTO_TCP, source(ip, 1))
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
		}
		c[ip.name+" but more than that are, and are never reset"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.limits(1, BlixtPolicy{Sources: uint64(BlixtPolicyFlagPOLICY_RESET_LIMITS) << 32, TotalInterval: 1, TotalBurst: 1})
			l.policies(uint32(i), 1)
			l.must(l.PolicyStates.Put(uint32(1), BlixtPolicyState{Adopted: monotonic() + hour}))
			p := tcp(ip.client, port(ip.vip, "80")).segment(ack|psh, 1001, 5001, "goes on")
			l.ingress(outside, p).dropped("reject_rate")
			if n := l.refused(1, BlixtRefusalREFUSED_ADOPTED); n != 1 {
				l.Errorf("%d adopted flows refused, want 1", n)
			}
		}
		c[ip.name+" a SYN behind a segment in mid-stream is charged"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.limits(1, BlixtPolicy{TotalInterval: hour, TotalBurst: 1})
			l.policies(uint32(i), 1)
			for _, ackNo := range []uint32{5001, 0} {
				first := tcp(ip.client, port(ip.vip, "80")).segment(ack, 1001, ackNo, "")
				first.src = netip.AddrPortFrom(first.src.Addr(), uint16(20000+ackNo))
				l.ingress(outside, first).toStack(first.to(ip.local), "flow_new forwarded")
				second := first.segment(syn, 1000, 0, "")
				if ackNo > 0 {
					l.ingress(outside, second).toStack(second.to(ip.local), "flow_new forwarded")
				} else {
					l.ingress(outside, second).dropped("reject_rate")
				}
			}
		}
	}
	c.run(t)
}

func monotonic() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return uint64(now.Nano())
}

// TestLimitsOfConcurrentFlows: how many flows may be established.
func TestLimitsOfConcurrentFlows(t *testing.T) {
	c := cases{}
	for i, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			named := func(name string, test func(l *lb, flow func(n int) localFlow)) {
				c[fmt.Sprintf("%s %s %s", ip.name, protocolName(protocol), name)] = func(l *lb) {
					l.both(protocol)
					l.policies(uint32(i), 1)
					test(l, func(n int) localFlow {
						return localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, addrPort(netip.MustParseAddr(source(ip, n)), 40000).String()}
					})
				}
			}
			named("no more than the limit of all sources", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{TotalConcurrent: 2})
				flow(1).open(true)
				flow(2).open(true)
				l.ingress(outside, opening(protocol, flow(3).client, flow(3).vip)).dropped("reject_concurrent")
				if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_CONCURRENT); n != 1 || l.concurrent() != 2 {
					l.Errorf("%d refused, %d concurrent: want 1 and 2", n, l.concurrent())
				}
			})
			named("nor of each", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{SourceConcurrent: 1})
				flow(1).open(true)
				another := flow(1)
				another.client = addrPort(ap(another.client).Addr(), 40001).String()
				l.ingress(outside, opening(protocol, another.client, another.vip)).dropped("reject_concurrent")
				flow(2).open(true)
			})
			named("what is not answered does not count", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{TotalConcurrent: 1, SourceConcurrent: 1})
				for n := range 5 {
					flow(n + 1).open(false)
				}
				if l.concurrent() != 0 {
					l.Errorf("%d concurrent, want 0", l.concurrent())
				}
			})
			named("of those that begin at the same time, too", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{TotalConcurrent: 1})
				flow(1).open(false)
				late := flow(2)
				late.open(false)
				f := flow(1)
				f.fromBackend(answer(protocol, f.backend, f.client))
				f.fromClient(establishing(protocol, f.client, f.vip), "forwarded"+andEstablished(protocol))
				back := answer(protocol, late.backend, late.client)
				if protocol == unix.IPPROTO_UDP {
					l.egressForwarded(pods, back).dropped("reject_concurrent")
				} else {
					late.fromBackend(back)
					r := l.ingress(outside, establishing(protocol, late.client, late.vip))
					r.wantCounts("reject_concurrent")
					if r.verdict != tcxNext {
						l.Errorf("verdict %d, want next: the backend gets a RST", int32(r.verdict))
					}
				}
				l.wantTable(late.forward(), "none")
				if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_CONCURRENT); n != 1 || l.concurrent() != 1 {
					l.Errorf("%d refused, %d concurrent: want 1 and 1", n, l.concurrent())
				}
			})
			named("one that ends makes room", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{TotalConcurrent: 1, SourceConcurrent: 1})
				f := flow(1)
				f.open(true)
				if l.concurrent() != 1 || l.concurrentOfFirst(ip) != 1 {
					l.Errorf("%d concurrent, %d of the source: want 1 and 1", l.concurrent(), l.concurrentOfFirst(ip))
				}
				l.removeBackend(uint32(10 + i))
				l.ingress(outside, f.clientPacket(ack, 1001, 5001, ""))
				if l.concurrent() != 0 || l.concurrentOfFirst(ip) != 0 {
					l.Errorf("%d concurrent, %d of the source: want 0 and 0", l.concurrent(), l.concurrentOfFirst(ip))
				}
			})
			named("numbers stay above zero when a flow ends that was not counted", func(l *lb, flow func(n int) localFlow) {
				f := flow(1)
				f.open(true)
				l.limits(1, BlixtPolicy{TotalConcurrent: 5, SourceConcurrent: 5})
				l.removeBackend(uint32(10 + i))
				l.ingress(outside, f.clientPacket(ack, 1001, 5001, ""))
				if l.concurrent() != 0 {
					l.Errorf("%d concurrent, want 0", l.concurrent())
				}
			})
			named("DryRun lets all be established, and counts them", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{Sources: uint64(BlixtPolicyFlagPOLICY_DRY_RUN) << 32, TotalConcurrent: 1})
				flow(1).open(true)
				flow(2).open(true)
				if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_CONCURRENT); n != 1 || l.concurrent() != 2 {
					l.Errorf("%d would have been refused, %d concurrent: want 1 and 2", n, l.concurrent())
				}
			})
			named("what one policy refuses the others do not count", func(l *lb, flow func(n int) localFlow) {
				l.limits(1, BlixtPolicy{TotalConcurrent: 5, SourceConcurrent: 5})
				l.limits(2, BlixtPolicy{SourceConcurrent: 1})
				l.policies(uint32(i), 1, 2)
				flow(1).open(true)
				l.ingress(outside, opening(protocol, addrPort(netip.MustParseAddr(source(ip, 1)), 40001).String(), port(ip.vip, "80"))).dropped("reject_concurrent")
				if l.concurrent() != 1 || l.concurrentOfFirst(ip) != 1 {
					l.Errorf("%d concurrent, %d of the source: want 1 and 1", l.concurrent(), l.concurrentOfFirst(ip))
				}
			})
		}
		c[ip.name+" TCP: a connection that is closed makes room"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.policies(uint32(i), 1)
			l.limits(1, BlixtPolicy{TotalConcurrent: 1, SourceConcurrent: 1})
			f := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
			f.open(true)
			f.fromClient(f.clientPacket(rst, 1001, 0, ""), "forwarded flow_closed")
			if l.concurrent() != 0 {
				l.Errorf("%d concurrent, want 0", l.concurrent())
			}
			g := f
			g.client = addrPort(ap(ip.client).Addr(), 40001).String()
			g.open(true)
		}
		c[ip.name+" TCP: an adopted connection is established over the limit, and counts"] = func(l *lb) {
			l.both(unix.IPPROTO_TCP)
			l.policies(uint32(i), 1)
			l.limits(1, BlixtPolicy{TotalConcurrent: 1})
			f := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
			f.open(true)
			g := f
			g.client = addrPort(ap(ip.client).Addr(), 40001).String()
			g.fromClient(g.clientPacket(ack|psh, 1001, 5001, "more"), "flow_new forwarded")
			g.fromBackend(tcp(g.backend, g.client).segment(ack, 5001, 1005, ""))
			g.fromClient(g.clientPacket(ack|psh, 1005, 5001, "more"), "forwarded flow_established")
			if l.concurrent() != 2 {
				l.Errorf("%d concurrent, want 2", l.concurrent())
			}
		}
	}
	c.run(t)
}

// prefixOfFirst returns the prefix of the first source that limits count by default.
func prefixOfFirst(ip ipVersion) netip.Addr {
	bits := 32
	if ip.name != "IPv4" {
		bits = 64
	}
	return netip.PrefixFrom(netip.MustParseAddr(source(ip, 1)), bits).Masked().Addr()
}
