// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

const aSecond = 1 << 20 // in the unit of answer_within

// judge has it counted how flows of the backend begin.
func (l *lb) judge(id uint32) {
	l.Helper()
	l.must(l.BackendHealth.Put(id, BlixtHealth{AnswerWithin: aSecond}))
	l.flag(id, BlixtBackendFlagBACKEND_JUDGED)
}

func (l *lb) health(id uint32) (h BlixtHealth) {
	l.Helper()
	l.must(l.BackendHealth.Lookup(id, &h))
	return h
}

// wantHealth wants these counts of the local backend.
func (l *lb) wantHealth(answers, failures, unanswered, consecutive uint32) {
	l.Helper()
	h := l.health(local)
	if h.Answers != answers || h.Failures != failures || h.Unanswered != unanswered || h.Consecutive != consecutive {
		l.Errorf("%d answers, %d failures, %d by silence, %d consecutive; want %d, %d, %d, %d", h.Answers, h.Failures, h.Unanswered, h.Consecutive, answers, failures, unanswered, consecutive)
	}
}

// refusal is a port unreachable of the local backend about the first packet of the flow.
func (c localFlow) refusal() packet {
	kind := icmpKinds[c.ip.name][0]
	return icmpError(ap(c.backend).Addr().String(), ap(c.client).Addr().String(), kind.kind, kind.code, 0, withLostHops(opening(c.protocol, c.client, c.backend)), 0)
}

// repeatSYN sends the client's SYN again, so many units of time after the first one.
func (c localFlow) repeatSYN(units uint32) {
	c.Helper()
	m, f := c.flow(c.forward())
	f.Syn -= units
	c.must(m.Put(keyOf(c.forward()), f))
	c.fromClient(opening(c.protocol, c.client, c.vip), "forwarded")
}

// forgetFlows empties the tables of flows that may be evicted.
func (l *lb) forgetFlows() {
	l.Helper()
	deleteAll[BlixtFlowKey, BlixtFlow](l, l.NewFlows)
	deleteAll[BlixtFlowKey, BlixtFlow](l, l.UdpFlows)
}

// of returns the flow as another client has it.
func (c localFlow) of(client string) localFlow {
	c.client = client
	return c
}

func TestHealthOfBackends(t *testing.T) {
	c := cases{}
	begin := func(l *lb, ip ipVersion, protocol uint8) localFlow {
		l.serve(ip, protocol, local)
		l.judge(local)
		return localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, ip.client}
	}
	forEachProtocol(c, "an answer counts once, and ends a row of failures", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		l.must(l.BackendHealth.Put(uint32(local), BlixtHealth{Consecutive: 4, Failures: 9, Prefix: 3, Others: 1}))
		f.open(true)
		f.fromBackend(continuing(protocol, f.backend, f.client))
		if h := l.health(local); h != (BlixtHealth{Failures: 9, Answers: 1}) {
			l.Errorf("%+v, want 9 failures and 1 answer", h)
		}
	})
	forEachProtocol(c, "an ICMP error counts once", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		f.open(false)
		for range 3 {
			f.egressForwarded(pods, f.refusal()).wantCounts("icmp_replied")
			l.wantHealth(0, 1, 0, 1)
		}
	})
	forEachProtocol(c, "an ICMP error that comes in elsewhere than the backend's answers is no failure", func(l *lb, ip ipVersion, protocol uint8) {
		l.serve(ip, protocol, remote)
		l.judge(remote)
		in := opening(protocol, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		l.ingress(outside, in).redirected(out, "flow_new forwarded")
		kind := icmpKinds[ip.name][0]
		refusal := icmpError(ap(ip.remote).Addr().String(), out.src.Addr().String(), kind.kind, kind.code, 0, withLostHops(out), 0)
		for _, from := range []struct {
			dev      string
			failures uint32
		}{{outside, 0}, {inside, 1}, {inside, 1}} {
			l.ingress(from.dev, refusal).wantCounts("icmp_replied")
			if h := l.health(remote); h.Failures != from.failures {
				l.Errorf("by %s: %d failures, want %d", from.dev, h.Failures, from.failures)
			}
		}
	})
	forEachProtocol(c, "an ICMP error behind an answer is none of the beginning", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		f.open(true)
		f.egressForwarded(pods, f.refusal()).wantCounts("icmp_replied")
		l.wantHealth(1, 0, 0, 0)
	})
	forEachProtocol(c, "of a range, only the backend's own port is judged", func(l *lb, ip ipVersion, protocol uint8) {
		l.serveRange(ip, protocol, shiftPort, local)
		l.judge(local)
		fail := func(p int) {
			f := localFlow{l, ip, protocol, port(ip.vip, fmt.Sprint(p)), at(ip.local, p-10000+8080), ip.client}
			f.open(false)
			if protocol == unix.IPPROTO_TCP {
				f.repeatSYN(aSecond)
				f.fromBackendCounting(f.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			}
			f.of(at(ip.client, 40007)).open(false)
			f.of(at(ip.client, 40007)).egressForwarded(pods, f.of(at(ip.client, 40007)).refusal()).wantCounts("icmp_replied")
		}
		fail(10001)
		fail(15000)
		l.wantHealth(0, 0, 0, 0)
		fail(10000)
		if protocol == unix.IPPROTO_TCP {
			l.wantHealth(0, 2, 1, 2)
		} else {
			l.wantHealth(0, 1, 0, 1)
		}
		f := localFlow{l, ip, protocol, port(ip.vip, "15000"), at(ip.local, 13080), at(ip.client, 40009)}
		f.open(true) // who answers at any port is alive
		if h := l.health(local); h.Answers != 1 || h.Consecutive != 0 {
			l.Errorf("%+v, want an answer", h)
		}
	})
	forEachProtocol(c, "who is not judged is not counted", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		l.backend(local, ip.local)
		f.open(false)
		f.egressForwarded(pods, f.refusal()).wantCounts("icmp_replied")
		if protocol == unix.IPPROTO_TCP {
			f.repeatSYN(10 * aSecond)
		}
		f.fromBackend(answer(protocol, f.backend, f.client))
		l.wantHealth(0, 0, 0, 0)
	})
	forEachProtocol(c, "an id that another backend has by now", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		f.open(false)
		l.removeBackend(local)
		l.removeBackend(local)
		l.egressForwarded(pods, f.refusal())
		l.egressForwarded(pods, answer(protocol, f.backend, f.client))
		l.wantHealth(0, 0, 0, 0)
	})
	for _, ip := range ipVersions {
		c[ip.name+" UDP that is never answered is no failure"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_UDP)
			f.open(false)
			for range 100 {
				f.fromClient(f.forward(), "forwarded")
			}
			l.wantHealth(0, 0, 0, 0)
		}
		c[ip.name+" a RST counts, and with an ICMP error before it once"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_TCP)
			f.open(false)
			f.egressForwarded(pods, f.refusal()).wantCounts("icmp_replied")
			f.fromBackendCounting(f.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			l.wantHealth(0, 1, 0, 1)
			f.open(false)
			f.fromBackendCounting(f.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			l.wantHealth(0, 2, 0, 2)
		}
		c[ip.name+" a SYN counts that is repeated after the time for an answer"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_TCP)
			f.open(false)
			f.repeatSYN(aSecond / 2)
			l.wantHealth(0, 0, 0, 0)
			for range 3 {
				f.repeatSYN(aSecond)
				l.wantHealth(0, 1, 1, 1)
			}
			f.fromBackend(answer(f.protocol, f.backend, f.client)) // late
			l.wantHealth(1, 1, 1, 0)
		}
		c[ip.name+" a forged RST is no failure"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_TCP)
			f.open(false)
			f.fromBackendCounting(f.reply().segment(rst|ack, 0, 77, ""), "replied")
			f.fromBackendCounting(f.reply().segment(rst, 1001, 0, ""), "replied")
			l.wantHealth(0, 0, 0, 0)
		}
		c[ip.name+" failures of two prefixes are told from those of one"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_TCP)
			near, far := "198.51.100.99:40000", "198.51.101.7:40000"
			if ip.name == "IPv6" {
				near, far = "[2001:db8:c:0:ffff::99]:40000", "[2001:db8:c:1::7]:40000"
			}
			fail := func(client string) {
				g := f.of(client)
				g.open(false)
				g.fromBackendCounting(g.reply().segment(rst|ack, 0, 1001, ""), "replied flow_closed")
			}
			fail(ip.client)
			fail(near)
			if h := l.health(local); h.Others != 0 || h.Prefix == 0 {
				l.Errorf("%+v, want one prefix", h)
			}
			fail(far)
			if h := l.health(local); h.Others != 1 || h.Consecutive != 3 {
				l.Errorf("%+v, want another prefix", h)
			}
		}
	}
	c.run(t)
}

func TestBackendOnTrial(t *testing.T) {
	c := cases{}
	const healthy = 9 // a backend beside the local one
	begin := func(l *lb, ip ipVersion, protocol uint8) localFlow {
		l.serve(ip, protocol, local, healthy)
		l.backend(healthy, addrPort(ap(ip.local).Addr().Next(), 8080).String())
		l.judge(local)
		l.flag(local, BlixtBackendFlagBACKEND_TRIAL)
		return localFlow{l, ip, protocol, port(ip.vip, "80"), ip.local, ip.client}
	}
	// spread begins n flows, and returns how many the local backend has got.
	spread := func(f localFlow, n int) (got int) {
		f.Helper()
		for i := range n {
			client := addrPort(ap(f.ip.client).Addr(), 20000+i).String()
			r := f.ingress(outside, opening(f.protocol, client, f.vip))
			r.wantCounts("flow_new forwarded")
			if _, e := f.flow(proto(f.protocol, client, f.vip)); e.Backend == local {
				got++
			}
		}
		return got
	}
	forEachProtocol(c, "gets one flow, until that is answered", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		if got := spread(f, 40); got != 1 {
			l.Errorf("the backend on trial has got %d flows, want 1", got)
		}
		for i := range 40 {
			f.client = addrPort(ap(ip.client).Addr(), 20000+i).String()
			if _, e := l.flow(f.forward()); e.Backend == local {
				f.fromBackend(answer(protocol, f.backend, f.client))
			}
		}
		l.wantHealth(1, 0, 0, 0)
		if h := l.health(local); h.Trial != 0 {
			l.Errorf("trial is %d behind the answer, want 0", h.Trial)
		}
		l.forgetFlows()
		if got := spread(f, 40); got != 1 {
			l.Errorf("then it has got %d flows more, want 1", got)
		}
	})
	forEachProtocol(c, "gets the next one after a time", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		spread(f, 40)
		h := l.health(local)
		h.Trial -= 5
		l.must(l.BackendHealth.Put(uint32(local), h))
		l.forgetFlows()
		if got := spread(f, 40); got != 1 {
			l.Errorf("the backend on trial has got %d flows, want 1", got)
		}
	})
	forEachProtocol(c, "that is the only one gets all", func(l *lb, ip ipVersion, protocol uint8) {
		f := begin(l, ip, protocol)
		l.flag(healthy, BlixtBackendFlagBACKEND_TRIAL)
		if got := spread(f, 40); got == 0 || got == 40 {
			l.Errorf("the local backend has got %d of 40 flows, want its slots", got)
		}
	})
	for _, ip := range ipVersions {
		c[ip.name+" a SYN that it does not answer goes elsewhere when it is repeated"] = func(l *lb) {
			f := begin(l, ip, unix.IPPROTO_TCP)
			spread(f, 40)
			for i := range 40 {
				f.client = addrPort(ap(ip.client).Addr(), 20000+i).String()
				if _, e := l.flow(f.forward()); e.Backend == local {
					m, e := l.flow(f.forward())
					e.Syn -= 3 << 20
					l.must(m.Put(keyOf(f.forward()), e))
					l.ingress(outside, opening(f.protocol, f.client, f.vip)).wantCounts("flow_new forwarded")
					if _, e := l.flow(f.forward()); e.Backend != healthy {
						l.Errorf("the flow has backend %d, want the other one", e.Backend)
					}
				}
			}
			l.wantHealth(0, 1, 1, 1)
		}
	}
	c.run(t)
}
