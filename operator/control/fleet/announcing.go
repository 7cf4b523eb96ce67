// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/control/keyring"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Nodes announce clients to each other: see bpf/announce.h. The server gives them the
// keys, their boot numbers and each other's addresses, and says which nodes may be
// announced to.

// peersEvery is how often agents hear of other nodes at most: those of many nodes that
// come at once are one message.
const peersEvery = time.Second

// announcing is what the server knows of nodes that announce clients to each other.
// The server's mutex guards it.
type announcing struct {
	ring *keyring.Ring // nil: not known yet, nodes go on with the keys that they have
	// agents are those that have joined and whose programs can announce.
	agents map[member]*announcer
	// boots are the nodes' boot numbers, stored those that the next leader will know. A
	// number is used once it has been stored: used are those.
	boots, stored, used map[string]lb.Boot
	// awaited are nodes whose agents have yet to come to a new leader, which says
	// nothing of nodes until holdUntil: agents go on with what they know.
	awaited   map[string]bool
	holdUntil time.Time
	peers     peerHistory
	// addresses are those that nodes have, ignored those that they claim, and are not
	// believed to have.
	addresses, ignored map[string][]netip.Addr
	occupied           func(netip.Addr) bool
	// due: agents are about to hear of what has changed: these nodes, or if anything of
	// addresses has changed, all.
	due              bool
	changed          map[string]bool
	addressesChanged bool
}

// announcer is what an agent has said last.
type announcer struct {
	claims []netip.Addr
	keys   [lb.AnnounceKeys]uint64 // sums, 0: none
	sign   int                     // keyring.NoKey: none
}

func newAnnouncing() announcing {
	return announcing{
		agents: map[member]*announcer{}, boots: map[string]lb.Boot{}, stored: map[string]lb.Boot{}, used: map[string]lb.Boot{}, awaited: map[string]bool{},
		addressesChanged: true, changed: map[string]bool{}, occupied: func(netip.Addr) bool { return false },
	}
}

// SetOccupied sets the function that reports whether a pod has an address. It is called
// with a lock held, and must not call the server.
func (s *Server) SetOccupied(occupied func(netip.Addr) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announcing.occupied = occupied
}

// SetBoots says which boot numbers are stored, by node. Called before Lead, it also
// says which nodes announced clients under the previous leader.
func (s *Server) SetBoots(stored map[string]lb.Boot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := &s.announcing
	if maps.Equal(a.stored, stored) {
		return
	}
	before := a.stored
	a.stored = maps.Clone(stored)
	for node, boot := range stored {
		if _, known := a.boots[node]; !known {
			a.boots[node] = boot
		}
		a.used[node] = boot
	}
	s.forgetNodes()
	for node := range s.nodes {
		if before[node] != stored[node] {
			s.peersChanged(node)
		}
	}
	s.wake(func(c *session) bool { return c.announces && before[c.node] != stored[c.node] })
}

// forgetNodes drops what is known of nodes that are gone.
func (s *Server) forgetNodes() {
	a := &s.announcing
	if len(s.nodes) == 0 { // they are not known yet
		return
	}
	maps.DeleteFunc(a.awaited, func(node string, _ bool) bool { _, exists := s.nodes[node]; return !exists })
	gone := func(node string, _ lb.Boot) bool {
		_, exists := s.nodes[node]
		_, stored := a.stored[node]
		return !exists && !stored
	}
	maps.DeleteFunc(a.boots, gone)
	maps.DeleteFunc(a.used, gone)
}

// SetRing gives agents the keys. Peers that do not have the one that signs are
// announced to no more before it does.
func (s *Server) SetRing(r keyring.Ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.announcing.ring != nil && s.announcing.ring.Equal(&r) {
		return
	}
	s.announcing.ring = &r
	s.refreshPeers(true)
	s.wake(func(c *session) bool { return c.announces })
}

// KeyNodes is what the keeper of the keys asks: see keyring.Agents.
func (s *Server) KeyNodes() ([]keyring.Node, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading || s.holds() {
		return nil, false
	}
	var all []keyring.Node
	here := map[string]bool{}
	for m := range s.reports {
		here[m.node] = true
		if a := s.announcing.agents[m]; a != nil && s.counts(m) {
			all = append(all, keyring.Node{Keys: a.keys, Sign: a.sign})
		}
	}
	for node := range s.announcing.stored {
		if _, exists := s.nodes[node]; exists && !here[node] {
			all = append(all, keyring.Node{Sign: keyring.NoKey, Unknown: true})
		}
	}
	return all, true
}

// counts reports whether the maps of an agent may still be in use: it is connected, or
// its node takes part.
func (s *Server) counts(m member) bool {
	_, takesPart := s.announcing.stored[m.node]
	return takesPart || s.sessions[m] != nil
}

// holds reports whether a new leader waits for agents that the previous one had.
func (s *Server) holds() bool {
	return len(s.announcing.awaited) > 0 && s.o.Clock().Before(s.announcing.holdUntil)
}

// hold begins to wait for the agents of the nodes that announced clients before.
func (s *Server) hold() {
	a := &s.announcing
	a.awaited, a.holdUntil, a.peers, a.addressesChanged = map[string]bool{}, s.o.Clock().Add(s.o.Hold), peerHistory{}, true
	for node := range a.stored {
		a.awaited[node] = true
	}
	time.AfterFunc(s.o.Hold, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.addressesMayHaveChanged()
	})
}

// joinAnnouncing records that an agent has joined, and gives its node a boot number.
func (s *Server) joinAnnouncing(c *session, hello *wire.Hello) {
	a := &s.announcing
	delete(a.awaited, c.node)
	s.peersChanged(c.node)
	c.announces = hello.Announces && hello.BootId != "" && len(hello.BootId) <= maxBootID
	before := a.agents[c.member]
	if !c.announces {
		s.forgetAgent(c.member)
		return
	}
	c.peersSums = hello.PeersSums
	now := readAnnouncer(hello.Status.GetAnnouncing())
	a.agents[c.member] = now
	if before == nil || !slices.Equal(before.claims, now.claims) {
		s.addressesMayHaveChanged()
	}
	a.boots[c.node] = nextBoot(a.boots[c.node], hello.BootId, hello.Status.GetAnnouncing().GetBoot())
}

// maxBootID is more than the 36 characters that Linux has.
const maxBootID = 64

// nextBoot returns the number of a kernel's boot, given the last one that is known, and
// the number that is in the maps of that kernel.
func nextBoot(last lb.Boot, id string, held uint32) lb.Boot {
	switch {
	case last.ID == id && last.Number != 0:
		return last
	case last.Number == 0 && held == uint32(uint16(held)) && held != 0: // what was stored is lost
		return lb.Boot{ID: id, Number: uint16(held)}
	}
	return lb.Boot{ID: id, Number: lb.NextBoot(last.Number)}
}

func readAnnouncer(st *wire.AnnouncingStatus) *announcer {
	a := &announcer{sign: keyring.NoKey}
	for _, k := range st.GetKeys() {
		if k.GetId() < lb.AnnounceKeys {
			a.keys[k.Id] = k.Sum
		}
	}
	if st != nil && st.Sign != nil && *st.Sign < lb.AnnounceKeys {
		a.sign = int(*st.Sign)
	}
	list := st.GetAddresses()
	for _, b := range list[:min(len(list), lb.MaxNodeAddresses)] {
		if addr, ok := netip.AddrFromSlice(b); ok && addr.Unmap().IsGlobalUnicast() {
			a.claims = append(a.claims, addr.Unmap())
		}
	}
	return a
}

// receiveAnnouncing records what an agent's status says, and reports whether that
// matters to a rotation or to other nodes.
func (s *Server) receiveAnnouncing(c *session, st *wire.AnnouncingStatus) bool {
	before := s.announcing.agents[c.member]
	if before == nil {
		return false
	}
	now := readAnnouncer(st)
	claims := !slices.Equal(now.claims, before.claims)
	if now.sign == before.sign && now.keys == before.keys && !claims {
		return false
	}
	s.announcing.agents[c.member] = now
	s.peersChanged(c.node)
	if claims {
		s.addressesMayHaveChanged()
	}
	return true
}

// encodeAnnouncing returns the message for an agent.
func (s *Server) encodeAnnouncing(c *session) *wire.Announcing {
	a := &s.announcing
	ports := s.settings[c.application].ClusterSNAT
	w := &wire.Announcing{KeepOthers: true, Ports: &wire.Ports{Min: uint32(ports.First), Max: uint32(ports.Last)}}
	if boot := a.boots[c.node]; a.used[c.node] == boot {
		w.Boot = uint32(boot.Number)
	}
	if a.ring == nil {
		return w
	}
	w.KeepOthers = a.ring.KeepOthers
	for _, k := range a.ring.Keys {
		w.Keys = append(w.Keys, &wire.AnnounceKey{Id: uint32(k.ID), Key: k.Key[:]})
	}
	if a.ring.Sign != keyring.NoKey {
		w.Sign = new(uint32(a.ring.Sign))
	}
	return w
}

// forgetAgent drops what an agent has said.
func (s *Server) forgetAgent(m member) {
	if s.announcing.agents[m] != nil {
		delete(s.announcing.agents, m)
		s.addressesMayHaveChanged()
	}
}

// peersChanged has agents hear soon of what has changed of a node.
func (s *Server) peersChanged(node string) {
	s.announcing.changed[node] = true
	s.refreshSoon()
}

// addressesMayHaveChanged has agents hear soon of what has changed of any node.
func (s *Server) addressesMayHaveChanged() {
	s.announcing.addressesChanged = true
	s.refreshSoon()
}

func (s *Server) refreshSoon() {
	if s.announcing.due || !s.leading {
		return
	}
	s.announcing.due = true
	time.AfterFunc(s.o.PeersEvery, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.announcing.due = false
		s.refreshPeers(false)
	})
}

// refreshPeers finds out what has changed, of all nodes or of those that are noted, and
// has agents hear of it.
func (s *Server) refreshPeers(all bool) {
	a := &s.announcing
	if !s.leading || s.holds() {
		return
	}
	if a.addressesChanged {
		s.believe()
		all = true
	}
	if all {
		for node := range a.peers.now {
			a.changed[node] = true
		}
		for node := range s.nodes {
			a.changed[node] = true
		}
	}
	signs, now := s.signingSum(), map[string]*wire.Peer{}
	for node := range a.changed {
		now[node] = s.peerOf(node, signs)
	}
	a.changed, a.addressesChanged = map[string]bool{}, false
	if a.peers.set(now) {
		s.notify()
		s.wake(func(c *session) bool { return c.announces })
	}
}

// peerOf returns what others hear of a node; nil: nothing.
func (s *Server) peerOf(node string, signs uint64) *wire.Peer {
	_, stored := s.announcing.stored[node]
	boot, agents := s.announcing.used[node], s.agentsOf(node)
	if _, exists := s.nodes[node]; !exists || !stored && len(agents) == 0 {
		return nil
	}
	addresses := s.announcing.addresses[node]
	p := &wire.Peer{Node: node, Boot: uint32(boot.Number), Reason: s.whyNot(node, agents, signs, len(addresses) > 0)}
	p.Undoes = p.Reason == ""
	if p.Boot != 0 {
		for _, a := range addresses {
			p.Addresses = append(p.Addresses, a.AsSlice())
		}
	}
	return p
}

// agentsOf returns the agents of a node that have reported: those that are
// connected, or if none is, those that were.
func (s *Server) agentsOf(node string) (all []member) {
	connected := false
	for application := range s.settings {
		m := member{application, node}
		if s.reports[m] == nil {
			continue
		}
		all = append(all, m)
		connected = connected || s.sessions[m] != nil
	}
	if connected {
		all = slices.DeleteFunc(all, func(m member) bool { return s.sessions[m] == nil })
	}
	return all
}

// signingSum returns the sum of the key that nodes sign by. If the server does not know
// it, it is the one that most of them name; 0: none.
func (s *Server) signingSum() (sum uint64) {
	if r := s.announcing.ring; r != nil {
		if k, ok := r.Key(r.Sign); ok {
			return k.Key.Sum()
		}
	}
	named := map[uint64]int{}
	for _, a := range s.announcing.agents {
		if a.sign != keyring.NoKey && a.keys[a.sign] != 0 {
			named[a.keys[a.sign]]++
		}
	}
	for held, n := range named {
		if n > named[sum] || n == named[sum] && held < sum {
			sum = held
		}
	}
	return sum
}

// whyNot returns why clients must not be announced to a node, given its agents; "": they
// may. All its programs have to undo but those that drain: what is announced is new
// to them.
func (s *Server) whyNot(node string, agents []member, signs uint64, reachable bool) string {
	undoes := false
	for _, m := range agents {
		r, a := s.reports[m], s.announcing.agents[m]
		switch {
		case r.Draining:
			continue
		case a == nil:
			return lb.ReasonEarlier
		case r.HeartbeatLost:
			return lb.ReasonNoHeartbeat
		case signs == 0 || !slices.Contains(a.keys[:], signs):
			return lb.ReasonNotAcked
		}
		undoes = true
	}
	boot := s.announcing.boots[node]
	switch {
	case len(agents) == 0:
		return lb.ReasonAway
	case !undoes:
		return lb.ReasonEarlier
	case s.announcing.used[node] != boot || boot.Number == 0:
		return lb.ReasonNotAcked
	case !reachable:
		return lb.ReasonNoAddress
	}
	return ""
}

// believe finds out the addresses of each node, and which claims it does not believe. A
// node has those that its Node object names. Of what its agent claims, it has what
// lies in its podCIDRs, as the ends of tunnels do, and is not a pod's. No address is
// that of two nodes.
func (s *Server) believe() {
	const several = "" // no node's name
	owners := map[netip.Addr]string{}
	own := func(addr netip.Addr, node string) {
		if owner, owned := owners[addr]; owned && owner != node {
			node = several
		}
		owners[addr] = node
	}
	for name, n := range s.nodes {
		for _, addr := range n.Addresses {
			own(addr, name)
		}
		for _, addr := range n.Tunnels {
			own(addr, name)
		}
	}
	type claim struct {
		addr netip.Addr
		node string
	}
	var fit []claim // what no Node object names
	for m, agent := range s.announcing.agents {
		for _, addr := range agent.claims {
			inPodCIDR := func(p netip.Prefix) bool { return p.Contains(addr) }
			if _, owned := owners[addr]; !owned && slices.ContainsFunc(s.nodes[m.node].PodCIDRs, inPodCIDR) && !s.announcing.occupied(addr) {
				fit = append(fit, claim{addr, m.node})
			}
		}
	}
	for _, c := range fit {
		own(c.addr, c.node)
	}
	addresses, ignored := map[string][]netip.Addr{}, map[string][]netip.Addr{}
	for addr, node := range owners {
		if node != several {
			addresses[node] = append(addresses[node], addr)
		}
	}
	for node, addrs := range addresses {
		slices.SortFunc(addrs, netip.Addr.Compare)
		addresses[node] = addrs[:min(len(addrs), maxPeerAddresses)]
	}
	for m, agent := range s.announcing.agents {
		for _, addr := range agent.claims {
			if owners[addr] != m.node && !slices.Contains(ignored[m.node], addr) {
				ignored[m.node] = append(ignored[m.node], addr)
			}
		}
	}
	for _, addrs := range ignored {
		slices.SortFunc(addrs, netip.Addr.Compare)
	}
	s.announcing.addresses, s.announcing.ignored = addresses, ignored
}

// maxPeerAddresses is how many addresses of a node others hear of.
const maxPeerAddresses = 2 * lb.MaxNodeAddresses

// readAnnouncing is what a report has of a status.
func readAnnouncing(st *wire.AnnouncingStatus) *lb.Announcing {
	if st == nil {
		return nil
	}
	a := &lb.Announcing{Backends: count(uint64(st.Backends)), Peers: count(uint64(st.Peers)), Failing: count(uint64(st.Failing))}
	for _, u := range st.Unannounced[:min(len(st.Unannounced), lb.MaxReasons)] {
		a.Unannounced = append(a.Unannounced, lb.Unannounced{Reason: clip(u.GetReason()), Backends: count(uint64(u.GetBackends()))})
	}
	for _, p := range st.Pairs[:min(len(st.Pairs), lb.MaxPairs)] {
		a.Pairs = append(a.Pairs, lb.Pair{
			Node: clip(p.GetNode()), Answered: lb.Forms(p.GetAnswered()), Unanswered: lb.Forms(p.GetUnanswered()),
			Undone: p.GetUndone(), Plain: p.GetPlain(), Refused: p.GetRefused(), Asked: p.GetAsked(), Unannounced: count(uint64(p.GetUnannounced())),
		})
	}
	return a
}

// withoutCounts returns what of it is worth waking somebody for.
func withoutCounts(a *lb.Announcing) *lb.Announcing {
	if a == nil {
		return nil
	}
	same := &lb.Announcing{Peers: a.Peers, Failing: a.Failing}
	for _, u := range a.Unannounced {
		same.Unannounced = append(same.Unannounced, lb.Unannounced{Reason: u.Reason})
	}
	return same
}

// completeReport fills in what others than the agent know of it.
func (s *Server) completeReport(r *lb.Report) {
	a := &s.announcing
	if a.agents[member{r.Application, r.Node}] == nil {
		return
	}
	r.Boot, r.UndoesNot = a.boots[r.Node], lb.ReasonNotAcked
	if p := a.peers.now[r.Node]; p != nil {
		r.UndoesNot = p.Reason
	}
	r.IgnoredAddresses = a.ignored[r.Node]
}

// announcingMetrics returns the metrics of keys and pairs of nodes.
func (s *Server) announcingMetrics() []prometheus.Collector {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return value()
		})
	}
	ring := func() keyring.Ring {
		if s.announcing.ring == nil {
			return keyring.Ring{Sign: keyring.NoKey}
		}
		return *s.announcing.ring
	}
	all := []prometheus.Collector{
		gauge("blixt_announce_key_age_seconds", "Age of the key by which nodes sign what they announce to each other; 0: there is none.", nil, func() float64 {
			r := ring()
			k, ok := r.Key(r.Sign)
			if !ok {
				return 0
			}
			return max(s.o.Clock().Sub(k.Made).Seconds(), 0)
		}),
		gauge("blixt_announce_agents_without_key", "Agents whose maps do not hold the newest key. A rotation waits ten minutes for them.", nil, func() float64 {
			r, n := ring(), 0
			if len(r.Keys) == 0 {
				return 0
			}
			newest := r.Keys[len(r.Keys)-1]
			for m, a := range s.announcing.agents {
				if s.counts(m) && a.keys[newest.ID] != newest.Key.Sum() {
					n++
				}
			}
			return float64(n)
		}),
		gauge("blixt_announce_pairs_failing", "Pairs of nodes of which one does not answer the other's probes in each form: some backends see the address of a node.", nil, func() float64 {
			n := 0
			for _, r := range s.reports {
				if r.Announcing != nil {
					n += r.Announcing.Failing
				}
			}
			return float64(n)
		}),
	}
	for _, phase := range []keyring.Phase{keyring.Settled, keyring.Spreading, keyring.Retiring} {
		all = append(all, gauge("blixt_announce_key_rotation", "1 for the phase of the rotation of the key by which nodes sign.", prometheus.Labels{"phase": string(phase)}, func() float64 {
			if r := ring(); len(r.Keys) > 0 && r.Phase() == phase {
				return 1
			}
			return 0
		}))
	}
	return all
}
