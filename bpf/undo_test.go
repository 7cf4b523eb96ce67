// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// An undoneFlow is a flow of a client's as node B sees it: A has translated its source.
type undoneFlow struct {
	*nodes
	ip       ipVersion
	protocol uint8
	client   string
	source   string // what A has translated the client to
	peer     string // A's address
}

// A port of A's.
const sourcePort = "30007"

func (n *nodes) flowFromA(ip ipVersion, protocol uint8, client string) undoneFlow {
	return undoneFlow{n, ip, protocol, client, port(ip.nodeIn, sourcePort), ip.nodeIn}
}

// delivered is a packet of the client's as the pod gets it.
func (f undoneFlow) delivered(p packet) packet {
	return p.from(f.client).to(f.ip.remote).withoutMessage()
}

func (p packet) withoutMessage() packet { p.tail = nil; return p }

func (f undoneFlow) opening() packet      { return opening(f.protocol, f.source, f.ip.remote) }
func (f undoneFlow) establishing() packet { return establishing(f.protocol, f.source, f.ip.remote) }

// message is A's about the flow.
func (f undoneFlow) message() announce.Message { return about(f.client) }

// fromA sends a packet to B by the device of the nodes.
func (f undoneFlow) fromA(p packet) *result { f.Helper(); return f.b.ingress(inside, p) }

// reply sends a packet of the pod's, at egress of the device that leads to the client, and checks that A gets it.
func (f undoneFlow) reply(dev string, p packet) {
	f.Helper()
	p = p.from(f.ip.remote).to(f.client)
	f.b.ingress(pods, p).untouched("not_ours") // before conntrack has seen it
	f.b.egressTo(dev, pods, p).redirected(p.to(f.source), "undone")
}

// opens announces the flow, of a client that is reached by the device of the nodes.
func (f undoneFlow) opens() undoneFlow {
	f.Helper()
	in := f.opening()
	f.fromA(in.within(f.message(), keyOfCluster)).toStack(f.delivered(in), "flow_undone undone")
	return f
}

// isUndone reports whether B knows the flow's client.
func (f undoneFlow) wantUndone(want bool) {
	f.Helper()
	_, e := f.b.flow(f.opening())
	undone := BlixtFlowFlag(e.Flags)&BlixtFlowFlagFLOW_UNDONE != 0
	if undone != want {
		f.Errorf("the flow is undone: %t, want %t (flags %#x)", undone, want, e.Flags)
	}
	if client := addrOf(ap(f.client).Addr()); undone && (e.Src != client || e.Sport != htons(ap(f.client).Port())) {
		f.Errorf("the flow's client is %v port %d, want %s", e.Src, htons(e.Sport), f.client)
	}
}

func TestUndo(t *testing.T) {
	c := nodeCases{}
	c.each("the pod sees its client, and A the pod", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		f.wantUndone(true)
		f.reply(inside, answer(proto, ip.remote, ip.client))
		in := f.establishing()
		f.fromA(in).toStack(f.delivered(in), "undone"+andEstablished(proto))
		f.fromA(in).toStack(f.delivered(in), "undone")
		f.reply(inside, continuing(proto, ip.remote, ip.client))
		p := n.b.peerOf(ip.nodeIn)
		if p.Undone != 1 || p.Boot != bootOfA || p.Heard != 1 {
			n.Errorf("of the peer is known %+v, want 1 flow undone, boot %d, heard 1", p, bootOfA)
		}
	})
	c.each("a client behind another device: packets come in again there", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, farClient[ip.name])
		in := f.opening()
		r := f.fromA(in.within(f.message(), keyOfCluster))
		r.wantVerdict(redirect, "flow_undone undone")
		f.wantUndone(true)
		f.reply(outside, answer(proto, ip.remote, f.client))
	})
	for name, client := range map[string]map[string]string{"a pod of B": podClient, "B itself": hostClient, "behind a device without the program": strayClient} {
		c.each("not of a client that is "+name, func(n *nodes, ip ipVersion, proto uint8) {
			f := n.flowFromA(ip, proto, client[ip.name])
			in := f.opening()
			f.fromA(in.within(f.message(), keyOfCluster)).toStack(in, "flow_plain undo_impossible")
			f.wantUndone(false)
			in = f.establishing()
			f.fromA(in).toStack(in, "not_ours")
		})
	}
	c.each("datagrams of any length, with and without a checksum", func(n *nodes, ip ipVersion, proto uint8) {
		for size := range 5 {
			for _, zero := range []bool{false, true} {
				f := n.flowFromA(ip, proto, ip.client)
				f.source = addrPort(ap(f.source).Addr(), 30010+size*2).String()
				f.client = addrPort(ap(ip.client).Addr(), 40010+size*2).String()
				in := f.opening().withSize(size)
				in.zero = zero
				counters := "flow_undone undone"
				if zero {
					counters = "undone"
				}
				f.fromA(in.within(f.message(), keyOfCluster)).toStack(f.delivered(in), counters)
			}
		}
	}, unix.IPPROTO_UDP)
	c.run(t)
}
