// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A SYN that is repeated unanswered leaves from another port: whoever gets the
// answers to the first one, the client does not.
func TestRepeatedSYNTriesAnotherPort(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		vip := port(ip.vip, "80")
		in := opening(unix.IPPROTO_TCP, ip.client, vip)
		first := in.snat(ip.nodeIn, 0).src
		begin := func(l *lb) (second packet) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			l.ingress(outside, in).redirected(in.from(first.String()).to(ip.remote).hop(), "flow_new forwarded")
			l.age(in, 1)
			r := l.ingress(outside, in)
			r.wantVerdict(redirect, "forwarded flow_port_changed")
			_, f := l.flow(in)
			second = in.from(addrPort(first.Addr(), int(htons(f.Sport))).String()).to(ip.remote)
			if second.src == first {
				l.Fatalf("the SYN leaves from port %d again", first.Port())
			}
			r.redirected(second.hop(), "forwarded flow_port_changed")
			return second
		}
		c[ip.name+" and is answered there"] = func(l *lb) {
			second := begin(l)
			re := answer(unix.IPPROTO_TCP, ip.remote, second.src.String())
			l.ingress(inside, answer(unix.IPPROTO_TCP, ip.remote, first.String())).untouched("not_ours")
			l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
			on := establishing(unix.IPPROTO_TCP, ip.client, vip)
			l.ingress(outside, on).redirected(on.from(second.src.String()).to(ip.remote).hop(), "forwarded flow_established")
		}
		c[ip.name+" once it is answered the port stays"] = func(l *lb) {
			second := begin(l)
			re := answer(unix.IPPROTO_TCP, ip.remote, second.src.String())
			l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
			l.age(in, 3)
			l.ingress(outside, in).redirected(second.hop(), "forwarded")
		}
		c[ip.name+" without another port it stays"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			l.ports(snatMin, snatMin)
			out := in.from(port(ip.nodeIn, "30000")).to(ip.remote).hop()
			l.ingress(outside, in).redirected(out, "flow_new forwarded")
			l.age(in, 1)
			l.ingress(outside, in).redirected(out, "forwarded")
			re := answer(unix.IPPROTO_TCP, ip.remote, port(ip.nodeIn, "30000"))
			l.ingress(inside, re).redirected(re.from(vip).to(ip.client).hop(), "replied")
		}
		c[ip.name+" it takes another in every tick"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, remote)
			// Orders of ports that differ by the tick are the same for one of these ranges in most ticks.
			for ports := 2; ports <= 13; ports++ {
				in := in.from(addrPort(in.src.Addr(), int(in.src.Port())+ports).String())
				l.ports(snatMin, snatMin+uint16(ports)-1)
				l.ingress(outside, in).wantVerdict(redirect, "flow_new forwarded")
				l.age(in, 1)
				l.ingress(outside, in).wantVerdict(redirect, "forwarded flow_port_changed")
			}
		}
		c[ip.name+" a local backend sees the client's port"] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_TCP, local)
			l.ingress(outside, in).toStack(in.to(ip.local), "flow_new forwarded")
			l.age(in, 1)
			l.ingress(outside, in).toStack(in.to(ip.local), "forwarded")
		}
	}
	c.run(t)
}
