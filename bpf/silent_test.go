// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestSilentNeighbour: a next hop whose hardware address stays unknown is reported to the
// client after two ticks, but now and then a packet has the kernel ask for it again.
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
		}
	}
	c.run(t)
}
