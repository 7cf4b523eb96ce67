// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Status is how the node announces clients, and undoes what others announce.
type Status struct {
	// Announces is false if the program has no such maps.
	Announces bool         `json:"announces"`
	Boot      uint16       `json:"boot,omitempty"`
	Keys      []int        `json:"keys,omitempty"` // ids of those in the maps
	Sign      *int         `json:"sign,omitempty"` // id of the one that signs
	Ports     lb.PortRange `json:"ports"`
	// Backends is how many there are on other nodes that are to see their clients,
	// Unannounced why some do not.
	Backends    int              `json:"backends"`
	Unannounced []lb.Unannounced `json:"unannounced,omitempty"`
	// LeftOut is how many addresses of other nodes have no room in `peers`.
	LeftOut int    `json:"leftOut,omitempty"`
	Pairs   []Pair `json:"peers,omitempty"`
}

// Pair is how the node gets on with another one.
type Pair struct {
	Node    string       `json:"node"`
	Sources []netip.Addr `json:"sources,omitempty"`
	Undoes  bool         `json:"undoes"`
	Reason  string       `json:"reason,omitempty"` // why not
	Probes  []ProbeCount `json:"probes,omitempty"`
	// What the program counts, of all sources.
	Undone  uint64 `json:"undone"`
	Plain   uint64 `json:"plain"`
	Refused uint64 `json:"refused"`
	Asked   uint64 `json:"asked"`
	// Backends are those on that node that are to see their clients, Unannounced
	// those of them that do not.
	Backends    int `json:"backends"`
	Unannounced int `json:"unannounced"`
}

// ProbeCount is what has become of probes of one form.
type ProbeCount struct {
	lb.Forms `json:"-"`
	Form     string     `json:"form"`
	State    string     `json:"state"` // Answered, Unanswered or NotProbed
	Answered uint64     `json:"answered"`
	Lost     uint64     `json:"lost"`
	Last     *time.Time `json:"last,omitempty"` // answer
	// RoundTrip is that of the last answer.
	RoundTrip time.Duration `json:"-"`
}

// Failing reports whether the other node does not answer in some form.
func (p Pair) Failing() bool {
	return slices.ContainsFunc(p.Probes, func(c ProbeCount) bool { return c.State == Unanswered })
}

// What ProbeCount.State is.
const (
	NotProbed  = "not-probed"
	Answered   = "answered"
	Unanswered = "unanswered"
)

var stateNames = [...]string{unknown: NotProbed, good: Answered, bad: Unanswered}

// Status returns it as it is now, with pairs in the order of their names.
func (a *Announcer) Status() (Status, error) {
	s := Status{Announces: a.tables.Announces()}
	held, _, err := a.Held()
	if err != nil {
		return s, err
	}
	peers, err := a.tables.Peers()
	if err != nil {
		return s, fmt.Errorf("read peers: %w", err)
	}
	s.Boot, s.Ports = held.Boot, held.Ports
	for i, k := range held.Keys {
		if k != (lb.AnnounceKey{}) {
			s.Keys = append(s.Keys, i)
		}
	}
	if held.Sign >= 0 {
		s.Sign = &held.Sign
	}
	a.mu.RLock()
	defer a.mu.RUnlock()
	s.LeftOut = a.leftOut
	pairs := map[string]*Pair{}
	for name, p := range a.peers {
		pairs[name] = &Pair{Node: name, Sources: p.Sources, Undoes: p.Undoes, Reason: p.Reason}
		pairs[name].count(peers)
	}
	a.countBackends(&s, pairs)
	a.addProbes(pairs)
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		s.Pairs = append(s.Pairs, *pairs[name])
	}
	return s, nil
}

// ReadStatus returns the status of maps that another process keeps. recorded is what that
// process knew beside them: names, probes, backends. Peers that it did not know are named
// by their addresses.
func ReadStatus(t datapath.Announcing, recorded Status) (Status, error) {
	s, err := New(t, Options{}).Status()
	if err != nil {
		return s, err
	}
	peers, err := t.Peers()
	if err != nil {
		return s, fmt.Errorf("read peers: %w", err)
	}
	s.Backends, s.Unannounced, s.LeftOut = recorded.Backends, recorded.Unannounced, recorded.LeftOut
	rest := slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare)
	for _, p := range recorded.Pairs {
		p.Undone, p.Plain, p.Refused, p.Asked = 0, 0, 0, 0
		p.count(peers)
		s.Pairs = append(s.Pairs, p)
		rest = slices.DeleteFunc(rest, func(ip netip.Addr) bool { return slices.Contains(p.Sources, ip) })
	}
	for _, ip := range rest {
		p := Pair{Node: ip.String(), Sources: []netip.Addr{ip}}
		p.count(peers)
		s.Pairs = append(s.Pairs, p)
	}
	return s, nil
}

// count adds what the program counts.
func (p *Pair) count(peers map[netip.Addr]datapath.Peer) {
	for _, ip := range p.Sources {
		v := peers[ip]
		p.Undone, p.Plain, p.Refused, p.Asked = p.Undone+v.Undone, p.Plain+v.Plain, p.Refused+v.Refused, p.Asked+v.Asked
	}
}

// countBackends counts backends that are to see their clients, and those that do not.
func (a *Announcer) countBackends(s *Status, pairs map[string]*Pair) {
	reasons := map[string]int{}
	s.Backends = len(a.backends)
	for _, b := range a.backends {
		_, reason := a.hearing(b.protocol, b.Backend)
		if reason != "" {
			reasons[reason]++
		}
		if p := pairs[a.nodeOf(b.Backend)]; p != nil {
			p.Backends++
			if reason != "" {
				p.Unannounced++
			}
		}
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		s.Unannounced = append(s.Unannounced, lb.Unannounced{Reason: reason, Backends: reasons[reason]})
	}
}

// addProbes adds what is probed, in the order of forms.
func (a *Announcer) addProbes(pairs map[string]*Pair) {
	for _, i := range a.schedule.items {
		p := pairs[i.node]
		if p == nil || i.endpoints == nil {
			continue
		}
		c := ProbeCount{
			Forms: i.form, Form: i.form.String(), State: stateNames[i.state], Answered: i.answered, Lost: i.lost, RoundTrip: i.roundTrip,
		}
		if last := i.last; !last.IsZero() {
			c.Last = &last
		}
		p.Probes = append(p.Probes, c)
	}
	for _, p := range pairs {
		slices.SortFunc(p.Probes, func(a, b ProbeCount) int { return cmp.Compare(a.Forms, b.Forms) })
	}
}

// Report is Status as the operator gets it: with some pairs, the worst first.
func (s Status) Report() lb.Announcing {
	r := lb.Announcing{Backends: s.Backends, Unannounced: s.Unannounced, Peers: len(s.Pairs)}
	// The most frequent reasons, if there are too many.
	r.Unannounced = slices.Clone(r.Unannounced)
	slices.SortStableFunc(r.Unannounced, func(a, b lb.Unannounced) int { return cmp.Compare(b.Backends, a.Backends) })
	r.Unannounced = r.Unannounced[:min(len(r.Unannounced), lb.MaxReasons)]
	for _, p := range s.Pairs {
		if p.Failing() {
			r.Failing++
		}
	}
	for _, p := range s.Worst(lb.MaxPairs) {
		pair := lb.Pair{Node: p.Node, Undone: p.Undone, Plain: p.Plain, Refused: p.Refused, Asked: p.Asked, Unannounced: p.Unannounced}
		for _, c := range p.Probes {
			switch c.State {
			case Answered:
				pair.Answered |= c.Forms
			case Unanswered:
				pair.Unanswered |= c.Forms
			}
		}
		r.Pairs = append(r.Pairs, pair)
	}
	return r
}

// Worst returns n pairs at most: first those that fail, then those with the most
// backends that do not see their clients.
func (s Status) Worst(n int) []Pair {
	failing := func(p Pair) int {
		if p.Failing() {
			return 1
		}
		return 0
	}
	worst := slices.Clone(s.Pairs)
	slices.SortStableFunc(worst, func(a, b Pair) int {
		return cmp.Or(cmp.Compare(failing(b), failing(a)), cmp.Compare(b.Unannounced, a.Unannounced), cmp.Compare(b.Refused, a.Refused))
	})
	return worst[:min(len(worst), n)]
}
