// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/ring"
)

func TestSlabRangesNeverOverlapAndRest(t *testing.T) {
	const size = 1 << 18
	random := rand.New(rand.NewPCG(5, 6))
	now := time.Unix(1e9, 0)
	s := newSlab(size, nil, span{0, size}, now)
	type used struct {
		span
		freed time.Time // zero: in use
	}
	var all []used
	for range 5000 {
		now = now.Add(time.Duration(random.IntN(300)) * time.Millisecond)
		if random.IntN(2) == 0 && len(all) > 0 {
			if i := random.IntN(len(all)); all[i].freed.IsZero() {
				s.release(all[i].offset, all[i].n, now)
				all[i].freed = now
			}
			continue
		}
		n := ring.Size(1 + random.IntN(700)) // each of the sizes that a ring can have
		offset, ok, wait := s.take(n, now)
		if !ok {
			if !wait.IsZero() && !wait.After(now) {
				t.Fatal("asked to wait for the past")
			}
			continue
		}
		if offset%2 != 0 || offset+even(n) > size {
			t.Fatalf("%d slots at %d", n, offset)
		}
		kept := all[:0]
		for _, u := range all {
			if u.offset < offset+even(n) && offset < u.offset+even(u.n) {
				if u.freed.IsZero() {
					t.Fatalf("%d slots at %d overlap %d at %d", n, offset, u.n, u.offset)
				}
				if now.Sub(u.freed) < reuseGrace {
					t.Fatalf("%d slots at %d used again after %v", u.n, u.offset, now.Sub(u.freed))
				}
				continue // replaced
			}
			kept = append(kept, u)
		}
		all = append(kept, used{span: span{offset, n}})
	}
	for _, u := range all {
		if u.freed.IsZero() {
			s.release(u.offset, u.n, now)
		}
	}
	s.reclaim(now.Add(reuseGrace))
	if len(s.free) != 1 || s.largest() != size {
		t.Errorf("all freed, and yet in pieces: %v", s.free)
	}
}

// 63 full rings and room for one more: each of them can change, for ever.
func TestSlabOfLargeRingsNeverFragments(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newSlab(4<<20, nil, span{0, 4 << 20}, now)
	var offsets []uint32
	for range 63 {
		offset, ok, _ := s.take(ring.MaxSize, now)
		if !ok {
			t.Fatal("does not fit")
		}
		offsets = append(offsets, offset)
	}
	random := rand.New(rand.NewPCG(7, 8))
	for range 1000 {
		i := random.IntN(len(offsets))
		offset, ok, _ := s.take(ring.MaxSize, now)
		if !ok {
			t.Fatal("no room for the ring beside")
		}
		s.release(offsets[i], ring.MaxSize, now)
		offsets[i] = offset
		now = now.Add(reuseGrace)
	}
}

func TestSlabAfterRestart(t *testing.T) {
	now := time.Unix(1e9, 0)
	s := newSlab(1000, []span{{100, 51}, {300, 10}, {980, 20}}, span{400, 520}, now)
	if offset, ok, _ := s.take(500, now); !ok || offset < 400 {
		t.Errorf("500 slots that were never used: %d, %v", offset, ok)
	}
	if _, ok, wait := s.take(120, now); ok || !wait.Equal(now.Add(reuseGrace)) {
		t.Errorf("slots of an unknown past: %v, wait until %v", ok, wait)
	}
	if _, ok, _ := s.take(120, now.Add(reuseGrace)); !ok {
		t.Error("slots that have rested are not given out")
	}
}

// The longest run of zeros is not all fresh: rings have zeros at their ends.
func TestNeverUsed(t *testing.T) {
	const size = 1 << 20
	for _, c := range []struct{ zeros, want span }{
		{span{0, size}, span{0, size}},
		{span{0, 500_000}, span{0, 500_000 - 65536}},
		{span{501, size - 501}, span{502 + 65536, size - 502 - 65536}},
		{span{100, 500_000}, span{100 + 65536, 500_000 - 2*65536}},
		{span{100, 131_072}, span{}},
		{span{0, 1000}, span{}},
		{span{}, span{}},
	} {
		if got := neverUsed(size, c.zeros); got != c.want {
			t.Errorf("zeros %v: %v, want %v", c.zeros, got, c.want)
		}
	}
}

func TestPoolRests(t *testing.T) {
	now := time.Unix(1e9, 0)
	p := pool{next: 1, end: 4}
	take := func(n int) {
		t.Helper()
		if got, wait := p.available(n, now); got < n {
			t.Fatalf("%d of %d ready, wait until %v", got, n, wait)
		}
		for range n {
			p.take(now)
		}
	}
	take(3)
	if n, wait := p.available(1, now); n != 0 || !wait.IsZero() {
		t.Errorf("empty pool: %d, %v", n, wait)
	}
	p.release(2, now)
	if n, wait := p.available(1, now.Add(reuseGrace-1)); n != 0 || !wait.Equal(now.Add(reuseGrace)) {
		t.Errorf("resting: %d, %v", n, wait)
	}
	now = now.Add(reuseGrace)
	take(1)
}
