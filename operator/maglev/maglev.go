// SPDX-License-Identifier: Apache-2.0

// Package maglev shares slots of a ring out among backends, after Eisenbud et
// al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016),
// section 3.4, with weights. In come a frontend's key and its members; out comes
// the member of each slot. It is pure: every node computes the same ring.
package maglev

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// sizes are primes, as Maglev wants them: any step then visits all slots.
// Each is about twice the one before, so that no ring takes much more room
// than its members need.
var sizes = [...]uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521}

// MaxSize is the largest ring.
const MaxSize = 65521

// slotsPerMember is how many slots a member should have at least: an
// unequal last slot is then 1% of its share.
const slotsPerMember = 100

// Size returns the number of slots for so many members. It depends on
// nothing else, not even on the size that serves now: a node that has just
// started must make the ring that all others have. No members need no ring.
func Size(members int) uint32 {
	if members == 0 {
		return 0
	}
	for _, size := range sizes {
		if int(size) >= slotsPerMember*members {
			return size
		}
	}
	return MaxSize
}

// Member is what a ring is made of: a backend, or with a zero Addr the part
// of new connections that are refused.
type Member struct {
	Addr   netip.AddrPort
	Weight uint64
}

// Members returns the members of a frontend's ring in the order that ring
// slots refer to: the reject share, if any, then backends by address.
// Backends of weight 0 are no members. A frontend whose connections are all
// refused has none.
func Members(f lb.Frontend) []Member {
	var members []Member
	for _, b := range f.Backends {
		if b.Weight > 0 {
			members = append(members, Member{b.Addr, b.Weight})
		}
	}
	if len(members) == 0 {
		return nil
	}
	if f.Reject > 0 {
		members = append(members, Member{Weight: f.Reject})
	}
	slices.SortFunc(members, func(a, b Member) int { return a.Addr.Compare(b.Addr) })
	return members
}

// Ring fills size slots, a prime, with indexes of members, which are in the
// order of Members. Shares follow the weights, exact to one slot; few slots
// but those of a member that came or went change hands. It depends on nothing
// but its arguments.
//
// Each member walks the slots in an order of its own and claims free ones
// until its quota is full. Members with larger quotas claim more often, so
// that all are full at about the same time: those who come late in a ring
// that is almost full take what is left, and that is what moves.
func Ring(key lb.Key, members []Member, size uint32) []uint32 {
	if len(members) == 0 || size == 0 {
		return nil
	}
	quotas := quotas(members, size)
	walks := make([]walk, len(members))
	for i, m := range members {
		walks[i] = newWalk(key, m, size, quotas[i])
	}
	largest := uint64(slices.Max(quotas))
	slots := make([]uint32, size)
	free := newFreeSlots(size)
	for round := uint64(1); free.left > 0; round++ {
		for i := range walks {
			w := &walks[i]
			// By the end of this round at least so much of the quota is to be
			// claimed as the round is of the largest: no division, this runs
			// once a slot.
			for ; uint64(w.claimed)*largest < uint64(w.quota)*round; w.claimed++ {
				slots[free.claim(w)] = uint32(i)
			}
		}
	}
	return slots
}
