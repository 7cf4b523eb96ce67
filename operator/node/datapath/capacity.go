// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"math"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// What does not fit into the tables is left out, and the rest is served:
//
//   - What is no longer wanted always leaves.
//   - If all rings together do not fit, the largest are made smaller, until they
//     do: shares are less exact then, but everybody is served.
//   - A frontend that is served stays. It gets those of its new backends that
//     have room.
//   - A new frontend comes as a whole or not at all, the first by key first. So
//     nobody is served by a few backends that were meant to be many.
//   - If all backends together do not fit, no frontend grows beyond what all can
//     have (limit), and an eighth stays free. So ids that one frontend frees, as its
//     pods are replaced, are there for its next pods, and not for another that has
//     more than its share.
//
// What is left out is tried again with every plan.
//
// Limits follow from the state, so all nodes have the same. A frontend that exceeds
// a limit, as it was there before, keeps what it has until it changes or, of a
// ring, until others need the room.

// limit returns how many backends a frontend may have before it has to leave
// room for others: all, if all fit. Otherwise it is the most that every frontend
// may have that wants so many.
func (t *Target) limit(size int) int {
	if t.backends <= size {
		return size
	}
	size -= size / 8 // for those that want less for a moment
	wants := make([]int, 0, len(t.frontends))
	for _, f := range t.frontends {
		wants = append(wants, len(f.Backends))
	}
	slices.Sort(wants)
	for i, n := range wants {
		share := size / (len(wants) - i)
		if n > share {
			return share
		}
		size -= n
	}
	return size // not reached: they do not fit
}

// rings is the part of the slab that is in use, by the sizes of rings.
type rings map[uint32]int

func (r rings) add(size uint32, n int) {
	if size > 0 {
		r[size] += n
	}
	if r[size] == 0 {
		delete(r, size)
	}
}

// slots returns how many slots they take.
func (r rings) slots() int { return r.limited(math.MaxUint32) }

// limited returns how many slots they take if none is larger than most.
func (r rings) limited(most uint32) (n int) {
	for size, count := range r {
		n += count * int(even(min(size, most)))
	}
	return n
}

// limit returns the size that rings may have, so that all fit, with room for one
// more: see hasRoom.
func (r rings) limit(slab int) uint32 {
	size := uint32(ring.MaxSize)
	for size > ring.Size(1) && r.limited(size)+int(size) > slab {
		size /= 2
	}
	return size
}

// hasRoom reports whether a ring may take the place of one of size old, 0 for
// none. A ring is written beside the one that it replaces. So there must be room
// for one more of the largest size, or nothing could change any more.
func (r rings) hasRoom(slab int, old, size uint32) bool {
	if size <= old {
		return true
	}
	largest := size
	for other := range r {
		largest = max(largest, other)
	}
	return r.slots()-int(even(old))+int(even(size))+int(even(largest)) <= slab
}

// leftOut collects what a plan leaves out.
type leftOut struct {
	full *lb.TableFull
	held lb.Sum // the sum of what the tables hold once the plan is carried out
	// policies are those of which something is left out.
	policies map[string]bool
}

// policy records that something of a policy is left out.
func (l *leftOut) policy(name, table string) {
	if l.full == nil {
		l.full = &lb.TableFull{}
	}
	if l.policies[name] {
		return
	}
	if l.policies == nil {
		l.policies = map[string]bool{}
	}
	l.policies[name] = true
	l.full.NamePolicy(name, table)
	l.held.Add(lb.SumOf([]byte("without policy " + name)))
}

// refuses records a frontend that refuses all new flows for want of a policy.
func (l *leftOut) refuses(f wanted) {
	l.full.Refusing++
	l.full.Name(f.Key(), f.Gateway)
}

// record counts a frontend that is left out or, if it is served, has only the form
// next; nil: an earlier one.
func (l *leftOut) record(table string, f wanted, next *lb.Frontend, served bool) {
	if l.full == nil {
		l.full = &lb.TableFull{}
	}
	if l.full.Table == "" || !served && l.full.Frontends == 0 {
		l.full.Table = table // one that leaves frontends out says more
	}
	l.held.Remove(f.sum)
	if next != nil {
		l.held.Add(next.Sum())
	}
	if served {
		l.full.Reduced++
		return
	}
	l.full.Frontends++
	l.full.Name(f.Key(), f.Gateway)
}

// needed returns how many entries of a table the whole state needs.
func (t *Target) needed(table string) int {
	switch table {
	case "addresses":
		return len(t.addresses)
	case "frontends":
		return len(t.frontends)
	case "backends":
		return t.backends
	case "policies":
		return len(t.policies.byKey)
	case "sources":
		return t.policies.neededSources()
	case "port_ranges":
		return t.mostRanges()
	}
	largest := uint32(0) // see hasRoom
	for size := range t.rings {
		largest = max(largest, size)
	}
	return t.rings.slots() + int(largest)
}

// tableSize returns the number of entries that a state may use.
func (s Sizes) tableSize(table string) int {
	switch table {
	case "addresses":
		return s.Addresses
	case "frontends":
		return s.Frontends
	case "backends":
		return s.Backends - 1 // id 0 is BACKEND_REJECT
	case "policies":
		return max(s.Policies-1, 0) // id 0 is none
	case "sources":
		return s.Sources
	case "port_ranges":
		return MaxPortRanges // of one address and protocol
	}
	return s.RingSlots
}

// shrinkAtOnce is how many rings a plan has made smaller: each costs time.
const shrinkAtOnce = 64

// shrink has rings made smaller that exceed the limit, if a frontend has found no
// room for its ring.
func (p *planner) shrink() {
	for key := range p.have.resize {
		if s := p.have.Frontends[key]; s != nil && uint32(len(s.Slots)) > p.ringLimit {
			return // those of the last plan are not done yet
		}
	}
	var large []lb.Key
	for key, s := range p.have.Frontends {
		if _, wanted := p.target.frontends[key]; wanted && p.keepsRing(key, s) && uint32(len(s.Slots)) > p.ringLimit {
			large = append(large, key)
		}
	}
	slices.SortFunc(large, lb.Key.Compare)
	for _, key := range large[:min(shrinkAtOnce, len(large))] {
		p.plan.resize[key] = true
		p.plan.frontends[key] = true
		p.wait(p.now)
	}
}

// keepsRing reports whether a frontend's ring, if it has one, stays as it is.
func (p *planner) keepsRing(key lb.Key, s *Served) bool {
	next := p.plan.served[key]
	return next == nil || len(s.Slots) > 0 && len(next.Slots) > 0 && &next.Slots[0] == &s.Slots[0]
}

// fewerBackends returns the largest number of backends for which a ring is
// smaller than for n; 0: there is no smaller ring.
func fewerBackends(n int) int {
	size := ring.Size(n)
	for n > 0 && ring.Size(n) == size {
		n--
	}
	return n
}
