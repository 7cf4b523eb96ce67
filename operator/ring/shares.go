// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"cmp"
	"math"
	"slices"
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
	s.contests, s.candidates = s.contests[:0], s.candidates[:0]
	for slot, slots := range s.points.slots(split) {
		owner, bound := s.points.nearest(s.points.position(slot))
		if bound <= near {
			c := contest{slot: slot, slots: slots, bound: bound}
			if bound == 1 {
				owner = s.winner(s.gather(&c), nil)
			}
			s.contests = append(s.contests, c)
		}
		give(owners, slot, slots, owner)
		held[owner] += int(slots)
	}
	s.correct(split, owners, held)
	return owners, held
}

// gather finds the candidates of a contest.
func (s *scratch) gather(c *contest) *contest {
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
		// Only where the bound is less can corrections make another one the owner.
		spread = max(spread, slices.Max(s.factors)/slices.Min(s.factors)*slack)
		if spread > near && !all {
			all = true
			s.contests = s.contests[:0]
			for slot, slots := range s.points.slots(split) {
				if _, bound := s.points.nearest(s.points.position(slot)); bound <= reach {
					s.contests = append(s.contests, contest{slot: slot, slots: slots, bound: bound})
				}
			}
		}
		for i := range s.contests {
			c := &s.contests[i]
			if c.bound > spread {
				continue
			}
			if c.to == c.from {
				s.gather(c)
			}
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
