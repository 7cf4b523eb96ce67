// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// slab allocates ranges of `rings`. Ranges start at even slots, so that a ring
// starts with an element of the map.
type slab struct {
	size    uint32
	free    []span // by offset, never adjacent
	resting []restingSpan
}

type span struct{ offset, n uint32 }

type restingSpan struct {
	span
	until time.Time
}

// largeRing is the size from which a ring is placed at the start of the slab.
// Smaller rings go to its end, so that they leave no gaps between large ones.
const largeRing = 16384

func even(n uint32) uint32 { return (n + 1) &^ 1 }

// newSlab returns a slab in which the used spans are taken. Of the rest, the
// fresh span is free at once, and everything else after a rest.
func newSlab(size uint32, used []span, fresh span, now time.Time) slab {
	s := slab{size: size}
	rest := func(start, end uint32) {
		if start < end {
			s.resting = append(s.resting, restingSpan{span{start, end - start}, now.Add(reuseGrace)})
		}
	}
	gap := func(start, end uint32) {
		from, to := max(start, fresh.offset), min(end, fresh.offset+fresh.n)
		if from >= to {
			rest(start, end)
			return
		}
		rest(start, from)
		s.free = append(s.free, span{from, to - from})
		rest(to, end)
	}
	used = slices.Clone(used)
	slices.SortFunc(used, func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
	at := uint32(0)
	for _, u := range used {
		gap(at, u.offset)
		at = u.offset + even(u.n)
	}
	gap(at, size)
	return s
}

// neverUsed returns a part of the slab in which no ring has ever been, given
// the longest run of zero slots. Every ring has a slot that is not zero, so it
// reaches into such a run by less than the size of the largest ring.
func neverUsed(size uint32, zeros span) span {
	start, end := even(zeros.offset), (zeros.offset+zeros.n)&^1
	if start > 0 {
		start += even(ring.MaxSize)
	}
	if end < size {
		end -= min(end, even(ring.MaxSize))
	}
	if start >= end {
		return span{}
	}
	return span{start, end - start}
}

func (s *slab) clone() slab {
	return slab{s.size, slices.Clone(s.free), slices.Clone(s.resting)}
}

// take allocates n slots and returns their offset. If there are none now, wait
// is when to try again; zero: never.
func (s *slab) take(n uint32, now time.Time) (offset uint32, ok bool, wait time.Time) {
	s.reclaim(now)
	n = even(n)
	fits := func(f span) bool { return f.n >= n }
	i := slices.IndexFunc(s.free, fits)
	if i < 0 {
		if len(s.resting) > 0 {
			wait = s.resting[0].until
		}
		return 0, false, wait
	}
	if n < largeRing {
		for j := len(s.free) - 1; j > i; j-- {
			if fits(s.free[j]) {
				i = j
				break
			}
		}
		s.free[i].n -= n
		offset = s.free[i].offset + s.free[i].n
	} else {
		offset = s.free[i].offset
		s.free[i].offset += n
		s.free[i].n -= n
	}
	if s.free[i].n == 0 {
		s.free = slices.Delete(s.free, i, i+1)
	}
	return offset, true, time.Time{}
}

// release frees a range, which then rests.
func (s *slab) release(offset, n uint32, now time.Time) {
	if n > 0 {
		s.resting = append(s.resting, restingSpan{span{offset, even(n)}, now.Add(reuseGrace)})
	}
}

// reclaim makes free what has rested, and joins it with its neighbours.
func (s *slab) reclaim(now time.Time) {
	n := 0
	for n < len(s.resting) && !s.resting[n].until.After(now) {
		n++
	}
	if n == 0 {
		return
	}
	for _, r := range s.resting[:n] {
		s.free = append(s.free, r.span)
	}
	s.resting = slices.Delete(s.resting, 0, n)
	slices.SortFunc(s.free, func(a, b span) int { return cmp.Compare(a.offset, b.offset) })
	joined := s.free[:0]
	for _, f := range s.free {
		if last := len(joined) - 1; last >= 0 && joined[last].offset+joined[last].n == f.offset {
			joined[last].n += f.n
			continue
		}
		joined = append(joined, f)
	}
	s.free = joined
}

// largest returns the number of slots of the largest free span.
func (s *slab) largest() (n uint32) {
	for _, f := range s.free {
		n = max(n, f.n)
	}
	return n
}
