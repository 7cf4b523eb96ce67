// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	mathbits "math/bits"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// setRef gives the local backend the id of a backendRef.
func (l *lb) setRef(ref uint32) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(uint32(local), &b))
	b.Ref = ref
	l.must(l.Backends.Put(uint32(local), b))
}

func (l *lb) refCounters(ref uint32) (c BlixtRefCounters) {
	l.Helper()
	l.must(l.RefStats.Lookup(ref, &c))
	return c
}

// wantRef wants these counts of backendRef 7, and none of others.
func (l *lb) wantRef(flows, answered, reset, unreachable uint64) {
	l.Helper()
	if c := l.refCounters(7); c.Flows != flows || c.Answered != answered || c.Reset != reset || c.Unreachable != unreachable {
		l.Errorf("backendRef: %d flows, %d answered, %d reset, %d unreachable; want %d, %d, %d, %d", c.Flows, c.Answered, c.Reset, c.Unreachable, flows, answered, reset, unreachable)
	}
	for _, none := range []uint32{0, 1, 2, 8} {
		if c := l.refCounters(none); c != (BlixtRefCounters{}) {
			l.Errorf("backendRef %d has counts: %+v", none, c)
		}
	}
}

// slotOf is another way than the program's to find the slot of a latency.
func slotOf(units uint32) int {
	if units <= 1<<6 {
		return 0
	}
	return min(mathbits.Len32(units-1)-6, int(BlixtLimitLATENCY_SLOTS)-1)
}

// wantLatency wants n latencies of at least `least`, all in the same slot or those above it.
func (l *lb) wantLatency(what string, h BlixtLatency, n uint64, least time.Duration) {
	l.Helper()
	var sum uint64
	units := uint32(least.Nanoseconds() * (1 << 20) / 1e9)
	for i, c := range h.Counts {
		sum += c
		if c > 0 && i < slotOf(units) {
			l.Errorf("%s: %d in slot %d, want none below slot %d", what, c, i, slotOf(units))
		}
	}
	if sum != n || h.Sum < n*uint64(units) || h.Sum > n<<26 {
		l.Errorf("%s: %d latencies with sum %d, want %d of %d and some more", what, sum, h.Sum, n, units)
	}
}

func TestBackendRefsAreCounted(t *testing.T) {
	c := cases{}
	begin := func(l *lb, ip ipVersion, protocol uint8) localFlow {
		l.serve(ip, protocol, local)
		l.setRef(7)
		return localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, ip.client}
	}
	forEachProtocol(c, "answered once, however many answers there are", func(l *lb, ip ipVersion, protocol uint8) {
		c := begin(l, ip, protocol)
		c.open(false)
		l.wantRef(1, 0, 0, 0)
		for range 3 {
			c.fromBackend(answer(protocol, c.backend, c.client))
			l.wantRef(1, 1, 0, 0)
		}
		c.fromClient(establishing(protocol, c.client, c.vip), "forwarded"+andEstablished(protocol))
		c.fromBackend(continuing(protocol, c.backend, c.client))
		l.wantRef(1, 1, 0, 0)
	})
	forEachProtocol(c, "an ICMP error counts once", func(l *lb, ip ipVersion, protocol uint8) {
		c := begin(l, ip, protocol)
		c.open(false)
		sent := opening(protocol, c.client, c.backend)
		kind := icmpKinds[ip.name][0]
		e := icmpError(ap(c.backend).Addr().String(), ap(c.client).Addr().String(), kind.kind, kind.code, 0, withLostHops(sent), 0)
		for range 3 {
			c.egressForwarded(pods, e).wantCounts("icmp_replied")
			l.wantRef(1, 0, 0, 1)
		}
	})
	forEachProtocol(c, "an ICMP error that refuses nothing", func(l *lb, ip ipVersion, protocol uint8) {
		c := begin(l, ip, protocol)
		c.open(false)
		for _, kind := range icmpKinds[ip.name][1:] {
			e := icmpError(ap(c.backend).Addr().String(), ap(c.client).Addr().String(), kind.kind, kind.code, kind.rest, withLostHops(opening(protocol, c.client, c.backend)), 0)
			c.egressForwarded(pods, e).wantCounts("icmp_replied")
		}
		l.wantRef(1, 0, 0, 0)
	})
	for _, ip := range ipVersions {
		c[ip.name+" refused by a RST"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			for n := range uint64(3) {
				c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
				c.fromBackendCounting(c.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
				c.fromBackendCounting(c.reply().segment(rst|ack, 0, 1001, ""), "replied") // repeated
				l.wantRef(n+1, 0, n+1, 0)
			}
		}
		c[ip.name+" a RST of an answered connection refuses nothing"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			c.open(false)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromBackendCounting(c.reply().segment(rst|ack, 5001, 1001, ""), "replied flow_closed")
			l.wantRef(1, 1, 0, 0)
		}
		c[ip.name+" the ref is that of the beginning"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			c.open(false)
			l.setRef(9)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			l.wantRef(1, 1, 0, 0)
		}
		c[ip.name+" without a ref nothing is counted"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			l.setRef(0)
			c.open(true)
			l.wantRef(0, 0, 0, 0)
		}
		c[ip.name+" latencies"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			c.open(false)
			c.fromClient(opening(c.protocol, c.client, c.vip), "forwarded") // repeated: the first one counts
			time.Sleep(4 * time.Millisecond)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			time.Sleep(2 * time.Millisecond)
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established")
			c.fromClient(c.clientPacket(ack, 1001, 5001, "more"), "forwarded")
			var rtt BlixtLatency
			l.must(l.ClientRtt.Lookup(uint32(0), &rtt))
			l.wantLatency("connect", l.refCounters(7).Connect, 1, 4*time.Millisecond)
			l.wantLatency("rtt", rtt, 1, 2*time.Millisecond)
			_, f := l.flow(c.forward())
			if _, r := l.flow(c.reply()); f.Syn != 0 || r.Syn != 0 {
				l.Errorf("syn of the entries: %d and %d, want 0 once it is established", f.Syn, r.Syn)
			}
		}
		c[ip.name+" of two SYN-ACKs the client's round trip is not known"] = func(l *lb) {
			c := begin(l, ip, unix.IPPROTO_TCP)
			c.open(false)
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromBackend(answer(c.protocol, c.backend, c.client))
			c.fromClient(establishing(c.protocol, c.client, c.vip), "forwarded flow_established")
			var rtt BlixtLatency
			l.must(l.ClientRtt.Lookup(uint32(0), &rtt))
			l.wantLatency("connect", l.refCounters(7).Connect, 1, 0)
			l.wantLatency("rtt", rtt, 0, 0)
		}
	}
	c.run(t)
}

// Each latency is in the slot that struct latency describes: flows whose SYN is put into the past.
func TestLatencySlots(t *testing.T) {
	l := newLB(t)
	ip := ipVersions[0]
	l.serve(ip, unix.IPPROTO_TCP, local)
	c := localFlow{l, ip, unix.IPPROTO_TCP, port(ip.vip, "80"), ip.local, ip.client}
	for power := range 32 {
		l.setRef(7)
		l.must(l.RefStats.Put(uint32(7), BlixtRefCounters{}))
		c.fromClient(opening(c.protocol, c.client, c.vip), "flow_new forwarded")
		m, f := l.flow(c.forward())
		past := uint32(1)<<power + uint32(1)<<power/4
		f.Syn -= past
		l.must(m.Put(keyOf(c.forward()), f))
		c.fromBackend(answer(c.protocol, c.backend, c.client))
		h := l.refCounters(7).Connect
		want := slotOf(uint32(h.Sum)) // the machine may be slow
		if got := h.Counts[want]; got != 1 || h.Sum < uint64(past) || h.Sum > uint64(past)+1<<24 {
			t.Errorf("%d units: slots %v, sum %d: want one in slot %d", past, h.Counts, h.Sum, want)
		}
		c.fromBackendCounting(c.reply().segment(rst|ack, 5001, 1001, ""), "replied flow_closed")
	}
}
