// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"cmp"
	"math"
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

// contest is a slot, or a pair that is not split, that has candidates of several
// members.
type contest struct {
	slot     uint32
	slots    uint32 // 1 or 2
	from, to uint32 // its candidates
	members  uint64 // the set of them, by the last bits of their numbers
}

func bit(member uint32) uint64 { return 1 << (member % 64) }

// divide returns the owner of each slot, and how many slots each member holds.
func (s *scratch) divide(split uint32) (owners []uint32, held []int) {
	p := &s.points
	owners, held = make([]uint32, 1<<p.slotBits), make([]int, len(p.due))
	s.contests, s.candidates = s.contests[:0], s.candidates[:0]
	for pair := range uint32(len(owners) / 2) {
		if p.splits(pair, split) {
			s.first(owners, held, 2*pair, 1)
			s.first(owners, held, 2*pair+1, 1)
		} else {
			s.first(owners, held, 2*pair, 2)
		}
	}
	s.correct(owners, held)
	return owners, held
}

// first gives a slot, or a pair that is not split, to the nearest member.
func (s *scratch) first(owners []uint32, held []int, slot, slots uint32) {
	from := len(s.candidates)
	s.candidates = s.points.nearest(s.candidates, slot<<(positionBits-s.points.slotBits))
	found := s.candidates[from:]
	owner := found[0].member
	members := uint64(0)
	several := false
	for _, c := range found {
		members |= bit(c.member)
		several = several || c.member != owner
	}
	if several {
		c := contest{slot, slots, uint32(from), uint32(len(s.candidates)), members}
		owner = s.winner(c, nil)
		s.contests = append(s.contests, c)
	} else {
		s.candidates = s.candidates[:from]
	}
	give(owners, slot, slots, owner)
	held[owner] += int(slots)
}

// correct corrects the distances until shares are within the tolerance.
func (s *scratch) correct(owners []uint32, held []int) {
	due := s.points.due
	t := tolerance(len(due))
	factors := resize(s.factors, len(due))
	for i := range factors {
		factors[i] = 1
	}
	s.factors = factors
	for range rounds {
		changed := uint64(0)
		for i, n := range held {
			h, least, most, next := float64(n), due[i]*(1-t), due[i]*(1+t), factors[i]
			switch {
			case h > most:
				next = min(next*correction(h, most), mostFactor)
			case h < least:
				next = max(next*correction(h, least), 1/mostFactor)
			}
			if next != factors[i] {
				factors[i] = next
				changed |= bit(uint32(i))
			}
		}
		if changed == 0 {
			return
		}
		for _, c := range s.contests {
			if c.members&changed == 0 {
				continue
			}
			before, now := owners[c.slot], s.winner(c, factors)
			if before != now {
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
func (s *scratch) winner(c contest, factors []float64) uint32 {
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
