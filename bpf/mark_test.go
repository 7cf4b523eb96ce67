// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A redirected packet is seen again at the hook by which it leaves, which must
// leave it alone. A test run that repeats passes the redirected packet to the
// program again: the same, where both hooks look alike.
func TestRedirectedPacketIsLeftAlone(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "out by the device that it came in by", func(l *lb, ip ipVersion, proto uint8) {
		near := port(netip.MustParseAddr(ip.nodeOut).Next().String(), "8080") // in the network of the clients' router
		l.serve(ip, proto, other)
		l.backend(other, near)
		l.repeat = 2
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeOut, 0).to(near).hop()
		l.ingress(outside, in).redirectedOnce(out, "flow_new forwarded")
		re := answer(proto, out.dst.String(), out.src.String())
		l.ingress(outside, re).redirectedOnce(re.from(port(ip.vip, "80")).to(ip.client).hop(), "replied")
	})
	forEachProtocol(c, "from a socket of this host", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto, remote)
		in := opening(proto, ip.host, port(ip.vip, "80"))
		l.repeat = 3 // a second program of ours may see it at the hook by which it leaves
		l.egressHost(outside, in).redirectedOnce(in.snat(ip.nodeIn, 0).to(ip.remote), "flow_new forwarded")
	})
	forEachProtocol(c, "answers to a client", func(l *lb, ip ipVersion, proto uint8) {
		l.serve(ip, proto)
		l.repeat = 2
		in := opening(proto, ip.client, port(ip.vip, "81"))
		r := l.ingress(outside, in)
		if proto == unix.IPPROTO_TCP {
			r.redirectedOnce(in.rstAnswer(rst|ack, 0, 1001), "reject_unserved")
		} else {
			r.redirectedOnce(in.portUnreachable(), "reject_unserved")
		}
		in = echo(ap(ip.client).Addr().String(), ip.vip)
		l.ingress(outside, in).redirectedOnce(in.echoReply(), "ping_answered")
	})
	c.run(t)
}

// redirectedOnce: translated into want and redirected, then left alone.
func (r *result) redirectedOnce(want packet, counters string) {
	r.l.Helper()
	r.routed = true
	r.wantVerdict(tcxNext, counters)
	r.wantPacket(want)
}
