// SPDX-License-Identifier: Apache-2.0

// Package maglev divides the slots of a ring among backends, after Eisenbud et
// al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI
// 2016), section 3.4, with weights. In come a frontend's key and its members;
// out comes the member of each slot. It is pure: every node computes the same
// ring.
package maglev

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// sizes are primes, as Maglev requires: any step then visits all slots. Each is
// about twice the previous one, so that no ring takes much more room than its
// members need.
var sizes = [...]uint32{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521}

// MaxSize is the largest ring.
const MaxSize = 65521

// slotsPerMember is how many slots a member should have at least: one slot more
// or less is then 1% of its share.
const slotsPerMember = 100

// Size returns the number of slots for a number of members, 0 for none. It
// depends on nothing else, not even on the present size of the ring: a node
// that has just started must compute the ring that all others have.
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

// Member is a backend or, if Addr is zero, the share of new connections to
// refuse.
type Member struct {
	Addr   netip.AddrPort
	Weight uint64
}

// Members returns the members of a frontend's ring in the order to which ring
// slots refer: the share to refuse, if any, then backends by address. Backends
// of weight 0 are not members. A frontend whose connections are all refused has
// no members.
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

// Ring returns the member of each slot, as an index of members, which must be
// in the order of Members. size must be one that Size returns. Shares follow
// the weights, exact to one slot. When a member comes or goes, few slots of the
// others change. The result depends on the arguments alone.
//
// Each member walks the slots in an order of its own, and claims free ones
// until its quota is reached. Members with larger quotas claim more often, so
// that all reach their quotas at about the same time: a member that claims
// late, in a ring that is almost full, takes what is left, and those are the
// slots that move.
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
			// By the end of this round, the claimed part of the quota is at
			// least the part that the round is of the largest quota. There is
			// no division, as this runs once per slot.
			for ; uint64(w.claimed)*largest < uint64(w.quota)*round; w.claimed++ {
				slots[free.claim(w)] = uint32(i)
			}
		}
	}
	return slots
}
