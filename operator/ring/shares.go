// SPDX-License-Identifier: Apache-2.0

package ring

import "math"

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

// divide returns the owner of each slot.
func divide(candidates [][]candidate, due []float64) []uint32 {
	least, most := make([]float64, len(due)), make([]float64, len(due))
	factors := make([]float64, len(due))
	t := tolerance(len(due))
	for i, d := range due {
		least[i], most[i], factors[i] = d*(1-t), d*(1+t), 1
	}
	owners := make([]uint32, len(candidates))
	held := make([]float64, len(due))
	for range rounds {
		own(owners, candidates, factors)
		clear(held)
		for _, o := range owners {
			held[o]++
		}
		for i, h := range held {
			switch {
			case h > most[i]:
				factors[i] = min(factors[i]*correction(h, most[i]), mostFactor)
			case h < least[i]:
				factors[i] = max(factors[i]*correction(h, least[i]), 1/mostFactor)
			}
		}
	}
	own(owners, candidates, factors)
	return owners
}

// correction returns the factor for the distances of a member that holds
// another number of slots than it should. The root keeps few members, whose
// corrections add up, from swinging; one slot more on both sides keeps those
// with next to no slots from it.
func correction(held, bound float64) float64 { return math.Sqrt((held + 1) / (bound + 1)) }

// own gives each slot to the nearest of its candidates, by corrected distances.
// The odd slot of a pair that is not split has none, and follows the even one.
func own(owners []uint32, candidates [][]candidate, factors []float64) {
	var owner uint32
	for slot, cs := range candidates {
		nearest := math.Inf(1)
		for _, c := range cs {
			if d := c.distance * factors[c.member]; d < nearest {
				owner, nearest = c.member, d
			}
		}
		owners[slot] = owner
	}
}
