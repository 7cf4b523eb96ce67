// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// How long a port of an announced UDP flow is not given to another one, in ticks.
const quietTicks = 34

// TestQuarantine is about the ports of announced UDP flows that A has evicted.
func TestQuarantine(t *testing.T) {
	c := nodeCases{}
	c.each("a port is quiet before another client gets it", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		f := n.a.ingress(outside, in).message()
		evict := func() { deleteAll[BlixtFlowKey, BlixtFlow](n.a, n.a.UdpFlows) }
		// Another client whose first choice is the same port.
		var second packet
		for i := 0; second.snat(ip.nodeIn, 0).src.Port() != f.Src.Port(); i++ {
			second = opening(proto, addrPort(ap(ip.client).Addr(), 10000+i).String(), port(ip.vip, "80"))
		}
		evict()
		if got := n.a.ingress(outside, second).message().Src; got == f.Src {
			n.Errorf("another client gets the port %v just after the first one was announced", got)
		}
		// As old as that it may be used again.
		evict()
		n.a.announcedAgo(quietTicks + 2)
		if got := n.a.ingress(outside, second).message().Src; got != f.Src {
			n.Errorf("another client gets the port %v after %d ticks, want its first choice %v", got, quietTicks+2, f.Src)
		}
		evict()
		n.a.announcedAgo(quietTicks - 3)
		if got := n.a.ingress(outside, second).message().Src; got == f.Src {
			n.Errorf("another client gets the port %v after %d ticks", got, quietTicks-3)
		}
	}, unix.IPPROTO_UDP)
	c.each("where no port is quiet, one is used all the same", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		n.a.ports(30000, 30002)
		for i := range 50 {
			in := opening(proto, nthClient(ip, i), port(ip.vip, "80"))
			r := n.a.ingress(outside, in)
			if r.counts["flow_new"] != 1 || r.counts["announced"] != 1 {
				n.Fatalf("client %d: counters %v, want a new flow that is announced", i, r.counts)
			}
			deleteAll[BlixtFlowKey, BlixtFlow](n.a, n.a.UdpFlows)
		}
	}, unix.IPPROTO_UDP)
	c.each("flows of all clients have ports of their own", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		ports := map[uint16]bool{}
		for i := range snatMax - snatMin + 1 {
			ports[n.a.ingress(outside, opening(proto, nthClient(ip, i), port(ip.vip, "80"))).message().Src.Port()] = true
		}
		if len(ports) != snatMax-snatMin+1 {
			n.Errorf("%d clients have %d ports", snatMax-snatMin+1, len(ports))
		}
	}, unix.IPPROTO_UDP)
	c.run(t)
}

// announcedAgo has all messages about UDP flows be so many ticks old.
func (l *lb) announcedAgo(ticks uint32) {
	l.Helper()
	memory := l.memory(l.AnnouncedUdp)
	now := l.tick() - ticks
	for i := 0; i < len(memory); i += 8 {
		if memory[i]|memory[i+1]|memory[i+2]|memory[i+3] != 0 {
			memory[i], memory[i+1], memory[i+2], memory[i+3] = byte(now), byte(now>>8), byte(now>>16), byte(now>>24)
		}
	}
}
