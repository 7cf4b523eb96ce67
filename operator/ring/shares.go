// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"sync"
)

const (
	// mostFactor bounds the correction of a distance, both ways.
	mostFactor = 1.5
	// reach is how much farther than the nearest a candidate can be.
	reach = mostFactor * mostFactor
	// rounds of correction: later ones change next to nothing.
	rounds = 8
)

// tolerance returns how far a share may be from what is due, as a part of it.
// The figures in the package comment follow from it.
func tolerance(members int) float64 {
	return min((math.Sqrt(float64(members))-1)/70, 0.15)
}

// contest is a slot, or a pair that is not split, that may change its owner.
type contest struct {
	slot  uint32
	slots uint32 // 1 or 2
	// bound is how many times as far away as the owner all other members are, at
	// least.
	bound    float64
	from, to uint32 // its candidates; none: they are not known yet
	members  uint64 // the set of their members, by the last bits of their numbers
}

func bit(member uint32) uint64 { return 1 << (member % 64) }

// near is the bound from which on a slot is no contest, as next to no ring needs
// corrections by so much.
const near = 1.5

// divide returns the owner of each slot, and how many slots each member holds.
func (s *scratch) divide(split uint32) (owners []uint32, held []int) {
	owners, held = make([]uint32, 1<<s.points.slotBits), make([]int, len(s.points.due))
	s.points.within, s.candidates = near, s.candidates[:0]
	s.look(split, owners)
	for i := range s.contests {
		if c := &s.contests[i]; c.bound == 1 { // the first look cannot say who is the nearest
			give(owners, c.slot, c.slots, s.winner(s.gather(c), nil))
		}
	}
	for _, owner := range owners {
		held[owner]++
	}
	s.correct(split, owners, held)
	return owners, held
}

// parallel is the number of slots from which several processors look at them: for
// fewer it takes less time than a goroutine's start is worth.
const parallel = 16384

// look gives each slot to the nearest member, and finds the contests, in any order: a
// slot's owner depends on no other slot.
func (s *scratch) look(split uint32, owners []uint32) {
	workers := 1
	if len(owners) >= parallel {
		workers = min(runtime.GOMAXPROCS(0), len(s.found))
	}
	pairs := uint32(len(owners) / 2)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			found := s.found[w][:0]
			from, to := pairs*uint32(w)/uint32(workers), pairs*uint32(w+1)/uint32(workers)
			for slot, slots := range s.points.slots(split, from, to) {
				owner, bound := s.points.nearest(s.points.position(slot))
				if bound <= s.points.within {
					found = append(found, contest{slot: slot, slots: slots, bound: bound})
				}
				give(owners, slot, slots, owner)
			}
			s.found[w] = found
		})
	}
	all.Wait()
	s.contests = s.contests[:0]
	for _, found := range s.found[:workers] {
		s.contests = append(s.contests, found...)
	}
}

// gather finds the candidates of a contest.
func (s *scratch) gather(c *contest) *contest {
	if c.to > c.from {
		return c
	}
	c.from = uint32(len(s.candidates))
	s.candidates = s.points.candidates(s.candidates, s.points.position(c.slot))
	c.to = uint32(len(s.candidates))
	for _, found := range s.candidates[c.from:c.to] {
		c.members |= bit(found.member)
	}
	return c
}

// correct corrects the distances until shares are within the tolerance.
func (s *scratch) correct(split uint32, owners []uint32, held []int) {
	due := s.points.due
	t := tolerance(len(due))
	s.factors = resize(s.factors, len(due))
	for i := range s.factors {
		s.factors[i] = 1
	}
	spread, all := 1.0, false
	open := 0 // so many of the contests can change their owner
	for range rounds {
		changed := uint64(0)
		for i, n := range held {
			h, least, most, next := float64(n), due[i]*(1-t), due[i]*(1+t), s.factors[i]
			switch {
			case h > most:
				next = min(next*correction(h, most), mostFactor)
			case h < least:
				next = max(next*correction(h, least), 1/mostFactor)
			}
			if next != s.factors[i] {
				s.factors[i] = next
				changed |= bit(uint32(i))
			}
		}
		if changed == 0 {
			return
		}
		spread = max(spread, slices.Max(s.factors)/slices.Min(s.factors)*slack)
		if spread > near && !all { // also those that seemed to be none
			all = true
			s.points.within, s.candidates, open = reach, s.candidates[:0], 0
			s.look(split, make([]uint32, len(owners)))
		}
		// Only where the bound is less can corrections make another one the owner.
		for i := open; i < len(s.contests); i++ {
			if s.contests[i].bound <= spread {
				s.contests[i], s.contests[open] = s.contests[open], s.contests[i]
				s.gather(&s.contests[open])
				open++
			}
		}
		for i := range s.contests[:open] {
			c := &s.contests[i]
			if c.members&changed == 0 {
				continue
			}
			if before, now := owners[c.slot], s.winner(c, s.factors); before != now {
				give(owners, c.slot, c.slots, now)
				held[before] -= int(c.slots)
				held[now] += int(c.slots)
			}
		}
	}
}

func give(owners []uint32, slot, slots, owner uint32) {
	for i := range slots {
		owners[slot+i] = owner
	}
}

// correction returns the factor for the distances of a member that holds
// another number of slots than it should. The root keeps few members, whose
// corrections add up, from swinging; one slot more on both sides keeps those
// with next to no slots from it.
func correction(held, bound float64) float64 { return math.Sqrt((held + 1) / (bound + 1)) }

// winner returns the nearest candidate, by corrected distances. Of two that are as
// near it is the one in the nearer slot, then the one that comes first.
func (s *scratch) winner(c *contest, factors []float64) uint32 {
	var nearest candidate
	least := math.Inf(1)
	for _, c := range s.candidates[c.from:c.to] {
		d := c.distance
		if factors != nil {
			d *= factors[c.member]
		}
		if d < least || d == least && s.points.before(c, nearest) {
			nearest, least = c, d
		}
	}
	return nearest.member
}

// before reports whether a candidate comes before another one that is as near.
func (p *points) before(a, b candidate) bool {
	slots := positionBits - p.slotBits
	return cmp.Or(cmp.Compare(a.apart>>slots, b.apart>>slots), cmp.Compare(a.member, b.member)) < 0
}
