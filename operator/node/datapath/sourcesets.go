// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Sets of sources lie in one table, each under an id. A set is never changed: another
// version is written under another id, and one store in each of its policies
// publishes it. So a packet sees one version or the other. A plan that finds a set
// missing writes it. The next plan knows whether all of it has found room, and
// publishes it. A set that nobody has had for reuseGrace is deleted.
//
// After a restart, a set is known by its content.

// ErrNoRoom is the error of PutSources if the kernel has no room for an entry.
var ErrNoRoom = errors.New("no room")

// heldSets are the sets in the tables.
type heldSets struct {
	byID     map[uint32]*heldSet
	byDigest map[digest]uint32 // of sets that are complete
	entries  int               // of all
	last     uint32            // the largest id that there ever was
	// noRoom tells until when sets are not tried again that the kernel had no room for.
	noRoom map[digest]time.Time
}

// heldSet is a set in the tables.
type heldSet struct {
	digest  digest
	entries func() []SourceEntry // with the set's id
	size    int
	users   int // policies in use that have it
	// unused is since when it has had none.
	unused time.Time
}

func newHeldSets() heldSets {
	return heldSets{byID: map[uint32]*heldSet{}, byDigest: map[digest]uint32{}, noRoom: map[digest]time.Time{}}
}

// readSets reads `sources`. The elements of `policies` must have been read.
func (p *heldPolicies) readSets(t Tables, now time.Time) error {
	found := map[uint32][]SourceEntry{}
	err := t.EachSource(func(entries []SourceEntry) bool {
		for _, e := range entries {
			found[e.Key.Set] = append(found[e.Key.Set], e)
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("read sources: %w", err)
	}
	for _, e := range p.elements {
		p.sets.last = max(p.sets.last, setOfPolicy(e))
		if set := setOfPolicy(e); e.Key != 0 && set != 0 && found[set] == nil {
			found[set] = []SourceEntry{} // an empty one
		}
	}
	for _, id := range slices.Sorted(maps.Keys(found)) {
		entries := found[id]
		slices.SortFunc(entries, compareSources)
		entries = slices.CompactFunc(entries, func(a, b SourceEntry) bool { return a == b })
		p.sets.add(id, &heldSet{digestOf(entries), func() []SourceEntry { return entries }, len(entries), 0, now})
	}
	for _, e := range p.elements {
		if e.Key != 0 {
			p.sets.use(setOfPolicy(e), 1, now)
		}
	}
	return nil
}

func (s *heldSets) add(id uint32, set *heldSet) {
	s.byID[id], s.byDigest[set.digest] = set, id
	s.entries += set.size
	s.last = max(s.last, id)
}

func (s *heldSets) remove(id uint32) {
	set := s.byID[id]
	if set == nil {
		return
	}
	delete(s.byID, id)
	if s.byDigest[set.digest] == id {
		delete(s.byDigest, set.digest)
	}
	s.entries -= set.size
}

// use adds n to the users of a set; 0 is none.
func (s *heldSets) use(id uint32, n int, now time.Time) {
	if set := s.byID[id]; set != nil {
		if set.users += n; set.users == 0 {
			set.unused = now
		}
	}
}

// neededSources returns how many entries all sets need: another version of the largest must
// have room beside them.
func (w *wantedPolicies) neededSources() int {
	largest := 0
	for _, s := range w.sets {
		largest = max(largest, s.size)
	}
	return w.entries + largest
}

// setState is whether a set can be published.
type setState int

const (
	setReady setState = iota
	setAwaited
	setNoRoom
	setUnknown
)

// setPlan is what a plan does about sets.
type setPlan struct {
	room  int // of `sources`, once all is done
	rests int // entries that will be deleted later
	until time.Time
	last  uint32
	asked map[digest]setState
}

// planSets plans the deletion of sets.
func (p *planner) planSets() {
	have, s := &p.have.policies.sets, &p.policies.sets
	*s = setPlan{room: p.have.Sizes.Sources - have.entries, last: have.last, asked: map[digest]setState{}}
	for _, id := range slices.Sorted(maps.Keys(have.byID)) {
		set := have.byID[id]
		if set.users > 0 || p.target.policies.digests[set.digest] > 0 && have.byDigest[set.digest] == id {
			continue
		}
		if until := set.unused.Add(reuseGrace); until.After(p.now) {
			s.rests += set.size
			if until.After(s.until) {
				s.until = until
			}
			p.later(until)
			continue
		}
		s.room += set.size
		p.add(stepFree, deleteSet{id, set})
	}
}

// setOf returns the id of the set of a policy, if all of it is in the tables. If not, it
// is written if there is room, and awaited.
func (p *planner) setOf(policy string) (id uint32, state setState) {
	set, known := p.target.policies.sets[policy]
	if !known { // of another update than the frontend
		if !slices.Contains(p.plan.Unknown, policy) {
			p.plan.Unknown = append(p.plan.Unknown, policy)
			p.left.held.Add(lb.SumOf([]byte("without sources of " + policy)))
		}
		return 0, setUnknown
	}
	if id, ok := p.have.policies.sets.byDigest[set.digest]; ok {
		return id, setReady
	}
	state, asked := p.policies.sets.asked[set.digest]
	if !asked {
		state = p.placeSet(set)
		p.policies.sets.asked[set.digest] = state
	}
	p.left.policy(policy, "sources")
	return 0, state
}

// placeSet plans a set that is not there.
func (p *planner) placeSet(set wantedSet) setState {
	s := &p.policies.sets
	if until := p.have.policies.sets.noRoom[set.digest]; until.After(p.now) {
		p.later(until)
		return setNoRoom
	}
	switch n := set.size; {
	case n <= s.room:
		s.room -= n
		for s.last++; s.last == 0 || p.have.policies.sets.byID[s.last] != nil; s.last++ {
		}
		p.add(stepSets, &writeSet{id: s.last, set: set})
		p.wait(p.now)
		return setAwaited
	case n <= s.room+s.rests:
		p.wait(s.until)
		return setAwaited
	}
	return setNoRoom
}

// noRoomFor is how long a set is not tried again that the kernel had no room for.
const noRoomFor = 5 * time.Second

// writeSet writes a set that nobody has yet.
type writeSet struct {
	id      uint32
	set     wantedSet
	written int
}

// write is no error if the kernel has no room: the rest of the plan is carried out.
func (o *writeSet) write(t Tables) (err error) {
	if o.written, err = t.PutSources(sourceEntries(o.set.SourceSet, o.id)); errors.Is(err, ErrNoRoom) {
		return nil
	}
	return err
}

func (o *writeSet) record(c *Contents, now time.Time) {
	sets := &c.policies.sets
	source := o.set.SourceSet
	set := &heldSet{o.set.digest, func() []SourceEntry { return sourceEntries(source, o.id) }, o.set.size, 0, now}
	if o.written < o.set.size { // what was written is deleted by the next plan
		all := set.entries
		n := o.written
		set.entries, set.size, set.unused = func() []SourceEntry { return all()[:n] }, n, time.Time{}
		set.digest = digest{}
		sets.noRoom[o.set.digest] = now.Add(noRoomFor)
	}
	sets.add(o.id, set)
}
func (o *writeSet) count(w *Written) { w.Sources += o.written }
func (o *writeSet) String() string {
	return fmt.Sprintf("write set %d of policy %s: %d prefixes", o.id, o.set.Policy, o.set.size)
}

// deleteSet deletes a set that no policy has.
type deleteSet struct {
	id  uint32
	set *heldSet
}

func (o deleteSet) write(t Tables) error            { return t.DeleteSources(o.set.entries()) }
func (o deleteSet) record(c *Contents, _ time.Time) { c.policies.sets.remove(o.id) }
func (o deleteSet) count(w *Written)                { w.Sources += o.set.size }
func (o deleteSet) String() string {
	return fmt.Sprintf("delete set %d: %d prefixes", o.id, o.set.size)
}
