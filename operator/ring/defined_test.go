// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// plainSlots is Slots as the package comment defines it, without any short cut:
// each slot looks at all points, in each round.
func plainSlots(members []Member, backends int) []uint32 {
	size, split := grown(backends)
	due := dueSlots(members, size)
	slotBits := bits.Len32(size) - 1
	shift := positionBits - slotBits
	n := pointsOf(len(members))
	var all []point
	for i, m := range members {
		state := hash(testKey, m)
		part := uint32(1 << positionBits / uint64(n))
		for j := range n {
			state += 0x9e3779b97f4a7c15
			all = append(all, point{uint32(mix(state))%part + j*part + uint32(hash(testKey, m)>>32), uint32(i)})
		}
	}
	type near struct {
		member, apart uint32
		distance      float64
	}
	candidates := make([][]near, size)
	for slot := range size {
		if pair := slot >> 1; slot&1 == 1 && bits.Reverse32(pair)>>(32-(slotBits-1)) >= split {
			continue
		}
		best := math.Inf(1)
		found := make([]near, 0, len(all))
		for _, pt := range all {
			apart := pt.position ^ slot<<shift
			d := (float64(apart) + 1) / due[pt.member]
			best = min(best, d)
			found = append(found, near{pt.member, apart >> shift, d})
		}
		for _, c := range found {
			if c.distance <= best*reach {
				candidates[slot] = append(candidates[slot], c)
			}
		}
		slices.SortStableFunc(candidates[slot], func(a, b near) int { return int(a.apart) - int(b.apart) })
	}
	t := tolerance(len(due))
	factors := make([]float64, len(due))
	for i := range factors {
		factors[i] = 1
	}
	owners := make([]uint32, size)
	own := func() {
		owner := uint32(0)
		for slot, cs := range candidates {
			least := math.Inf(1)
			for _, c := range cs {
				if d := c.distance * factors[c.member]; d < least {
					owner, least = c.member, d
				}
			}
			owners[slot] = owner
		}
	}
	for range rounds {
		own()
		for i, n := range share(owners, len(due)) {
			if h, most := float64(n), due[i]*(1+t); h > most {
				factors[i] = min(factors[i]*correction(h, most), mostFactor)
			}
			if h, least := float64(n), due[i]*(1-t); h < least {
				factors[i] = max(factors[i]*correction(h, least), 1/mostFactor)
			}
		}
	}
	own()
	p := &points{slotBits: slotBits, due: due, all: all}
	p.provide(owners, share(owners, len(due)))
	return owners
}

// Whatever is left out to be fast, the ring is as it is defined: nodes of two
// versions of Blixt agree, and restarts move nobody.
func TestRingIsAsDefined(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	weights := map[string]func() uint64{
		"equal": func() uint64 { return 3 },
		"few":   func() uint64 { return 1 + random.Uint64N(3) },
		"many":  func() uint64 { return 1 + random.Uint64N(100) },
		"wide":  func() uint64 { return 1 + random.Uint64()>>random.IntN(64) },
		"heavy": func() uint64 { return 1 + random.Uint64N(2)*1_000_000 },
	}
	for name, weight := range weights {
		for _, n := range []int{1, 2, 3, 5, 9, 14} {
			for round := range 3 {
				members := randomMembers(random, n, 1)
				for i := range members {
					members[i].Weight = weight()
				}
				if round == 1 {
					members[0].Addr = member(0, 0).Addr
				}
				backends := n + round*random.IntN(1+n)
				if !slices.Equal(Slots(testKey, members, backends), plainSlots(members, backends)) {
					t.Errorf("%s weights, %d members of %d: another ring", name, n, backends)
				}
			}
		}
	}
}
