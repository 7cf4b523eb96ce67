// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/control/keyring"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// bigNode is one of thousands, with a name as clouds give it, an address of either
// family, and the end of a tunnel.
func bigNode(i int) Node {
	return Node{
		Name:      fmt.Sprintf("ip-10-%d-%d-%d.eu-central-1.compute.internal", i>>16&255, i>>8&255, i&255),
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})},
		PodCIDRs:  []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64 + byte(i>>8), byte(i), 0}), 24)},
	}
}

// bigFleet is how many nodes newBigFleet has.
const bigFleet = 5000

// newBigFleet returns a server that leads thousands of nodes, all of which undo.
func newBigFleet() *Server {
	s := NewServer(ServerOptions{})
	s.leading = true
	s.settings["blue"] = Settings{}
	key := testKey(0, 7)
	s.announcing.ring = new(ringOf(0, key))
	for i := range bigFleet {
		n := bigNode(i)
		m := member{"blue", n.Name}
		s.nodes[n.Name], s.reports[m] = n, &lb.Report{Node: n.Name, Application: "blue"}
		s.announcing.agents[m] = &announcer{keys: [lb.AnnounceKeys]uint64{key.Key.Sum()}, claims: []netip.Addr{n.PodCIDRs[0].Addr()}}
		s.announcing.boots[n.Name] = lb.Boot{ID: n.Name, Number: uint16(1 + i%100)}
	}
	s.announcing.stored, s.announcing.used = maps.Clone(s.announcing.boots), maps.Clone(s.announcing.boots)
	return s
}

func with(boots map[string]lb.Boot, node string, b lb.Boot) map[string]lb.Boot {
	boots = maps.Clone(boots)
	boots[node] = b
	return boots
}

// What an agent of one of 5,000 nodes gets does not grow with their number, but for its
// first message.
func TestCostOfPeers(t *testing.T) {
	const nodes = bigFleet
	s := newBigFleet()
	h := &s.announcing.peers
	s.refreshPeers(true)
	all := h.since(0)
	complete := proto.Size(all)
	if len(all.Changed) != nodes || !all.Changed[0].Undoes || len(all.Changed[0].Addresses) != 3 {
		t.Fatalf("%d nodes, the first %v", len(all.Changed), all.Changed[0])
	}
	table := &wire.PeerTable{}
	table.Apply(all)
	if !slices.Equal(table.Sums(), h.short) {
		t.Error("the agent has another sum")
	}

	change := func(what string, change func()) int {
		base := h.sequence
		change()
		s.announcing.addressesChanged = true
		s.refreshPeers(false)
		m := h.since(base)
		if m == nil {
			return 0
		}
		if m.Complete {
			t.Errorf("%s: everything is sent", what)
		}
		if again := h.since(base); again != m {
			t.Errorf("%s: it is made for each agent", what)
		}
		table.Apply(m)
		if !slices.Equal(table.Sums(), h.short) {
			t.Errorf("%s: the agent has another sum", what)
		}
		return proto.Size(m)
	}
	m := member{"blue", bigNode(7).Name}
	joins := change("a node joins", func() {
		n := bigNode(nodes)
		s.nodes[n.Name] = n
		s.SetBoots(with(s.announcing.stored, n.Name, lb.Boot{ID: "x", Number: 1}))
	})
	boots := change("a node boots", func() {
		s.announcing.boots[m.node] = lb.Boot{ID: "y", Number: 2000}
		s.SetBoots(with(s.announcing.stored, m.node, s.announcing.boots[m.node]))
	})
	fails := change("a heartbeat is lost", func() { s.reports[m] = &lb.Report{HeartbeatLost: true} })
	leaves := change("a node leaves", func() { delete(s.nodes, m.node); delete(s.announcing.agents, m) })
	rotates := change("the key rotates", func() {
		next := testKey(1, 8)
		for _, a := range s.announcing.agents {
			a.keys[1] = next.Key.Sum()
		}
		s.announcing.ring = new(ringOf(1, testKey(0, 7), next))
	})
	// Another leader has never heard of what this one has sent, and sees one node otherwise.
	second := newBigFleet()
	second.refreshPeers(true)
	fresh := &wire.PeerTable{}
	fresh.Apply(second.announcing.peers.since(0))
	if m := second.announcing.peers.differences(fresh.Sums()); m != nil {
		t.Errorf("an agent that knows all gets %d bytes", proto.Size(m))
	}
	hello := proto.Size(&wire.Hello{PeersSums: fresh.Sums()})
	second.reports[m] = &lb.Report{HeartbeatLost: true}
	second.refreshPeers(true)
	differs := second.announcing.peers.differences(fresh.Sums())
	fresh.Apply(differs)
	if !slices.Equal(fresh.Sums(), second.announcing.peers.short) {
		t.Error("after a change of leader the agent has other nodes")
	}
	leader := proto.Size(differs)
	t.Logf("a new leader that sees one node otherwise: %d bytes to each agent, whose Hello has %d", leader, hello)
	t.Logf("bytes to each agent: complete %d (%d a node), a node joins %d, boots %d, loses its heartbeat %d, leaves %d, the key rotates %d; to all %d agents when a node joins: %d",
		complete, complete/nodes, joins, boots, fails, leaves, rotates, nodes, nodes*joins)
	// gRPC accepts 4 MiB by default.
	if complete > 1<<20 || max(joins, boots, fails, leaves) > 200 || rotates != 0 || leader > 8<<10 || hello > 4<<10 {
		t.Error("that is too much")
	}
}

// An agent that has missed any number of changes gets what it lacks.
func TestPeersSinceAnySequence(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	h := &peerHistory{}
	type agent struct {
		at    uint64
		table *wire.PeerTable
	}
	agents := make([]agent, 8)
	for i := range agents {
		agents[i].table = &wire.PeerTable{}
	}
	for range 3 * historyLimit {
		name, p := fmt.Sprint("n", random.IntN(20)), (*wire.Peer)(nil)
		if random.IntN(4) > 0 {
			p = &wire.Peer{Node: name, Boot: random.Uint32N(5)}
		}
		h.set(map[string]*wire.Peer{name: p})
		for i := range agents { // the last ones seldom come
			if random.IntN(1<<(2*i)) > 0 {
				continue
			}
			m := h.since(agents[i].at)
			if sums := agents[i].table.Sums(); sums != nil && random.IntN(2) == 0 { // by another stream
				m = h.differences(sums)
			}
			if m != nil {
				agents[i].table.Apply(m)
			}
			agents[i].at = h.sequence
			if !slices.Equal(agents[i].table.Sums(), h.short) {
				t.Fatalf("agent %d has other nodes at %d", i, h.sequence)
			}
		}
		if len(h.changes) > historyLimit {
			t.Fatalf("it remembers %d changes", len(h.changes))
		}
	}
	h.set(map[string]*wire.Peer{"n1": nil, "n2": {Node: "n2"}})
	if h.set(map[string]*wire.Peer{"n1": nil, "n2": {Node: "n2"}}) {
		t.Error("no change is one")
	}
}

// BenchmarkPeers finds out what has changed among 5,000 nodes, once a second at most: one
// node, or any, as after an address has come.
func BenchmarkPeers(b *testing.B) {
	for _, all := range []bool{false, true} {
		b.Run(fmt.Sprint("all=", all), func(b *testing.B) {
			s := newBigFleet()
			n := member{"blue", bigNode(7).Name}
			lost := false
			for b.Loop() {
				lost = !lost
				s.reports[n] = &lb.Report{HeartbeatLost: lost}
				s.announcing.changed[n.node], s.announcing.addressesChanged = true, all
				s.refreshPeers(false)
			}
		})
	}
}

// BenchmarkKeyNodes asks for the keys of 5,000 nodes, as the keeper does each second.
func BenchmarkKeyNodes(b *testing.B) {
	s := newBigFleet()
	ring, rotation := *s.announcing.ring, keyring.Rotation{}
	for b.Loop() {
		nodes, _ := s.KeyNodes()
		rotation.Step(ring.Keys[0].Made, ring, nodes, "", false)
	}
}
