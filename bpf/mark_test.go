// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A packet that is redirected meets the hook that it leaves by, which must
// leave it alone. Running the program again on what it has redirected is just
// that where both hooks look the same.
func TestRedirectedPacketIsLeftAlone(t *testing.T) {
	c := cases{}
	everywhere(c, "out by the device that it came in by", func(l *lb, w world, proto uint8) {
		near := port(netip.MustParseAddr(w.nodeOut).Next().String(), "8080") // beside the router of the clients
		l.serve(w, proto, other)
		l.backend(other, near)
		l.repeat = 2
		in := opening(proto, w.client, port(w.vip, "80"))
		out := in.snat(w.nodeOut, 0).to(near).hop()
		l.ingress(outside, in).redirectedAndPassed(out, "flow_new forwarded")
		re := answer(proto, out.dst.String(), out.src.String())
		l.ingress(outside, re).redirectedAndPassed(re.from(port(w.vip, "80")).to(w.client).hop(), "replied")
	})
	everywhere(c, "from a socket of this host", func(l *lb, w world, proto uint8) {
		l.serve(w, proto, remote)
		in := opening(proto, w.host, port(w.vip, "80"))
		l.repeat = 3 // where it leaves, another program of ours may be in line
		l.host(outside, in).redirectedAndPassed(in.snat(w.nodeIn, 0).to(w.remote), "flow_new forwarded")
	})
	everywhere(c, "back to a client without a backend", func(l *lb, w world, proto uint8) {
		l.serve(w, proto)
		l.repeat = 2
		in := opening(proto, w.client, port(w.vip, "81"))
		r := l.ingress(outside, in)
		if proto == unix.IPPROTO_TCP {
			r.redirectedAndPassed(in.refused(rst|ack, 0, 1001), "reject_unserved")
		} else {
			r.redirectedAndPassed(in.unreachable(), "reject_unserved")
		}
		in = echo(ap(w.client).Addr().String(), w.vip)
		l.ingress(outside, in).redirectedAndPassed(in.pong(), "ping_answered")
	})
	c.run(t)
}

// redirectedAndPassed: what redirected is, and then left alone.
func (r *result) redirectedAndPassed(want packet, counters string) {
	r.l.Helper()
	r.routed = true
	r.check(tcxNext, counters)
	r.becomes(want)
}
