// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// BenchmarkUndone measures packets of flows whose source is undone, as
// BenchmarkPacket measures those of other flows:
//
//	undone        from the node that has announced the client, to the pod
//	undone-reply  of the pod, at egress, to that node
//	plain         from a port of that node, of a flow that it has not announced
//
// The floor is a small program that finds a flow in an LRU table.
func BenchmarkUndone(b *testing.B) {
	for _, ip := range ipVersions {
		for _, protocol := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			for _, flows := range []uint32{1, 1 << 10} {
				benchmarkUndone(b, ip, protocol, flows)
			}
		}
	}
}

func benchmarkUndone(b *testing.B, ip ipVersion, protocol uint8, flows uint32) {
	peer := map[string]string{"IPv4": "192.0.2.254", "IPv6": "2001:db8::254"}[ip.name]
	source := port(peer, "1024")
	toPod, fromPod := establishing(protocol, source, ip.local), continuing(protocol, ip.local, ip.client)
	at, leaving := hook{dev: outside}, hook{dev: outside, egress: true, from: pods}

	run := func(name string, p packet, h hook, verdict uint32, announced bool, v variety) {
		b.Run(fmt.Sprintf("%s/%s%s/flows=%d", name, protocolName(protocol), ip.name[2:], flows), func(b *testing.B) {
			w := newWorld(b, FlowTables(uint32(BlixtLimitMAX_FLOWS)), 1<<16, 1<<16)
			l := w.start(b)
			l.must(l.Announcing.Put(uint32(0), BlixtAnnounceConfig{
				Boot: bootOfB, Flags: uint8(BlixtAnnouncingFlagANNOUNCING_UNDO), PortsMin: 1024, PortsMax: 1024 + portsEach - 1,
			}))
			l.key(0, keyOfCluster)
			l.peer(peer, bootOfA)
			l.egressLinks(outside)
			l.interested(addrOf(netip.MustParseAddr(peer)), BlixtInterestFlagINTEREST_PEER)
			in := opening(protocol, source, ip.local)
			if announced {
				m := announce.Message{Client: ap(ip.client), Idle: 30, Time: announce.Now(), Boot: bootOfA}
				l.ingress(outside, in.within(m, keyOfCluster)).wantVerdict(tcxNext, "flow_undone undone")
				l.egressTo(outside, pods, answer(protocol, ip.local, ip.client)).wantVerdict(redirect, "undone")
				l.ingress(outside, toPod).wantVerdict(tcxNext, "undone"+andEstablished(protocol))
				establishMany(b, w.objs, toPod, answer(protocol, ip.local, ip.client), flows)
			} else if protocol == unix.IPPROTO_TCP {
				l.ingress(outside, in).wantVerdict(tcxNext, "not_ours flow_plain")
			}
			f := w.floors
			f.reset()
			f.serve(protocol, ip.local, ip.local)
			floor := contender{floorName, f.ConntrackForward, tcxNext}
			if h.egress {
				floor.program = f.ConntrackReply
			}
			t := newTemplateOf(b, p, v, flows)
			t.warm = flows
			t.measure(b, w.lab, h, packetsOf(flows), nil, contender{"net", w.objs.Blixt, verdict}, floor)
		})
	}
	run("undone", toPod, at, tcxNext, true, variety{})
	run("undone-reply", fromPod, leaving, redirect, true, replyVariety(false))
	if flows == 1 {
		run("plain", toPod, at, tcxNext, false, variety{})
	}
}
