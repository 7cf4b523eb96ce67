// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"cmp"
	"math/bits"
	"slices"
)

// quotas divides size slots by weight, exact to one slot. Every member has a
// slot, as long as there are slots: members whose share is less than one slot
// get one, and the others divide the rest.
func quotas(members []Member, size uint32) []uint32 {
	weights := scaleWeights(members)
	quotas := make([]uint32, len(members))
	open := make([]int, len(members)) // members without a final quota
	for i := range open {
		open[i] = i
	}
	if len(open) > int(size) { // the heaviest have one each
		slices.SortStableFunc(open, func(a, b int) int { return cmp.Compare(weights[b], weights[a]) })
		for _, i := range open[:size] {
			quotas[i] = 1
		}
		return quotas
	}
	for left := size; ; {
		divide(quotas, weights, open, left)
		some := open[:0]
		for _, i := range open {
			if quotas[i] == 0 {
				quotas[i] = 1
				left--
				continue
			}
			some = append(some, i)
		}
		if len(some) == len(open) {
			return quotas
		}
		open = some
	}
}

// divide divides size slots among the open members by largest remainder: first
// the whole parts, then one more slot for each of the largest remainders. Of
// equal remainders, the first by address wins.
func divide(quotas []uint32, weights []uint64, open []int, size uint32) {
	var total uint64
	for _, i := range open {
		total += weights[i]
	}
	rest := make([]uint64, len(weights))
	left := size
	for _, i := range open {
		hi, lo := bits.Mul64(weights[i], uint64(size))
		whole, r := bits.Div64(hi, lo, total) // hi < total: weights[i] <= total, size < 2^64
		quotas[i], rest[i] = uint32(whole), r
		left -= uint32(whole)
	}
	order := slices.Clone(open)
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(rest[b], rest[a]), cmp.Compare(a, b))
	})
	for _, i := range order[:left] {
		quotas[i]++
	}
}

// scaleWeights returns the weights, scaled down so that their sum fits into 64
// bits.
func scaleWeights(members []Member) []uint64 {
	weights := make([]uint64, len(members))
	for shift := 0; ; shift++ {
		var total, carry, over uint64
		for i, m := range members {
			weights[i] = max(m.Weight>>shift, 1)
			total, over = bits.Add64(total, weights[i], 0)
			carry |= over
		}
		if carry == 0 {
			return weights
		}
	}
}
