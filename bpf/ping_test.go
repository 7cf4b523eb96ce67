// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// pingPieces are the fragments of an echo request, and those of its reply.
func pingPieces(request packet) (sent, want []packet) {
	request = request.withSize(2000)
	whole := request.echoReply()
	for _, p := range []piece{{from: 0, to: 800}, {from: 800, to: 1600}, {from: 1600}} {
		sent = append(sent, request.fragment(p.from, p.to))
		want = append(want, whole.fragment(p.from, p.to))
	}
	return sent, want
}

func TestPingInFragments(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		client := ap(ip.client).Addr().String()
		request := func() packet { return echo(client, ip.vip) }
		for name, order := range map[string][]int{
			"in order": {0, 1, 2}, "the last first": {2, 1, 0}, "the first in the middle": {1, 0, 2}, "the first last": {1, 2, 0},
		} {
			c[ip.name+" "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_TCP, local)
				for id := range 3 {
					in := request()
					in.id = 0x1234 + uint32(id)
					sent, want := pingPieces(in)
					for _, i := range order {
						l.ingress(outside, sent[i]).redirected(want[i], "ping_answered")
					}
				}
			}
		}
		c[ip.name+" from this host, and forwarded"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			sent, want := pingPieces(echo(ap(ip.host).Addr().String(), ip.vip))
			for i := range sent {
				l.egressHost(outside, sent[i]).redirected(want[i].keepMACs(), "ping_answered")
			}
			sent, want = pingPieces(echo(ap(ip.local).Addr().String(), ip.vip))
			for i := range sent {
				l.egressForwarded(pods, sent[i]).redirected(want[i], "ping_answered")
			}
		}
		// A forged fragment that two such hosts send to each other must not do so for ever.
		c[ip.name+" a later fragment is turned round once"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			sent, want := pingPieces(request())
			l.ingress(outside, sent[1]).redirected(want[1], "ping_answered")
			l.ingress(outside, sent[1]).dropped("drop_fragment")
			l.ingress(outside, sent[2]).redirected(want[2], "ping_answered")
			l.ingress(outside, sent[2]).dropped("drop_fragment")
			// The identification comes again, after more than the time in which fragments belong together.
			seen := map[BlixtIcmpFragment]uint32{}
			var key BlixtIcmpFragment
			var at uint32
			for all := l.IcmpFragments.Iterate(); all.Next(&key, &at); {
				seen[key] = at
			}
			for key, at := range seen {
				l.must(l.IcmpFragments.Put(key, at-60))
			}
			l.ingress(outside, sent[1]).redirected(want[1], "ping_answered")
			l.ingress(outside, sent[1]).dropped("drop_fragment")
		}
		c[ip.name+" other messages in fragments"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			in := request()
			in.icmpType = map[string]uint8{"IPv4": 0, "IPv6": 129}[ip.name]
			sent, _ := pingPieces(in)
			for _, p := range sent {
				l.ingress(outside, p).dropped("drop_fragment")
			}
			k := icmpKinds[ip.name][0]
			sent, _ = pingPieces(icmpError(client, ip.vip, k.kind, k.code, k.rest, tcp(port(ip.vip, "80"), ip.client), 0))
			for _, p := range sent {
				p.id = 99
				l.ingress(outside, p).dropped("drop_fragment")
			}
		}
		c[ip.name+" to a shared address"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			sent, _ := pingPieces(echo(client, ip.shared))
			for _, p := range sent {
				l.ingress(outside, p).untouched("not_ours")
			}
		}
		c[ip.name+" beyond the limit"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.spend(sharePings)
			sent, _ := pingPieces(request())
			for _, p := range sent {
				l.ingress(outside, p).dropped("drop_answer_limit")
			}
		}
		c[ip.name+" while draining"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.config(BlixtConfigFlagCONFIG_DRAIN)
			sent, _ := pingPieces(request())
			for _, p := range sent {
				l.ingress(outside, p).untouched("drained")
			}
		}
	}
	c.run(t)
}
