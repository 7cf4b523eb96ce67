// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
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

// slotsOf returns the ring of these members and nobody else.
func slotsOf(members []Member) []uint32 { return Slots(testKey, members, len(members)) }

func TestSharesFollowWeights(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		members := make([]Member, 1+random.IntN(150))
		for i := range members {
			members[i] = member(random.IntN(1<<24), 1+random.Uint64N(100))
		}
		slots := slotsOf(members)
		due := dueSlots(members, uint32(len(slots)))
		for i, n := range share(slots, len(members)) {
			// A share of few slots depends on where they are.
			bound := tolerance(len(members))*due[i] + 3*math.Sqrt(due[i]) + 1
			if math.Abs(float64(n)-due[i]) > bound {
				t.Errorf("member %d of %d has %d of %d slots, want %.2f", i, len(members), n, len(slots), due[i])
			}
		}
	}
}

func TestEqualMembersHaveEqualShares(t *testing.T) {
	for n := 1; n <= MaxSize/100; n += 1 + n/5 {
		slots := slotsOf(equalMembers(n))
		counts, due := share(slots, n), float64(len(slots))/float64(n)
		least, most := float64(slices.Min(counts))/due, float64(slices.Max(counts))/due
		t.Logf("%3d of %5d slots: shares %.3f to %.3f", n, len(slots), least, most)
		if bound := tolerance(n) + 0.03; least < 1-bound || most > 1+bound {
			t.Errorf("%d members: shares %.3f to %.3f, want at most %.3f off", n, least, most, bound)
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
		for _, backends := range []int{len(members), 10, 100, 1000} {
			if counts := share(Slots(testKey, members, backends), len(members)); slices.Contains(counts, 0) {
				t.Errorf("%s: shares of %d slots are %v", name, Size(backends), counts)
			}
		}
	}
}

func TestThousandsOfMembers(t *testing.T) {
	for _, n := range []int{1_000, 10_000, 65_535, 70_000} {
		slots := slotsOf(equalMembers(n))
		without := 0
		for _, c := range share(slots, n) {
			if c == 0 {
				without++
			}
		}
		if len(slots) != MaxSize || without != max(n-MaxSize, 0) {
			t.Errorf("%d members: %d have none of %d slots", n, without, len(slots))
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
	want := byAddr(members, Slots(testKey, members, len(f.Backends)))
	for range 20 {
		random.Shuffle(len(f.Backends), func(i, j int) { f.Backends[i], f.Backends[j] = f.Backends[j], f.Backends[i] })
		members := Members(f)
		if !slices.Equal(want, byAddr(members, Slots(testKey, members, len(f.Backends)))) {
			t.Fatal("another ring from another order")
		}
	}
	for i := range members {
		members[i].Weight /= lb.WeightUnit / 3
	}
	if !slices.Equal(want, byAddr(members, Slots(testKey, members, len(f.Backends)))) {
		t.Error("another ring from another unit")
	}
}

// Rings belong to the layout: if this changes, nodes of two versions disagree,
// and Layout must change with it.
func TestRingBelongsToLayout(t *testing.T) {
	h := sha256.New()
	for _, backends := range []int{3, 10, 100, 500} {
		members := append([]Member{{Weight: 3}}, member(1, 70), member(2, 30), member(3, 1))
		if err := binary.Write(h, binary.BigEndian, Slots(testKey, members, backends)); err != nil {
			t.Fatal(err)
		}
	}
	const want = "537e305dba8cd94951eb9639025c5444"
	if got := hex.EncodeToString(h.Sum(nil)[:16]); bpf.Layout != 2 || got != want {
		t.Errorf("rings of layout %d hash to %s, want %s of layout 2", bpf.Layout, got, want)
	}
}

// moved returns the part of clients that change their member between two rings.
func moved(before []Member, a []uint32, after []Member, b []uint32) float64 {
	n, size := 0, max(len(a), len(b))
	for i := range size {
		if before[a[i*len(a)/size]].Addr != after[b[i*len(b)/size]].Addr {
			n++
		}
	}
	return float64(n) / float64(size)
}

// mayMove returns how much may move when the member at i comes, goes or changes.
func mayMove(members []Member, i int) float64 {
	var total float64
	for _, m := range members {
		total += float64(m.Weight)
	}
	return 1.5 * max(1/float64(len(members)-1), float64(members[i].Weight)/total)
}

func randomMembers(random *rand.Rand, n int, most uint64) []Member {
	members := make([]Member, n)
	for i := range members {
		members[i] = member(random.IntN(1<<24), (1+random.Uint64N(most))*lb.WeightUnit)
	}
	slices.SortFunc(members, func(a, b Member) int { return a.Addr.Compare(b.Addr) })
	return members
}

// A change of one of n members moves at most 1.5/n, whatever the change: every
// step from one size to the next is among them.
func TestOneChangeMovesFew(t *testing.T) {
	for name, most := range map[string]uint64{"equal weights": 1, "weights to 100": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			random := rand.New(rand.NewPCG(most, 2))
			worst, sum, rounds := 0.0, 0.0, 0.0
			for n := 2; n <= MaxSize/100; n += 1 + n/150*20 { // each step up to 150, and 220
				for range max(1, 40/n) {
					all := randomMembers(random, n, most)
					if n%2 == 0 {
						all[0].Addr = netip.AddrPort{} // the share to refuse
					}
					gone := random.IntN(n)
					fewer := slices.Delete(slices.Clone(all), gone, gone+1)
					with, without := Slots(testKey, all, n), Slots(testKey, fewer, n-1)
					part := moved(all, with, fewer, without) * 1.5 / mayMove(all, gone)
					worst, sum, rounds = max(worst, part), sum+part, rounds+1
					if part > 1.5 {
						t.Errorf("from %d to %d members of %d slots, %.2f/n move", n, n-1, len(with), part)
					}
					unready := Slots(testKey, fewer, n)
					if part := moved(all, with, fewer, unready) * 1.5 / mayMove(all, gone); part > 1.5 || len(unready) != len(with) {
						t.Errorf("one of %d gets weight 0: %d slots, %.2f/n move", n, len(unready), part)
					}
				}
			}
			t.Logf("%.3f/n move on average, %.3f/n at most", sum/rounds, worst)
		})
	}
}

// Another weight moves what the share changes by, and little more.
func TestAnotherWeightMovesFew(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for n := 2; n <= MaxSize/100; n += 1 + n/5 {
		before := randomMembers(random, n, 100)
		after := slices.Clone(before)
		i := random.IntN(n)
		after[i].Weight = (1 + random.Uint64N(100)) * lb.WeightUnit
		may := max(mayMove(before, i), mayMove(after, i))
		if part := moved(before, slotsOf(before), after, slotsOf(after)); part > may {
			t.Errorf("weight %d instead of %d, one of %d: %.4f moves, want at most %.4f", after[i].Weight, before[i].Weight, n, part, may)
		}
	}
}

// Readiness changes neither the size nor, in the end, anything else.
func TestRingReturns(t *testing.T) {
	f := lb.Frontend{Addr: testKey.Addr, Port: testKey.Port, Protocol: testKey.Protocol}
	for i := range 41 {
		f.Backends = append(f.Backends, lb.Backend{Addr: member(i, 0).Addr, Weight: lb.WeightUnit})
	}
	before := Slots(testKey, Members(f), len(f.Backends))
	for i := range f.Backends[1:] {
		f.Backends[i].Weight = 0
		if got := Slots(testKey, Members(f), len(f.Backends)); len(got) != len(before) {
			t.Fatalf("%d of 41 ready: %d slots, want %d", len(Members(f)), len(got), len(before))
		}
	}
	for i := range f.Backends {
		f.Backends[i].Weight = lb.WeightUnit
	}
	if !slices.Equal(Slots(testKey, Members(f), len(f.Backends)), before) {
		t.Error("another ring than before")
	}
}

func TestSize(t *testing.T) {
	for backends, want := range map[int]uint32{
		0: 0, 1: 512, 3: 512, 4: 1024, 6: 1024, 7: 2048, 12: 2048, 13: 4096, 22: 4096, 23: 8192, 40: 8192,
		41: 16384, 120: 32768, 121: 65536, 220: 65536, 60000: 65536,
	} {
		if got := Size(backends); got != want {
			t.Errorf("%d backends: %d slots, want %d", backends, got, want)
		}
	}
	last := uint32(0)
	for n := 1; n < 300; n++ {
		size, split := grown(n)
		if positions := size/2 + split; positions < last || split == 0 || split > size/2 {
			t.Errorf("%d backends: %d of %d pairs split", n, split, size/2)
		} else {
			last = positions
		}
	}
}

func BenchmarkSlots(b *testing.B) {
	for _, n := range []int{3, 10, 40, 100, 222, 655} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m := equalMembers(n)
			for b.Loop() {
				slotsOf(m)
			}
		})
	}
}
