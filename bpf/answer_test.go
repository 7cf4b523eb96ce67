// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What limits.h allows one CPU to answer for each share: so many a second, and as many at once.
const answerBurst = 4000

// pin has packets pass through the program on that CPU alone until the test ends.
func (l *lb) pin(cpu int) {
	l.Helper()
	set := func(cpus *unix.CPUSet) {
		l.lab.do(func() { l.must(unix.SchedSetaffinity(0, cpus)) })
	}
	var all, one unix.CPUSet
	l.lab.do(func() { l.must(unix.SchedGetaffinity(0, &all)) })
	if runtime.NumCPU() <= cpu {
		l.Skip("kernel lacks: a second CPU")
	}
	one.Set(cpu)
	set(&one)
	l.Cleanup(func() { set(&all) })
}

// sendMany sends n packets one after the other, and returns what was counted and how long it took.
func (l *lb) sendMany(p packet, n int) (counts, time.Duration) {
	l.Helper()
	before, frame, began := l.counters(), p.bytes(), time.Now()
	for range n {
		_, _, err := l.run(hook{dev: outside}, frame, 0)
		l.must(err)
	}
	took := time.Since(began)
	return l.counters().minus(before), took
}

// exhaust sends more packets than are answered at once, and checks how many are.
func (l *lb) exhaust(p packet, counter string) {
	l.Helper()
	const sent = answerBurst + 2000
	c, took := l.sendMany(p, sent)
	most := answerBurst + answerBurst*(took+20*time.Millisecond)/time.Second
	if n := c[counter]; n < answerBurst || n > uint64(most) || n+c["drop_answer_limit"] != sent {
		l.Errorf("%d packets in %v: %v, want %d to %d of them to be %s, the rest drop_answer_limit", sent, took, c, answerBurst, most, counter)
	}
}

// spend leaves the share, on all CPUs, without answers for as long as a test takes.
func (l *lb) spend(share uint32) {
	l.Helper()
	var now unix.Timespec
	l.must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	full := make([]uint64, ebpf.MustPossibleCPU())
	for i := range full {
		full[i] = uint64(now.Nano()) + uint64(time.Hour)
	}
	l.must(l.AnswerBuckets.Put(share, full))
}

// Shares of ratelimit.h.
const (
	sharePings = iota
	shareUnserved
	shareDevices
	shareQuestions
	shareChallenges
	shareFrontends
)

// A flood is answered up to the limit of its share. It takes nothing from other shares.
func TestAnswerLimit(t *testing.T) {
	for _, ip := range ipVersions {
		// The same answers from frontends 0 to 5, from unserved ports and to pings.
		type kind struct {
			name, counter string
			share         uint32
			packet        packet
		}
		client, vip := ip.client, func(p string) string { return port(ip.vip, p) }
		big := establishing(unix.IPPROTO_UDP, client, vip("82")).withSize(1400)
		big.df = true
		answers := []kind{
			{"no backend", "reject_no_backend", shareFrontends, opening(unix.IPPROTO_TCP, client, vip("80"))},
			{"no backend of another frontend", "reject_no_backend", shareFrontends + 1, opening(unix.IPPROTO_TCP, client, vip("81"))},
			{"too big", "reject_too_big", shareFrontends + 2, big},
			{"unreachable", "reject_unreachable", shareFrontends + 3, udp(client, vip("83"))},
			{"hop limit", "reject_hop_limit", shareFrontends + 4, udp(client, vip("84")).withTTL(1)},
			{"unserved", "reject_unserved", shareUnserved, udp(client, vip("99"))},
			{"ping", "ping_answered", sharePings, echo(ap(client).Addr().String(), ip.vip)},
		}
		setup := func(t *testing.T) *lb {
			l := newLB(t)
			l.serve(ip, unix.IPPROTO_TCP)
			l.frontend(1, unix.IPPROTO_TCP, vip("81"))
			l.frontend(2, unix.IPPROTO_UDP, vip("82"), narrow)
			l.frontend(3, unix.IPPROTO_UDP, vip("83"), other)
			l.backend(other, map[string]string{"IPv4": "10.200.0.1:80", "IPv6": "[fd00:200::1]:80"}[ip.name])
			l.frontend(4, unix.IPPROTO_UDP, vip("84"), remote)
			return l
		}
		for i, flooded := range answers {
			t.Run(ip.name+" "+flooded.name, func(t *testing.T) {
				l := setup(t)
				l.spend(flooded.share)
				for j, other := range answers {
					want := other.counter
					if j == i {
						want = "drop_answer_limit"
					}
					if c, _ := l.sendMany(other.packet, 2); c[want] != 2 || j != i && c["drop_answer_limit"] != 0 {
						t.Errorf("%s: %v, want %s", other.name, c, want)
					}
				}
			})
		}
		t.Run(ip.name+" a flood is answered so far", func(t *testing.T) {
			l := setup(t)
			l.pin(0)
			l.exhaust(answers[0].packet, answers[0].counter)
		})
		t.Run(ip.name+" refills all the time, not each second", func(t *testing.T) {
			l := setup(t)
			l.pin(0)
			ping := answers[6]
			l.exhaust(ping.packet, ping.counter)
			for range 5 {
				before := time.Now()
				for limited := uint64(0); limited == 0; {
					before = time.Now()
					c, _ := l.sendMany(ping.packet, 100) // until what has come since is used up
					limited = c["drop_answer_limit"]
				}
				time.Sleep(50 * time.Millisecond)
				c, _ := l.sendMany(ping.packet, 600)
				took := time.Since(before)
				if n := c[ping.counter]; n < 150 || n > uint64(answerBurst*(took+20*time.Millisecond)/time.Second) {
					t.Errorf("%d answers in %v, want 4 for each ms", n, took)
				}
			}
		})
		t.Run(ip.name+" a scan of the usual 1,000 ports sees their state", func(t *testing.T) {
			l := setup(t)
			before := l.counters()
			for n := range 1000 {
				in := opening(unix.IPPROTO_TCP, client, vip("1"))
				in.dst = addrPort(in.dst.Addr(), 1000+n)
				_, _, err := l.run(hook{dev: outside}, in.bytes(), 0)
				l.must(err)
			}
			if got := l.counters().minus(before); got.String() != "reject_unserved=1000" {
				t.Errorf("counters %v", got)
			}
		})
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(ip.name+" "+protocolName(protocol)+" known flows are told at once", func(t *testing.T) {
				l := setup(t)
				l.frontend(5, protocol, vip("85"), narrow)
				in := opening(protocol, client, vip("85"))
				out := in.snat(ip.nodeIn, 0).to(ip.narrow).hop()
				l.ingress(outside, in).redirected(out, "flow_new forwarded")
				re := answer(protocol, ip.narrow, out.src.String())
				l.ingress(inside, re).redirected(re.from(vip("85")).to(client).hop(), "replied")
				in = establishing(protocol, client, vip("85"))
				l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.narrow).hop(), "forwarded"+andEstablished(protocol))
				l.spend(shareFrontends + 5)
				big := in.withSize(1400)
				big.df = true
				mtu := map[string]uint32{"IPv4": 1000, "IPv6": 1280}[ip.name]
				if protocol == unix.IPPROTO_UDP { // an answer to a datagram proves nothing about its source
					l.ingress(outside, big).dropped("drop_answer_limit")
					return
				}
				l.ingress(outside, big).redirected(big.tooBig(mtu), "reject_too_big")
				// Its packets may be as small as an attacker likes who makes it answer otherwise.
				l.ingress(outside, in.withTTL(1)).dropped("drop_answer_limit")
				// A flow that begins, with a source that may be forged, is not known yet.
				l.ingress(outside, big.from(port(ap(ip.client).Addr().Next().String(), "2"))).dropped("drop_answer_limit")
				if protocol == unix.IPPROTO_TCP {
					l.removeBackend(narrow)
					l.ingress(outside, in).redirected(in.rstAnswer(rst, in.ack, 0), "reject_backend_gone")
				}
			})
		}
	}
	t.Run("each CPU has its own", func(t *testing.T) {
		ip := ipVersions[0]
		l := newLB(t)
		l.serve(ip, unix.IPPROTO_TCP)
		in := opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "80"))
		l.pin(0)
		l.exhaust(in, "reject_no_backend")
		l.pin(1)
		l.exhaust(in, "reject_no_backend")
	})
	t.Run("a RST takes nothing", func(t *testing.T) {
		ip := ipVersions[0]
		l := newLB(t)
		l.serve(ip, unix.IPPROTO_TCP)
		l.pin(0)
		l.sendMany(tcp(ip.client, port(ip.vip, "81")).segment(rst, 77, 0, ""), answerBurst+100)
		l.exhaust(opening(unix.IPPROTO_TCP, ip.client, port(ip.vip, "81")), "reject_unserved")
	})
}
