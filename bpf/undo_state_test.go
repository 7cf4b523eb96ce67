// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/announce"
)

// TestRefreshedAnnouncements is about UDP flows that go on: one datagram in eight ticks says whose they are.
func TestRefreshedAnnouncements(t *testing.T) {
	c := nodeCases{}
	c.each("each interval", func(n *nodes, ip ipVersion, proto uint8) {
		n.serve(ip, proto)
		in := opening(proto, ip.client, port(ip.vip, "80"))
		out := in.snat(ip.nodeIn, 0).to(ip.remote).hop()
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "flow_new forwarded announced")
		re := answer(proto, ip.remote, out.src.String())
		n.a.ingress(inside, re).redirected(re.from(in.dst.String()).to(ip.client).hop(), "replied")
		n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		for range 3 {
			for range 3 {
				n.a.ingress(outside, in).redirected(out, "forwarded")
			}
			m, f := n.a.flow(in)
			f.Next -= 9 // ticks
			n.a.must(m.Put(keyOf(in), f))
			n.a.forgetKept()
			n.a.ingress(outside, in).announces(out, n.told(ip.client), "forwarded announced")
		}
	}, unix.IPPROTO_UDP)
	c.run(t)
}

var objectsOfSecond = objectsOfD // a second program of node B: no test needs it and D

// chain passes a frame through two programs of B, the draining one first, and returns what both did.
func (n *nodes) chain(draining, next *lb, h hook, frame []byte) (first, last *result) {
	n.Helper()
	first, err := draining.runRaw(h, frame)
	n.b.must(err)
	if first.verdict != tcxNext {
		return first, first
	}
	last, err = next.runRaw(h, first.out)
	n.b.must(err)
	return first, last
}

// TestTwoProgramsUndo is about an upgrade of B: the previous program drains in front of the next one.
func TestTwoProgramsUndo(t *testing.T) {
	c := nodeCases{}
	c.each("known flows stay, others begin at the next program", func(n *nodes, ip ipVersion, proto uint8) {
		old := n.flowFromA(ip, proto, ip.client).opens().establish()
		next := n.secondProgram()
		n.b.config(BlixtConfigFlagCONFIG_DRAIN)
		at := hook{dev: inside}
		// What has begun goes on.
		in := old.later()
		if _, last := n.chain(n.b, next, at, in.bytes()); last.l != n.b || last.counts["undone"] != 1 {
			if last.counts["undone"] != 1 && last.l != next {
				n.Errorf("a known flow: counters %v, want it undone", last.counts)
			}
		}
		old.wantServed()
		// A new flow's message gets to the next program.
		f := old.by(ip.nodeIn, "30033").of(old.other(1))
		f.nodes = &nodes{n.TB, n.a, next, nil}
		in = f.opening()
		first, last := n.chain(n.b, next, at, in.within(f.message(), keyOfCluster).bytes())
		if first.counts["drained"] != 1 || last.counts["flow_undone"] != 1 || last.counts["undone"] != 1 {
			n.Errorf("a new flow: the draining program counts %v, the next one %v, want drained, and flow_undone and undone", first.counts, last.counts)
		}
		f.wantUndone(true)
		// Its later packets pass the draining program.
		in = f.later()
		first, last = n.chain(n.b, next, at, in.bytes())
		if last.l != next || last.counts["undone"] != 1 {
			n.Errorf("later packets: the draining program counts %v, the next one %v, want undone by the next one", first.counts, last.counts)
		}
		// The same connection's SYN, once more, of the flow that the draining program has: it takes its own.
		in = old.opening()
		if _, last = n.chain(n.b, next, at, in.within(old.message(), keyOfCluster).bytes()); last.counts["flow_undone"] != 0 {
			n.Errorf("a known flow that is announced again: counters %v, want no new flow", last.counts)
		}
	})
	c.each("a segment that neither knows is asked about by the next program", func(n *nodes, ip ipVersion, proto uint8) {
		next := n.secondProgram()
		n.b.config(BlixtConfigFlagCONFIG_DRAIN)
		f := n.flowFromA(ip, proto, ip.client)
		next.hasUndone()
		first, last := n.chain(n.b, next, hook{dev: inside}, f.later().bytes())
		if first.verdict != tcxNext || last.counts["announce_asked"] != 1 {
			n.Errorf("the draining program counts %v, the next one %v, want announce_asked by the next one", first.counts, last.counts)
		}
	}, unix.IPPROTO_TCP)
	c.run(t)
}

// secondProgram is a second program on node B with tables of its own.
func (n *nodes) secondProgram() *lb {
	n.Helper()
	l := n.node(objectsOfSecond, labOfB, bootOfB)
	for _, ip := range ipVersions {
		l.peer(ip.nodeIn, 0)
		l.peer(addressesOfD[ip.name], 0)
	}
	l.egressLinks(inside, outside)
	return l
}

// TestFloodSeenAtB is about a flood of SYNs with forged sources at A, each of which A announces.
func TestFloodSeenAtB(t *testing.T) {
	const established, flood = 40, 20000
	for _, ip := range ipVersions {
		t.Run(ip.name, func(t *testing.T) {
			n := newNodes(t)
			var all []undoneFlow
			for i := range established {
				f := n.flowFromA(ip, unix.IPPROTO_TCP, ip.client).by(ip.nodeIn, fmt.Sprint(snatMin+i))
				all = append(all, f.of(f.other(i)).opens().establish())
			}
			for i := range flood {
				// From ports of D, and privileged ones of both: 4096 entries have room for 2048 flows.
				f := all[0].by(addressesOfD[ip.name], fmt.Sprint(snatMin+i%100))
				f.client = addrPort(ap(farClient[ip.name]).Addr(), 1024+i%60000).String()
				in := f.opening()
				in.seq = uint32(i) << 8
				m := f.message()
				m.Boot = bootOfD
				if _, _, err := n.b.run(hook{dev: inside}, in.within(m, keyOfCluster).bytes(), 0); err != nil {
					t.Fatal(err)
				}
			}
			n.b.forgetKept()
			for _, f := range all {
				n.b.wantTable(f.opening(), "flows")
				f.wantServed()
			}
		})
	}
}

// TestUndoneFlowsAreFull is about more established flows than B has room for: the rest stays where it may be evicted, and works.
func TestUndoneFlowsAreFull(t *testing.T) {
	objs, err := load(func(spec *ebpf.CollectionSpec) {
		shrinkTables(spec)
		spec.Maps["flows"].MaxEntries = 4
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = objs.Close() })
	n := newNodes(t)
	small := n.node(func() (*BlixtObjects, error) { return objs, nil }, labOfB, bootOfB)
	ip := ipVersions[0]
	small.peer(ip.nodeIn, 0)
	small.egressLinks(inside, outside)
	n.b = small
	for i := range 2 {
		f := n.flowFromA(ip, unix.IPPROTO_TCP, ip.client).by(ip.nodeIn, fmt.Sprint(snatMin+i))
		f = f.of(f.other(i)).opens().establish()
		n.b.wantTable(f.opening(), "flows")
	}
	f := n.flowFromA(ip, unix.IPPROTO_TCP, ip.client).by(ip.nodeIn, "30050").opens()
	f.reply(inside, answer(unix.IPPROTO_TCP, ip.remote, f.client))
	for range 3 {
		in := f.establishing()
		f.fromA(in).toStack(f.delivered(in), "undone flow_table_full")
	}
	n.b.wantTable(f.opening(), "new_flows")
}

// TestGoAgreesOnInterestOfOtherNodesFlows compares the bits that B sets for entries with those that a writer keeps for them.
func TestGoAgreesOnInterestOfOtherNodesFlows(t *testing.T) {
	c := nodeCases{}
	for name, begin := range map[string]func(f undoneFlow){
		"announced":   func(f undoneFlow) { f.opens() },
		"established": func(f undoneFlow) { f.opens().establish() },
		"plain": func(f undoneFlow) {
			m := f.message()
			m.Flags = announce.Plain
			f.hear(f.opening().within(m, keyOfCluster).bytes())
		},
		"of a client behind another device": func(f undoneFlow) {
			f.client = farClient[f.ip.name]
			f.hear(f.opening().within(f.message(), keyOfCluster).bytes())
		},
		"taken over": func(f undoneFlow) {
			f.opens().establish()
			g := f.by(addressesOfD[f.ip.name], "30077")
			f.hear(g.later().alone(g.message(), keyOfCluster).bytes())
		},
	} {
		c.each(name, func(n *nodes, ip ipVersion, proto uint8) {
			begin(n.flowFromA(ip, proto, ip.client))
			entries := 0
			for _, table := range n.b.flowTables() {
				var k BlixtFlowKey
				var e BlixtFlow
				for it := table.Iterate(); it.Next(&k, &e); entries++ {
					a, bits := EntryInterest(k, e)
					if have := n.b.memory(n.b.Interest)[InterestHash(a)]; have&byte(bits) != byte(bits) {
						n.Errorf("interest in %v is %b, want %b for an entry with flags %#x", netip.AddrFrom16(a.Bytes), have, bits, e.Flags)
					}
				}
			}
			if entries == 0 {
				n.Error("there are no entries")
			}
			// Without any other bit packets of both directions still find their flow.
			memory := n.b.memory(n.b.Interest)
			clear(memory)
			for _, table := range n.b.flowTables() {
				var k BlixtFlowKey
				var e BlixtFlow
				for it := table.Iterate(); it.Next(&k, &e); {
					a, bits := EntryInterest(k, e)
					memory[InterestHash(a)] |= byte(bits)
				}
			}
			n.b.forgetKept()
			switch f := n.flowFromA(ip, proto, ip.client); name {
			case "established":
				f.wantServed()
			case "taken over":
				f.by(addressesOfD[ip.name], "30077").wantServed()
			}
		})
	}
	c.run(t)
}

// TestUndoneCompleteChecksums is about packets whose sum is in skb->csum.
func TestUndoneCompleteChecksums(t *testing.T) {
	if !completeWorks() {
		t.Skip("kernel lacks: BPF_F_TEST_SKB_CHECKSUM_COMPLETE (Linux 6.11)")
	}
	c := nodeCases{}
	c.each("", func(n *nodes, ip ipVersion, proto uint8) {
		f := n.flowFromA(ip, proto, ip.client).opens()
		n.b.complete = true
		f.establish()
		for range 3 { // the last ones from their slots
			f.wantServed()
		}
	})
	c.run(t)
}
