// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestSilentNeighbour: a next hop whose hardware address stays unknown is reported to the
// client after two ticks, but now and then a packet has the kernel ask for it again, and
// each flow's first one does.
func TestSilentNeighbour(t *testing.T) {
	c := cases{}
	for _, ip := range ipVersions {
		c[ip.name] = func(l *lb) {
			l.serve(ip, unix.IPPROTO_UDP, remote)
			none := make([]uint64, ebpf.MustPossibleCPU())
			l.must(l.LinkPackets.Put(uint32(2), none)) // the program is not attached to lo,
			l.must(l.LinkPackets.Put(uint32(3), none)) // whose index is 1
			in := opening(unix.IPPROTO_UDP, ip.client, port(ip.vip, "80"))
			sent := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
			// ago moves what is known of the next hop into the past.
			ago := func(ticks uint32) {
				var hop BlixtNextHop
				var s BlixtSilence
				l.must(l.SilentNeighbours.NextKey(nil, &hop))
				l.must(l.SilentNeighbours.Lookup(hop, &s))
				s.First, s.Last, s.Asked = s.First-ticks, s.Last-ticks, s.Asked-ticks
				l.must(l.SilentNeighbours.Put(hop, s))
				l.age(in, 1)
			}
			l.ingress(outside, in).redirected(sent, "flow_new forwarded")
			l.ingress(outside, in).redirected(sent, "forwarded")
			ago(2)
			l.ingress(outside, in).redirected(in.unreachable(1, 3), "reject_unreachable")
			ago(4)
			l.ingress(outside, in).redirected(sent, "forwarded") // the kernel asks again
			l.age(in, 1)
			l.ingress(outside, in).redirected(in.unreachable(1, 3), "reject_unreachable")
			ago(20)
			l.ingress(outside, in).redirected(sent, "forwarded") // long ago: it has time to answer again
			l.ingress(outside, in).redirected(sent, "forwarded")
			ago(4)
			second := in.from(addrPort(ap(ip.client).Addr(), 50001).String())
			l.ingress(outside, second).redirected(second.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded") // nobody knows that it is still silent
			l.age(second, 1)
			l.ingress(outside, second).redirected(second.unreachable(1, 3), "reject_unreachable")
			ago(4)
			hop := ap(ip.remote).Addr().String()
			l.knows(inside, hop, farMAC, unix.NUD_PERMANENT)
			l.ingress(outside, in).redirected(sent, "forwarded")
			l.forgets(inside, hop)
			l.age(in, 1)
			l.ingress(outside, in).redirected(sent, "forwarded") // it has answered since
		}
	}
	c.run(t)
}
