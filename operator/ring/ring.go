// SPDX-License-Identifier: Apache-2.0

// Package ring divides the slots of a ring among backends by weight. In come a
// frontend's key and its backends; out comes the member of each slot. It is
// pure and has no history: every node computes the same ring.
//
// # Rules
//
//  1. A change of one of n members moves at most 1.5/n of the clients (or 1.5
//     times the member's share, if that is more), for n up to size/100.
//  2. The size of a ring follows the number of backends that a frontend lists,
//     whether they are ready or not.
//  3. Shares are as near to the weights as rule 1 allows.
//
// # Owners
//
// Each member has 128 points between 0 and 2^32, from a hash of its address. A
// slot belongs to the member with the nearest point. The distance is the
// exclusive or of both positions, divided by the member's weight. This choice
// alone is consistent: when a member goes, only its own slots move.
//
// The distance makes growth cheap. When a ring doubles, each slot becomes a
// pair. The even one keeps the position, and so the owner. The odd one has a
// position of its own; both see the same distance to all points but those in
// the same slot. Pairs are split one after another as backends are added, and
// an odd slot that is not yet split has the owner of the even one.
//
// # Balance
//
// Owners by distance alone have shares within about 10% (standard deviation) of
// what is due. Distances are therefore corrected by a factor for each member
// until all shares are within a tolerance. A correction costs: it moves slots of
// members that did not change. With n members and s slots, exact shares would
// cost about n/sqrt(s) further moves for each slot that must move, whatever the
// method, as long as the result has no history. So the tolerance grows with the
// root of n.
//
// # Figures
//
// Measured with members of equal weight. How much moves when one of n comes, on
// average over 2 to 60 rings, and how far shares are from what is due:
//
//	backends     3     6    12    22    40    70   120   220   655
//	slots      512  1024  2048  4096  8192   16k   32k   64k   64k
//	moved     1.1   1.2   1.3   1.3   1.3   1.3   1.2   1.1   1.3  times 1/n
//	shares      1     2     4     5     8    10    14    15    16  % at most
//
// The most that moved in the property test is 1.48/n.
package ring

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// steps are the sizes of rings, each with the number of backends from which all
// of its pairs are split. A ring takes the first size that is for at least as
// many backends as it has. Each size is twice the previous one.
var steps = [...]struct {
	size     uint32
	backends int
}{
	{512, 3}, {1024, 6}, {2048, 12}, {4096, 22}, {8192, 40}, {16384, 70}, {32768, 120}, {MaxSize, 220},
}

// MaxSize is the largest size.
const MaxSize = 65536

// Size returns the number of slots for the backends that a frontend lists,
// those without a share included; 0 for none.
func Size(backends int) uint32 {
	if backends == 0 {
		return 0
	}
	size, _ := grown(backends)
	return size
}

// grown returns the size, and how many of its pairs of slots are split. That
// number grows fast at first: each step then moves the same part of 1/n.
func grown(backends int) (size, split uint32) {
	from := 0
	for i, s := range steps {
		pairs := s.size / 2
		switch {
		case backends > s.backends:
			from = s.backends
		case i == 0:
			return s.size, pairs
		default:
			return s.size, uint32(int(pairs) * (backends - from) * s.backends / (backends * (s.backends - from)))
		}
	}
	return MaxSize, MaxSize / 2
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

// Slots returns the member of each slot, as an index of members, which must be
// in the order of Members. backends is the number of backends that the frontend
// lists. Without members there are no slots. Every member has a slot, as long as
// there are enough.
//
// Floating-point numbers are divided, multiplied, compared and added, but no
// product is added to anything: processors that fuse the two round differently.
func Slots(key lb.Key, members []Member, backends int) []uint32 {
	if len(members) == 0 {
		return nil
	}
	size, split := grown(backends)
	due := dueSlots(members, size)
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.place(key, members, due, size)
	owners, held := s.divide(split)
	s.points.provide(owners, held)
	return owners
}

// scratch is memory that the next ring uses again.
type scratch struct {
	points     points
	placed     []point
	next       []uint32
	candidates []candidate
	contests   []contest
	found      [4][]contest // by each of several processors
	factors    []float64
}

var scratches = sync.Pool{New: func() any { return &scratch{} }}

// resize returns a slice of n elements, with any contents, in the memory of s if
// that is enough.
func resize[E any](s []E, n int) []E { return slices.Grow(s[:0], n)[:n] }

// dueSlots returns how many slots each member should have.
func dueSlots(members []Member, size uint32) []float64 {
	var total float64
	for _, m := range members {
		total += float64(m.Weight)
	}
	due := make([]float64, len(members))
	for i, m := range members {
		due[i] = float64(m.Weight) / total * float64(size)
	}
	return due
}
