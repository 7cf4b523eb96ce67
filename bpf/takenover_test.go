// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestTupleOfAnother is about a flow of which the table has evicted the reply entry, and
// whose tuple has gone to another client since: neither may its packets be sent with that
// tuple, nor its end take the other's entry away.
func TestTupleOfAnother(t *testing.T) {
	mark := func(l *lb, p packet, flags BlixtFlowFlag) {
		l.Helper()
		m, f := l.flow(p)
		f.Flags |= uint32(flags)
		l.must(m.Put(keyOf(p), f))
		l.forgetKept()
	}
	c := cases{}
	for name, end := range map[string]func(l *lb, forward packet){
		"goes on":      func(l *lb, forward packet) { l.age(forward, 1) },
		"has expired":  func(l *lb, forward packet) { l.age(forward, idleTicks+2) },
		"has closed":   func(l *lb, forward packet) { l.age(forward, 1); mark(l, forward, BlixtFlowFlagFLOW_CLOSED) },
		"had answered": func(l *lb, forward packet) { l.age(forward, 1); mark(l, forward, BlixtFlowFlagFLOW_ANSWERED) },
	} {
		forEachProtocol(c, "the flow "+name, func(l *lb, ip ipVersion, proto uint8) {
			l.serve(ip, proto, remote)
			l.must(l.BlixtLayout2.Put(uint32(0), BlixtConfig{SnatMin: snatMin, SnatMax: snatMin}))
			vip, source := port(ip.vip, "80"), addrPort(netip.MustParseAddr(ip.nodeIn), snatMin).String()
			table := map[uint8]*ebpf.Map{unix.IPPROTO_TCP: l.NewFlows, unix.IPPROTO_UDP: l.UdpFlows}[proto]
			first := opening(proto, ip.client, vip)
			l.ingress(outside, first).redirected(first.from(source).to(ip.remote).hop(), "flow_new forwarded")
			re := answer(proto, ip.remote, source)
			l.must(table.Delete(keyOf(re))) // evicted

			second := opening(proto, addrPort(ap(ip.client).Addr(), 50001).String(), vip)
			l.ingress(outside, second).redirected(second.from(source).to(ip.remote).hop(), "flow_new forwarded")
			l.ingress(inside, re).redirected(re.from(vip).to(second.src.String()).hop(), "replied")
			on := establishing(proto, second.src.String(), vip)
			l.ingress(outside, on).redirected(on.from(source).to(ip.remote).hop(), "forwarded"+andEstablished(proto))

			end(l, first)
			if n := l.ingress(outside, first).counts; n["forwarded"] != 0 || n["reject_ports_exhausted"] != 1 {
				l.Errorf("the packet leaves with the tuple of another client's flow: %v", n)
			}
			later := continuing(proto, ip.remote, source)
			l.ingress(inside, later).redirected(later.from(vip).to(second.src.String()).hop(), "replied")
			l.ingress(outside, on).redirected(on.from(source).to(ip.remote).hop(), "forwarded")
		})
	}
	c.run(t)
}
