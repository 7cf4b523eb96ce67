// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"
)

// setServing changes whether the local backend serves.
func (l *lb) setServing(serves bool) {
	l.Helper()
	var b BlixtBackend
	l.must(l.Backends.Lookup(uint32(local), &b))
	b.Flags &^= uint16(BlixtBackendFlagBACKEND_NOT_SERVING)
	if !serves {
		b.Flags |= uint16(BlixtBackendFlagBACKEND_NOT_SERVING)
	}
	l.must(l.Backends.Put(uint32(local), b))
}

func TestBackendThatDoesNotServe(t *testing.T) {
	c := cases{}
	forEachProtocol(c, "with another in the ring: UDP flows move, TCP flows stay", func(l *lb, ip ipVersion, proto uint8) {
		for _, established := range []bool{false, true} {
			l.clear()
			l.config(0)
			l.serve(ip, proto, local)
			c := l.openFlow(ip, proto, established)
			l.publish(0, remote)
			l.setServing(false)
			c.fromBackend(c.reply().segment(ack, 5001, 1001, "an answer is still translated"))
			in := c.clientPacket(ack|psh, 1001, 5001, "who serves me?")
			if proto == unix.IPPROTO_TCP {
				l.ingress(outside, in).toStack(in.to(ip.local), map[bool]string{true: "forwarded", false: "forwarded flow_established"}[established])
				continue
			}
			l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "flow_new forwarded")
			l.wantTable(c.reply(), "tombstone")
			l.ingress(outside, in).redirected(in.snat(ip.nodeIn, 0).to(ip.remote).hop(), "forwarded")
		}
	})
	for _, ip := range ipVersions {
		udpCase := func(name string, run func(c localFlow)) {
			c[ip.name+" UDP "+name] = func(l *lb) {
				l.serve(ip, unix.IPPROTO_UDP, local)
				run(l.openFlow(ip, unix.IPPROTO_UDP, true))
			}
		}
		stays := func(c localFlow) {
			c.Helper()
			c.fromClient(c.clientPacket(0, 0, 0, "still here"), "forwarded")
		}
		udpCase("that is still in the ring keeps its flows", func(c localFlow) {
			c.setServing(false)
			stays(c)
		})
		udpCase("with none in the ring keeps its flows", func(c localFlow) {
			c.setServing(false)
			c.publish(0)
			stays(c)
			c.publish(0, uint32(BlixtBackendIdBACKEND_REJECT))
			stays(c)
		})
		udpCase("and then serves again keeps its flows", func(c localFlow) {
			c.publish(0, remote)
			c.setServing(false)
			c.setServing(true)
			stays(c)
		})
		udpCase("leaves its flows to the next program while this one drains", func(c localFlow) {
			c.publish(0, remote)
			c.setServing(false)
			c.config(BlixtConfigFlagCONFIG_DRAIN)
			c.ingress(outside, c.forward()).untouched("drained")
			c.wantTable(c.forward(), "none")
		})
		udpCase("of which a fragmented datagram moves as a whole", func(c localFlow) {
			whole := c.forward().withSize(1000)
			c.publish(0, remote)
			first, later := whole.fragment(0, 504), whole.fragment(504, 0)
			c.fromClient(first, "forwarded") // remembered
			c.setServing(false)
			c.fromClient(later, "forwarded")
			c.ingress(outside, first).redirected(first.snat(c.ip.nodeIn, 0).to(c.ip.remote).hop(), "flow_new forwarded")
			c.ingress(outside, later).redirected(later.snat(c.ip.nodeIn, 0).to(c.ip.remote).hop(), "forwarded")
		})
	}
	c.run(t)
}
