// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/control/keyring"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// announcers are agents of nodes that announce clients to each other.
type announcers struct {
	*operator
	t *testing.T
}

// newAnnouncers returns an operator that leads in epoch 1, and knows nodes n1 to n3.
func newAnnouncers(t *testing.T, before func(*Server)) *announcers {
	t.Helper()
	o := newFollower(t, "", nil)
	o.o.PeersEvery = 5 * time.Millisecond
	if before != nil {
		before(o.Server)
	}
	o.Lead(1)
	return &announcers{o, t}
}

func testKey(id int, b byte) keyring.Key {
	return keyring.Key{ID: id, Key: lb.AnnounceKey{b, 15: b}, Made: time.Now()}
}

// ringOf signs by the key of an id.
func ringOf(sign int, keys ...keyring.Key) keyring.Ring { return keyring.Ring{Sign: sign, Keys: keys} }

// announcerNode is an agent. What it knows outlasts its streams.
type announcerNode struct {
	mu     sync.Mutex
	name   string
	status wire.AnnouncingStatus
	boot   string // id
	lost   bool   // heartbeat
	drains bool
	keys   map[int]lb.AnnounceKey
	table  wire.PeerTable
	config *wire.Announcing
	orders []string // what came, in order
	bytes  int      // of Peers
	liar   func(*wire.AnnouncingStatus)
	stream *raw
}

func newAnnouncer(name string) *announcerNode {
	return &announcerNode{name: name, boot: "boot-of-" + name, keys: map[int]lb.AnnounceKey{}}
}

// join connects it, for as long as the context lasts.
func (n *announcerNode) join(o *announcers) (leave func()) {
	o.t.Helper()
	r := newRaw(o.t, o.operator, n.name+"/agent")
	n.mu.Lock()
	n.stream = r
	hello := &wire.Hello{Node: n.name, Application: "blue", Announces: true, BootId: n.boot, PeersSums: n.table.Sums(), Status: n.say()}
	n.mu.Unlock()
	if err := r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: hello}}); err != nil {
		o.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			m, err := r.Recv()
			if err != nil {
				return
			}
			n.receive(m)
		}
	}()
	leave = sync.OnceFunc(func() {
		_ = r.CloseSend()
		<-ended
	})
	o.t.Cleanup(leave)
	eventually(o.t, func() string {
		if r, ok := o.report(n.name, "blue"); !ok || !r.Connected {
			return n.name + " has not joined"
		}
		return ""
	})
	return leave
}

// say returns the status. The caller holds the mutex.
func (n *announcerNode) say() *wire.Status {
	st := proto.CloneOf(&n.status)
	for id, k := range n.keys {
		st.Keys = append(st.Keys, &wire.HeldKey{Id: uint32(id), Sum: k.Sum()})
	}
	if n.liar != nil {
		n.liar(st)
	}
	return &wire.Status{Announcing: st, HeartbeatLost: n.lost, Draining: n.drains}
}

// report sends the status.
func (n *announcerNode) report(change func(*announcerNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if change != nil {
		change(n)
	}
	_ = n.stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: n.say()}})
}

func (n *announcerNode) receive(m *wire.OperatorMessage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if p := m.GetPeers(); p != nil {
		n.table.Apply(p)
		n.bytes += proto.Size(p)
		n.orders = append(n.orders, "peers")
	}
	a := m.GetConfig().GetAnnouncing()
	if a == nil {
		return
	}
	n.config = a
	d := wire.Decoder{}
	keys := d.AnnounceKeys(a.Keys)
	if !a.KeepOthers {
		maps.DeleteFunc(n.keys, func(id int, _ lb.AnnounceKey) bool { _, ok := keys[id]; return !ok })
	}
	maps.Copy(n.keys, keys)
	if a.Sign != nil {
		n.status.Sign = a.Sign
	}
	n.status.Boot = a.Boot
	n.orders = append(n.orders, fmt.Sprintf("sign %d", a.GetSign()))
	_ = n.stream.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: n.say()}})
}

// peer returns what the node knows of another one.
func (n *announcerNode) peer(name string) *wire.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.table.All() {
		if p.Node == name {
			return p
		}
	}
	return nil
}

// knows waits until a node knows another one as wanted.
func (o *announcers) knows(n *announcerNode, name, want string) {
	o.t.Helper()
	eventually(o.t, func() string {
		if got := peerText(n.peer(name)); got != want {
			return fmt.Sprintf("%s knows %s as %q, want %q", n.name, name, got, want)
		}
		return ""
	})
}

// peerText is a peer as its addresses, number and reason.
func peerText(p *wire.Peer) string {
	if p == nil {
		return "none"
	}
	var all []string
	for _, b := range p.Addresses {
		a, _ := netip.AddrFromSlice(b)
		all = append(all, a.String())
	}
	why := p.Reason
	if p.Undoes {
		why = "undoes"
	}
	return fmt.Sprintf("%s boot %d %s", strings.Join(all, ","), p.Boot, why)
}

// store does what the rollout does: the NodeDataplanes have the boot numbers.
func (o *announcers) store() map[string]lb.Boot {
	all := map[string]lb.Boot{}
	for _, r := range o.Reports() {
		if r.Boot.Number != 0 {
			all[r.Node] = r.Boot
		}
	}
	o.SetBoots(all)
	return all
}

func TestNodesHearOfEachOther(t *testing.T) {
	o := newAnnouncers(t, nil)
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n1.join(o)
	n2.join(o)
	o.knows(n1, "n2", " boot 0 NotAcked")
	o.SetRing(ringOf(2, testKey(2, 7)))
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
	o.knows(n2, "n1", "198.51.100.1,2001:db8::1 boot 1 undoes")
	if n1.peer("n3") != nil {
		t.Error("a node without an agent is a peer")
	}
	eventually(t, func() string {
		n1.mu.Lock()
		defer n1.mu.Unlock()
		if c := n1.config; c.GetBoot() != 1 || len(c.Keys) != 1 || c.Keys[0].Id != 2 || c.GetSign() != 2 || c.KeepOthers {
			return fmt.Sprintf("boot %d, %d keys, sign %d", c.GetBoot(), len(c.GetKeys()), c.GetSign())
		}
		return ""
	})

	n2.report(func(n *announcerNode) { n.lost = true })
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 NoHeartbeat")
	n2.report(func(n *announcerNode) { n.lost = false })
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
	if r, _ := o.report("n2", "blue"); r.UndoesNot != "" || r.Boot != (lb.Boot{ID: "boot-of-n2", Number: 1}) {
		t.Errorf("report %+v", r)
	}
	o.SetNodes([]Node{testNode(1)})
	o.knows(n1, "n2", "none")
}

// An agent that is away keeps its program: others go on to announce to it.
func TestAgentThatIsAwayIsAnnouncedTo(t *testing.T) {
	o := newAnnouncers(t, nil)
	o.SetRing(ringOf(0, testKey(0, 7)))
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n1.join(o)
	leave := n2.join(o)
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
	leave()
	eventually(t, func() string {
		if r, _ := o.report("n2", "blue"); r.Connected {
			return "n2 is there still"
		}
		return ""
	})
	// Unless another key signs, which it does not have.
	o.SetRing(ringOf(0, testKey(0, 7), testKey(1, 8)))
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
	o.SetRing(ringOf(1, testKey(0, 7), testKey(1, 8)))
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 NotAcked")
	n2.join(o)
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
}

// Before a key signs that a node does not have, others know that they must not
// announce to it.
func TestPeersComeBeforeTheKeySigns(t *testing.T) {
	o := newAnnouncers(t, func(s *Server) { s.o.PeersEvery = time.Hour })
	o.SetRing(ringOf(0, testKey(0, 7)))
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n2.liar = func(st *wire.AnnouncingStatus) { // it never gets the second one into its maps
		st.Keys = slices.DeleteFunc(st.Keys, func(k *wire.HeldKey) bool { return k.Id == 1 })
	}
	n1.join(o)
	n2.join(o)
	o.store()
	refresh := func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.refreshPeers(true)
	}
	eventually(t, func() string {
		refresh()
		if got := peerText(n1.peer("n2")); !strings.HasSuffix(got, "undoes") {
			return got
		}
		return ""
	})
	o.SetRing(ringOf(0, testKey(0, 7), testKey(1, 8)))
	eventually(t, func() string {
		n1.mu.Lock()
		defer n1.mu.Unlock()
		if len(n1.keys) != 2 {
			return "n1 has not got the second key"
		}
		n1.orders = nil
		return ""
	})
	o.SetRing(ringOf(1, testKey(0, 7), testKey(1, 8)))
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 NotAcked")
	eventually(t, func() string {
		n1.mu.Lock()
		defer n1.mu.Unlock()
		if want := []string{"peers", "sign 1"}; !slices.Equal(n1.orders, want) {
			return fmt.Sprintf("got %v, want %v", n1.orders, want)
		}
		return ""
	})
}

// A kernel keeps its number, the next one has the next. It is used once it is
// stored, so that no leader gives it to another kernel.
func TestBootNumbers(t *testing.T) {
	o := newAnnouncers(t, func(s *Server) { s.SetBoots(map[string]lb.Boot{"n1": {ID: "a", Number: 65535}}) })
	n1 := newAnnouncer("n1")
	boot := func(want uint32) {
		t.Helper()
		eventually(t, func() string {
			n1.mu.Lock()
			defer n1.mu.Unlock()
			if n1.config.GetBoot() != want {
				return fmt.Sprintf("the number is %d, want %d", n1.config.GetBoot(), want)
			}
			return ""
		})
	}
	n1.boot = "a"
	leave := n1.join(o)
	boot(65535)
	leave()
	n1.boot, n1.config = "b", nil
	leave = n1.join(o)
	boot(0)
	o.store()
	boot(1)
	leave()
	n1.config = nil
	n1.join(o)
	boot(1)
}

// Whoever deletes NodeDataplanes breaks nothing.
func TestStoredBootNumbersAreDeleted(t *testing.T) {
	o := newAnnouncers(t, nil)
	o.SetRing(ringOf(0, testKey(0, 7)))
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n1.join(o)
	n2.join(o)
	o.store()
	const want = "198.51.100.2,2001:db8::2 boot 1 undoes"
	o.knows(n1, "n2", want)
	o.mu.Lock()
	sequence := o.announcing.peers.sequence
	o.mu.Unlock()
	o.SetBoots(nil)
	o.mu.Lock()
	o.refreshPeers(true)
	now := o.announcing.peers.sequence
	o.mu.Unlock()
	if now != sequence {
		t.Error("nodes hear of it")
	}
	eventually(t, func() string {
		n1.mu.Lock()
		defer n1.mu.Unlock()
		if n1.config.GetBoot() != 1 {
			return fmt.Sprintf("the boot number is %d", n1.config.GetBoot())
		}
		return ""
	})
}

// If its NodeDataplane is lost, a kernel goes on with the number that its maps have.
func TestBootNumberIsLost(t *testing.T) {
	for _, c := range []struct {
		last lb.Boot
		held uint32
		want uint16
	}{
		{lb.Boot{}, 0, 1},
		{lb.Boot{}, 77, 77},
		{lb.Boot{}, 70000, 1},
		{lb.Boot{ID: "b", Number: 5}, 77, 5}, // what is stored counts, whatever an agent claims
		{lb.Boot{ID: "a", Number: 5}, 77, 6},
		{lb.Boot{ID: "b"}, 77, 77},
	} {
		if got := nextBoot(c.last, "b", c.held); got != (lb.Boot{ID: "b", Number: c.want}) {
			t.Errorf("after %+v, held %d: %+v, want number %d", c.last, c.held, got, c.want)
		}
	}
	// Without either it begins anew, and others are told so.
	o := newAnnouncers(t, nil)
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n2.status.Boot = 9
	n1.join(o)
	leave := n2.join(o)
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 9 NotAcked")
	leave()
	o.SetNodes([]Node{testNode(1)}) // the Node is deleted, and with it what is stored of it
	o.store()
	o.SetNodes([]Node{testNode(1), testNode(2)})
	n2.boot, n2.status.Boot = "another", 0
	n2.join(o)
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 NotAcked")
}

// A new leader says nothing until it has heard of the nodes that took part, and an
// agent that knows all then gets nothing at all.
func TestNewLeaderWaitsForNodes(t *testing.T) {
	first := newAnnouncers(t, nil)
	ring := ringOf(0, testKey(0, 7))
	first.SetRing(ring)
	nodes := []*announcerNode{newAnnouncer("n1"), newAnnouncer("n2"), newAnnouncer("n3")}
	for _, n := range nodes {
		n.join(first)
	}
	stored := first.store()
	for _, n := range nodes {
		for i := range 3 {
			first.knows(n, fmt.Sprintf("n%d", i+1), fmt.Sprintf("198.51.100.%d,2001:db8::%d boot 1 undoes", i+1, i+1))
		}
	}
	first.stop()

	second := newAnnouncers(t, func(s *Server) { s.SetBoots(stored) })
	if all, heard := second.KeyNodes(); heard {
		t.Errorf("it has heard of all: %+v", all)
	}
	for _, n := range nodes {
		n.mu.Lock()
		n.bytes = 0
		n.mu.Unlock()
	}
	for _, n := range nodes[:2] {
		n.join(second)
	}
	second.SetRing(ring)
	if _, heard := second.KeyNodes(); heard {
		t.Error("it has heard of all without n3")
	}
	second.SetNodes([]Node{testNode(1), testNode(2), testNode(3)}) // again
	nodes[2].join(second)
	all, heard := second.KeyNodes()
	if !heard || len(all) != 3 {
		t.Errorf("heard %t, nodes %+v", heard, all)
	}
	for i, n := range all {
		if n.Unknown || n.Sign != 0 || n.Keys[0] != ring.Keys[0].Key.Sum() {
			t.Errorf("node %d: %+v", i, n)
		}
	}
	eventually(t, func() string {
		second.mu.Lock()
		defer second.mu.Unlock()
		for m, c := range second.sessions {
			if c.peers == 0 || c.peers != second.announcing.peers.sequence {
				return fmt.Sprintf("%v was told nothing", m)
			}
		}
		return ""
	})
	for _, n := range nodes {
		if n.mu.Lock(); n.bytes > 0 {
			t.Errorf("%s, which knows all, got %d bytes", n.name, n.bytes)
		}
		n.mu.Unlock()
	}
	// Something else changes: that alone comes.
	nodes[2].report(func(n *announcerNode) { n.lost = true })
	second.knows(nodes[0], "n3", "198.51.100.3,2001:db8::3 boot 1 NoHeartbeat")
	one := proto.Size(&wire.Peers{Changed: []*wire.Peer{nodes[0].peer("n3")}})
	nodes[0].mu.Lock()
	defer nodes[0].mu.Unlock()
	if nodes[0].bytes != one {
		t.Errorf("n1 got %d bytes, want the %d of one node", nodes[0].bytes, one)
	}
}

// The wait has an end, and then the node that has not come is not announced to.
func TestNewLeaderDoesNotWaitForEver(t *testing.T) {
	o := newAnnouncers(t, func(s *Server) {
		s.o.Hold = 50 * time.Millisecond
		s.SetBoots(map[string]lb.Boot{"n1": {ID: "boot-of-n1", Number: 3}, "n2": {ID: "boot-of-n2", Number: 4}})
	})
	o.SetRing(ringOf(0, testKey(0, 7)))
	n1 := newAnnouncer("n1")
	n1.join(o)
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 4 Away")
	all, heard := o.KeyNodes()
	unknown := slices.ContainsFunc(all, func(n keyring.Node) bool { return n.Unknown })
	if !heard || len(all) != 2 || !unknown {
		t.Errorf("heard %t, nodes %+v", heard, all)
	}
}

// A node has the addresses that its Node object or its podCIDRs support, and none of
// another node or of a pod.
func TestAddressesThatNodesClaim(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	o := newAnnouncers(t, func(s *Server) {
		s.SetNodes([]Node{
			{Name: "n1", Addresses: []netip.Addr{addr("198.51.100.1")}, Tunnels: []netip.Addr{addr("172.16.9.1")}, PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24"), prefix("10.244.9.0/24")}},
			{Name: "n2", Addresses: []netip.Addr{addr("198.51.100.2"), addr("203.0.113.1")}, PodCIDRs: []netip.Prefix{prefix("10.244.2.0/24"), prefix("10.244.9.0/24")}},
			{Name: "n3", Addresses: []netip.Addr{addr("198.51.100.3"), addr("203.0.113.1")}, PodCIDRs: []netip.Prefix{prefix("10.244.3.0/24")}},
		})
		s.SetOccupied(func(a netip.Addr) bool { return a == addr("10.244.2.77") })
	})
	o.SetRing(ringOf(0, testKey(0, 7)))
	claim := func(n *announcerNode, addresses ...string) *announcerNode {
		for _, a := range addresses {
			n.status.Addresses = append(n.status.Addresses, addr(a).AsSlice())
		}
		n.status.Addresses = append(n.status.Addresses, []byte{1, 2, 3}) // no address
		return n
	}
	n1 := claim(newAnnouncer("n1"), "198.51.100.1", "10.244.1.0", "172.17.0.1", "127.0.0.1", "fe80::1", "10.244.9.9")
	n2 := claim(newAnnouncer("n2"), "10.244.2.0", "::ffff:10.244.2.1", // the ends of tunnels
		"198.51.100.1", "172.16.9.1", "10.244.1.0", "10.244.1.5", // another node's, and its pods'
		"10.244.2.77",                            // a pod's
		"203.0.113.1", "10.244.9.9", "192.0.2.1") // of two Node objects, of two claims, of nobody
	n3 := newAnnouncer("n3")
	for _, n := range []*announcerNode{n1, n2, n3} {
		n.join(o)
	}
	o.store()
	o.knows(n3, "n1", "10.244.1.0,172.16.9.1,198.51.100.1 boot 1 undoes")
	o.knows(n3, "n2", "10.244.2.0,10.244.2.1,198.51.100.2 boot 1 undoes")
	o.knows(n1, "n3", "198.51.100.3 boot 1 undoes")
	r, _ := o.report("n2", "blue")
	want := []string{"10.244.1.0", "10.244.1.5", "10.244.2.77", "10.244.9.9", "172.16.9.1", "192.0.2.1", "198.51.100.1", "203.0.113.1"}
	if diff := cmp.Diff(want, strings.Split(strings.Trim(fmt.Sprint(r.IgnoredAddresses), "[]"), " ")); diff != "" {
		t.Errorf("ignored (-want +got):\n%s", diff)
	}
	// It claims others as soon as it has them.
	n2.report(func(n *announcerNode) { n.status.Addresses = nil; claim(n, "10.244.2.9") })
	o.knows(n3, "n2", "10.244.2.9,198.51.100.2 boot 1 undoes")
	// A flood of claims costs as much as a few.
	n2.report(func(n *announcerNode) {
		n.status.Addresses = nil
		for i := range 1000 {
			claim(n, fmt.Sprintf("10.244.2.%d", i%250))
		}
	})
	eventually(t, func() string {
		if p := n3.peer("n2"); len(p.Addresses) > maxPeerAddresses || len(p.Addresses) < 3 {
			return fmt.Sprintf("n2 has %d addresses", len(p.Addresses))
		}
		return ""
	})
	o.SetNodes([]Node{{Name: "n1", Addresses: []netip.Addr{addr("203.0.113.1")}}, {Name: "n3", Addresses: []netip.Addr{addr("203.0.113.1")}}})
	o.knows(n3, "n1", " boot 1 NoAddress")
}

// An agent that lies harms its own node alone: it cannot say that it has a key that it
// was not given, nor make another node's.
func TestAgentsThatLie(t *testing.T) {
	o := newAnnouncers(t, nil)
	first := testKey(0, 7)
	o.SetRing(ringOf(0, first))
	n1, n2 := newAnnouncer("n1"), newAnnouncer("n2")
	n2.liar = func(st *wire.AnnouncingStatus) {
		st.Keys = nil
		for i := range 100 {
			st.Keys = append(st.Keys, &wire.HeldKey{Id: uint32(i), Sum: uint64(i)})
		}
		st.Sign = new(uint32(4711))
		for range 1000 {
			st.Pairs = append(st.Pairs, &wire.Pair{Node: strings.Repeat("x", 2*maxText), Answered: 1 << 31})
			st.Unannounced = append(st.Unannounced, &wire.Unannounced{Reason: "x", Backends: 1 << 31})
		}
		st.Pairs = st.Pairs[:20]
	}
	n1.join(o)
	n2.join(o)
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 NotAcked")
	o.knows(n1, "n1", "198.51.100.1,2001:db8::1 boot 1 undoes")
	r, _ := o.report("n2", "blue")
	if len(r.Announcing.Pairs) != lb.MaxPairs || len(r.Announcing.Unannounced) != lb.MaxReasons || r.Announcing.Unannounced[0].Backends < 0 {
		t.Errorf("%d pairs, %d reasons", len(r.Announcing.Pairs), len(r.Announcing.Unannounced))
	}
	all, _ := o.KeyNodes()
	for _, n := range all {
		if len(n.Keys) > lb.AnnounceKeys || n.Sign >= lb.AnnounceKeys {
			t.Errorf("%+v", n)
		}
	}
}

// Who has stolen the token of an agent is that agent: no other node's, and no key comes
// before that is clear. The agent itself ends the thief's stream when it comes again,
// and once its pod is gone, the token is worth nothing (TokenReviewer).
func TestStolenToken(t *testing.T) {
	o := newAnnouncers(t, nil)
	o.SetRing(ringOf(0, testKey(0, 7)))
	for name, c := range map[string]struct{ token, node, application string }{
		"another node":        {"n1/agent", "n2", "blue"},
		"another application": {"n1/agent", "n1", "green"},
		"a node that is gone": {"n9/agent", "n9", "blue"},
		"an expired token":    {"expired", "n1", "blue"},
		"no token":            {"", "n1", "blue"},
	} {
		r := newRaw(t, o.operator, c.token)
		_ = r.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
			Node: c.node, Application: c.application, Announces: true, BootId: "x", Status: &wire.Status{},
		}}})
		if m, err := r.Recv(); err == nil {
			t.Errorf("%s: got %T", name, m.Message)
		}
	}
	thief, n1, n2 := newAnnouncer("n1"), newAnnouncer("n1"), newAnnouncer("n2")
	thief.status.Addresses = [][]byte{testNode(2).Addresses[0].AsSlice()}
	n2.join(o)
	thief.join(o)
	n1.join(o)
	eventually(t, func() string { // its stream has ended
		if err := thief.stream.Context().Err(); err != context.Canceled {
			return fmt.Sprint("the thief's stream: ", err)
		}
		return ""
	})
	o.store()
	o.knows(n2, "n1", "198.51.100.1,2001:db8::1 boot 1 undoes")
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
}

// Agents of an earlier version get nothing that they do not know, and are not announced
// to.
func TestAgentThatDoesNotAnnounce(t *testing.T) {
	o := newAnnouncers(t, nil)
	o.SetRing(ringOf(0, testKey(0, 7)))
	n1 := newAnnouncer("n1")
	n1.join(o)
	o.store()
	old := newRaw(t, o.operator, "n2/agent")
	old.hello("n2", "blue", nil, nil)
	o.knows(n1, "n2", " boot 0 EarlierVersion")
	v := o.Publish(web(3))
	for {
		m, err := old.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetPeers() != nil || m.GetConfig().GetAnnouncing() != nil {
			t.Fatalf("it got %v", m)
		}
		if m.GetPart().GetLast() {
			break
		}
	}
	if r, ok := o.report("n2", "blue"); !ok || r.Announcing != nil || v.Sequence != 1 {
		t.Errorf("report %+v", r)
	}
	// While it drains, another application of the node decides.
	o.SetSettings("green", Settings{})
	green := newRaw(t, o.operator, "n2/agent2")
	_ = green.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Hello{Hello: &wire.Hello{
		Node: "n2", Application: "green", Announces: true, BootId: "x", Status: &wire.Status{Announcing: &wire.AnnouncingStatus{Keys: []*wire.HeldKey{{Id: 0, Sum: testKey(0, 7).Key.Sum()}}}},
	}}})
	eventually(t, func() string {
		if r, ok := o.report("n2", "green"); !ok {
			return fmt.Sprintf("%+v", r)
		}
		return ""
	})
	o.store()
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 EarlierVersion")
	_ = old.Send(&wire.AgentMessage{Message: &wire.AgentMessage_Status{Status: &wire.Status{Draining: true}}})
	o.knows(n1, "n2", "198.51.100.2,2001:db8::2 boot 1 undoes")
}

// Agents come and go in the middle of rotations, and of changes of leaders. In the end
// all sign by one key, and all undo.
func TestAgentsReconnectDuringRotations(t *testing.T) {
	o := newAnnouncers(t, nil)
	now := time.Now()
	rotation, ring := keyring.Rotation{}, keyring.Adopt(nil, nil)
	nodes := []*announcerNode{newAnnouncer("n1"), newAnnouncer("n2"), newAnnouncer("n3")}
	leave := make([]func(), len(nodes))
	for i, n := range nodes {
		leave[i] = n.join(o)
	}
	o.store()
	for i := range 30 {
		all, heard := o.KeyNodes()
		if !heard {
			t.Fatal("it has not heard of all")
		}
		ring, _ = rotation.Step(now, ring, all, fmt.Sprint(i/6+1), false)
		o.SetRing(ring)
		leave[i%3]()
		leave[i%3] = nodes[i%3].join(o)
		now = now.Add(30 * time.Second)
	}
	eventually(t, func() string {
		all, _ := o.KeyNodes()
		now = now.Add(30 * time.Second)
		ring, _ = rotation.Step(now, ring, all, ring.Asked, false)
		o.SetRing(ring)
		if ring.Phase() != keyring.Settled {
			return fmt.Sprintf("phase %s of %+v", ring.Phase(), all)
		}
		return ""
	})
	for _, n := range nodes {
		for i := range nodes {
			o.knows(n, fmt.Sprintf("n%d", i+1), fmt.Sprintf("198.51.100.%d,2001:db8::%d boot 1 undoes", i+1, i+1))
		}
	}
	signs, _ := ring.Key(ring.Sign)
	eventually(t, func() string {
		for _, n := range nodes {
			n.mu.Lock()
			ok := len(n.keys) == 1 && n.keys[ring.Sign] == signs.Key && int(n.status.GetSign()) == ring.Sign
			n.mu.Unlock()
			if !ok {
				return n.name + " has other keys"
			}
		}
		return ""
	})
	const name = "blixt_announce_agents_without_key"
	if n, err := testutil.GatherAndCount(o.metrics, name, "blixt_announce_key_age_seconds", "blixt_announce_key_rotation", "blixt_announce_pairs_failing"); err != nil || n != 6 {
		t.Errorf("%d metrics, %v", n, err)
	}
	if diff := testutil.GatherAndCompare(o.metrics, strings.NewReader(`
# HELP blixt_announce_key_rotation 1 for the phase of the rotation of the key by which nodes sign.
# TYPE blixt_announce_key_rotation gauge
blixt_announce_key_rotation{phase="retiring"} 0
blixt_announce_key_rotation{phase="settled"} 1
blixt_announce_key_rotation{phase="spreading"} 0
`), "blixt_announce_key_rotation"); diff != nil {
		t.Error(diff)
	}
}

// Nothing that is logged has a key in it.
func TestKeysAreNotLogged(t *testing.T) {
	o := newAnnouncers(t, nil)
	k := keyring.Key{ID: 0, Key: lb.AnnounceKey([]byte("never-log-this-k")), Made: time.Now()}
	o.SetRing(ringOf(0, k))
	n1 := newAnnouncer("n1")
	n1.join(o)
	n1.report(nil)
	if text := fmt.Sprintf("%v %+v", o.announcing.ring, o.Reports()); strings.Contains(text, "never-log") || strings.Contains(text, fmt.Sprint([]byte("never-log"))[1:20]) || o.log.count("never-log") > 0 {
		t.Error("the key shows")
	}
}

// Agents as they are: what comes by the stream is in their maps, and what their maps
// hold lets a rotation go on. An agent that starts again begins with its maps.
func TestAgentsAnnounce(t *testing.T) {
	o := newAnnouncers(t, nil)
	boot := func(id string) func(*agent.Options) { return func(a *agent.Options) { a.BootID = id } }
	n1, n2 := newNode(t, o.operator, "n1", boot("a")), newNode(t, o.operator, "n2", boot("b"))
	earlier := newNode(t, o.operator, "n3", func(a *agent.Options) {
		a.BootID = "c"
		fake := datapath.NewFake(testSizes)
		fake.Earlier = true
		a.Tables = fake
	})
	now := time.Now()
	rotation, ring := keyring.Rotation{}, keyring.Adopt(nil, nil)
	rotate := func(asked string) {
		t.Helper()
		eventually(t, func() string {
			o.store()
			all, _ := o.KeyNodes()
			now = now.Add(5 * time.Second)
			ring, _ = rotation.Step(now, ring, all, asked, false)
			o.SetRing(ring)
			if ring.Phase() != keyring.Settled || ring.Asked != asked || len(all) != 2 {
				return fmt.Sprintf("phase %s, %d agents", ring.Phase(), len(all))
			}
			return ""
		})
	}
	holds := func(n *node, boot uint16, peer string) {
		t.Helper()
		eventually(t, func() string {
			keys, err := n.fake.AnnounceKeys()
			config, err2 := n.fake.AnnounceConfig()
			peers, err3 := n.fake.Peers()
			if err := errors.Join(err, err2, err3); err != nil {
				return err.Error()
			}
			held := 0
			for _, k := range keys {
				if k.Bytes != (lb.AnnounceKey{}) {
					held++
				}
			}
			signs, _ := ring.Key(ring.Sign)
			if _, there := peers[netip.MustParseAddr(peer)]; held != 1 || keys[config.Key].Bytes != signs.Key || config.Boot != boot || !there || len(peers) != 2 {
				return fmt.Sprintf("%d keys, config %+v, peers %v", held, config, peers)
			}
			return ""
		})
	}
	for _, asked := range []string{"", "1", "2", "3", "4", "5"} { // more than there are ids
		rotate(asked)
		holds(n1, 1, "198.51.100.2")
		holds(n2, 1, "198.51.100.1")
	}
	eventually(t, func() string {
		for name, want := range map[string]string{"n1": "", "n2": ""} {
			if r, _ := o.report(name, "blue"); r.UndoesNot != want || r.Announcing == nil || r.Announcing.Peers == 0 {
				return fmt.Sprintf("%s: %q, %+v", name, r.UndoesNot, r.Announcing)
			}
		}
		return ""
	})
	if r, _ := o.report("n3", "blue"); r.Announcing != nil || earlier.fake.Announces() {
		t.Errorf("a program of an earlier version announces: %+v", r)
	}
	n2.stop()
	again := newNode(t, o.operator, "n2", func(a *agent.Options) { a.BootID, a.Tables = "another", n2.fake })
	rotate("6")
	holds(again, 2, "198.51.100.1")
	eventually(t, func() string {
		if r, _ := o.report("n2", "blue"); r.Boot != (lb.Boot{ID: "another", Number: 2}) || r.UndoesNot != "" {
			return fmt.Sprintf("%+v %s", r.Boot, r.UndoesNot)
		}
		return ""
	})
}
