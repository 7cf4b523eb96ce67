// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var testKey = lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80}

func member(i int, weight uint64) Member {
	return Member{netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 8080), weight}
}

func equalMembers(n int) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = member(i, lb.WeightUnit)
	}
	return members
}

// byAddr returns the address of each slot's member.
func byAddr(members []Member, slots []uint32) []netip.AddrPort {
	who := make([]netip.AddrPort, len(slots))
	for i, s := range slots {
		who[i] = members[s].Addr
	}
	return who
}

func share(slots []uint32, n int) []int {
	counts := make([]int, n)
	for _, s := range slots {
		counts[s]++
	}
	return counts
}

func TestSharesAreExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		members := make([]Member, 1+random.IntN(60))
		var total float64
		for i := range members {
			members[i] = member(i, 1+random.Uint64N(100))
			total += float64(members[i].Weight)
		}
		for _, size := range sizes[2:] { // where nobody is due less than a slot
			for i, n := range share(Ring(testKey, members, size), len(members)) {
				if want := float64(members[i].Weight) / total * float64(size); want >= 1 && math.Abs(float64(n)-want) > 1 {
					t.Fatalf("member %d of %d has %d of %d slots, want %.2f", i, len(members), n, size, want)
				}
			}
		}
	}
}

func TestEveryWeightHasASlot(t *testing.T) {
	for name, weights := range map[string][]uint64{
		"one huge, one tiny":   {1, 1_000_000 * lb.WeightUnit},
		"sum beyond 64 bits":   {math.MaxUint64, math.MaxUint64, 1},
		"each half the former": {1 << 40, 1 << 39, 1 << 30, 1 << 20, 1 << 10, 1},
		"a single one":         {1},
	} {
		var members []Member
		for i, w := range weights {
			members = append(members, member(i, w))
		}
		for _, size := range sizes {
			counts := share(Ring(testKey, members, size), len(members))
			if slices.Contains(counts, 0) {
				t.Errorf("%s: shares of %d slots are %v", name, size, counts)
			}
		}
	}
}

func TestThousandsOfMembers(t *testing.T) {
	for _, n := range []int{1_000, 10_000, 65_521, 65_535} {
		size := Size(n)
		counts := share(Ring(testKey, equalMembers(n), size), n)
		least, most := slices.Min(counts), slices.Max(counts)
		if most-least > 1 || least == 0 && n <= int(size) {
			t.Errorf("%d members: %d to %d slots", n, least, most)
		}
	}
}

// A ring depends on the state alone: not on the order of the backends, nor on
// the unit of the weights.
func TestRingIsTheSameEverywhere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	f := lb.Frontend{Addr: testKey.Addr, Port: testKey.Port, Protocol: testKey.Protocol, Reject: 5 * lb.WeightUnit}
	for i := range 50 {
		f.Backends = append(f.Backends, lb.Backend{Addr: member(i, 0).Addr, Weight: uint64(i%7) * lb.WeightUnit})
	}
	members := Members(f)
	want := byAddr(members, Ring(testKey, members, 16381))
	for range 20 {
		random.Shuffle(len(f.Backends), func(i, j int) { f.Backends[i], f.Backends[j] = f.Backends[j], f.Backends[i] })
		members := Members(f)
		if !slices.Equal(want, byAddr(members, Ring(testKey, members, 16381))) {
			t.Fatal("another ring from another order")
		}
	}
	for i := range members {
		members[i].Weight /= lb.WeightUnit / 3
	}
	if !slices.Equal(want, byAddr(members, Ring(testKey, members, 16381))) {
		t.Error("another ring from another unit")
	}
}

// Rings belong to the layout: if this changes, nodes of two versions disagree,
// and Layout must change with it.
func TestRingBelongsToLayout(t *testing.T) {
	h := sha256.New()
	for _, size := range sizes {
		members := append([]Member{{Weight: 3}}, member(1, 70), member(2, 30), member(3, 1))
		if err := binary.Write(h, binary.BigEndian, Ring(testKey, members, size)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "defc2ce9b21fa63fb3097caf8aee6de3"
	if got := hex.EncodeToString(h.Sum(nil)[:16]); bpf.Layout != 2 || got != want {
		t.Errorf("rings of layout %d hash to %s, want %s of layout 2", bpf.Layout, got, want)
	}
}

// How likely it is that a packet of a surviving backend is affected when
// another backend comes or goes: the two are one case, seen from both sides.
func TestFewSlotsMove(t *testing.T) {
	for _, n := range []int{2, 3, 5, 10, 20, 40, 100, 160, 300, 600} {
		members := equalMembers(n)
		size := Size(n)
		before := byAddr(members, Ring(testKey, members, size))
		worst, sum, rounds := 1.0, 0.0, min(n, 10)
		for gone := range rounds {
			fewer := slices.Delete(slices.Clone(members), gone, gone+1)
			after := byAddr(fewer, Ring(testKey, fewer, size))
			kept, had := 0, 0
			for i := range before {
				if before[i] == members[gone].Addr {
					continue
				}
				had++
				if before[i] == after[i] {
					kept++
				}
			}
			worst = min(worst, float64(kept)/float64(had))
			sum += float64(kept) / float64(had)
		}
		t.Logf("one of %3d of %5d slots: survivors keep %.2f%%, at worst %.2f%%", n, size, 100*sum/float64(rounds), 100*worst)
		if worst < 0.96 || sum/float64(rounds) < 0.97 {
			t.Errorf("one of %d: survivors keep %.4f on average, at worst %.4f", n, sum/float64(rounds), worst)
		}
	}
}

func TestSize(t *testing.T) {
	for members, want := range map[int]uint32{
		0: 0, 1: 251, 2: 251, 3: 509, 5: 509, 6: 1021, 10: 1021, 11: 2039, 20: 2039, 21: 4093, 40: 4093,
		163: 16381, 164: 32749, 655: 65521, 60000: 65521,
	} {
		if got := Size(members); got != want {
			t.Errorf("%d members: %d slots, want %d", members, got, want)
		}
	}
}

// The last slots are searched, not walked to, with the same result.
func TestSearchFindsWhatWalkingWould(t *testing.T) {
	const size = 1021
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		f := newFreeSlots(size)
		for f.left > 1+random.Uint32N(fewSlots) {
			w := newWalk(testKey, member(random.IntN(1000), 1), size, 0)
			f.claim(&w)
		}
		w := newWalk(testKey, member(random.IntN(1000), 1), size, 0)
		at := w.at
		free := func(at uint32) bool {
			if f.few != nil {
				return slices.Contains(f.few, at)
			}
			return f.bits[at>>6]>>(at&63)&1 != 0
		}
		for !free(at) {
			at = (at + w.skip) % size
		}
		if got := f.claim(&w); got != at {
			t.Fatalf("%d slots free: %d, want %d", f.left, got, at)
		}
	}
}

func BenchmarkRing(b *testing.B) {
	m := equalMembers(100)
	for b.Loop() {
		Ring(testKey, m, MaxSize)
	}
}
