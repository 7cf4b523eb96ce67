// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// withPort returns members at another port.
func withPort(members []Member, port uint16) []Member {
	moved := slices.Clone(members)
	for i := range moved {
		if moved[i].Addr.IsValid() {
			moved[i].Addr = netip.AddrPortFrom(moved[i].Addr.Addr(), port)
		}
	}
	return moved
}

// addresses returns the address of each slot's member.
func addresses(members []Member, slots []uint32) []netip.Addr {
	who := make([]netip.Addr, len(slots))
	for i, s := range slots {
		who[i] = members[s].Addr.Addr()
	}
	return who
}

// mixedMembers returns members in the order of Members, of different weights, and some
// share to refuse.
func mixedMembers(random *rand.Rand, most int) []Member {
	members := make([]Member, 1+random.IntN(most))
	for i := range members {
		members[i] = member(random.IntN(1<<24), 1+random.Uint64N(10))
	}
	if random.IntN(3) == 0 {
		members = append(members, Member{Weight: 1})
	}
	slices.SortFunc(members, func(a, b Member) int { return a.Addr.Compare(b.Addr) })
	return slices.CompactFunc(members, func(a, b Member) bool { return a.Addr == b.Addr })
}

func TestAClientGetsTheSameAddressAtAllPorts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		members := mixedMembers(random, 150)
		web, dns := withPort(members, 8080), withPort(members, 5353)
		a, b := SlotsByAddr(web, len(members)), SlotsByAddr(dns, len(members))
		if !slices.Equal(addresses(web, a), addresses(dns, b)) {
			t.Fatalf("%d members at ports 8080 and 5353 have rings of different addresses", len(members))
		}
		for i := range members { // of double weight: the same shares
			dns[i].Weight *= 2
		}
		if b := SlotsByAddr(dns, len(members)); !slices.Equal(a, b) {
			t.Fatalf("%d members of double weight have another ring", len(members))
		}
	}
}

func TestFewClientsMoveWhenABackendGoes(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		members := mixedMembers(random, 120)
		if len(members) < 2 {
			continue
		}
		n := len(members)
		before := addresses(members, SlotsByAddr(members, n))
		gone := random.IntN(n)
		fewer := slices.Delete(slices.Clone(members), gone, gone+1)
		after := addresses(fewer, SlotsByAddr(fewer, n)) // it is listed, but not ready
		moved, share := 0, 0
		for i := range before {
			if before[i] == members[gone].Addr.Addr() {
				share++
			}
			if before[i] != after[i] {
				moved++
			}
		}
		if bound := 1.5*max(float64(share), float64(len(before))/float64(n)) + 2; float64(moved) > bound {
			t.Errorf("one of %d with %d of %d slots goes: %d slots move, want at most %.0f", n, share, len(before), moved, bound)
		}
	}
}

func TestSeveralPortsOfOneAddressShareItsSlots(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		members := mixedMembers(random, 60)
		want := addresses(members, SlotsByAddr(members, len(members)))
		var several []Member
		for _, m := range members {
			if !m.Addr.IsValid() || m.Weight < 2 {
				several = append(several, m)
				continue
			}
			for port, weight := range map[uint16]uint64{8080: 1, 8081: m.Weight - 1} {
				several = append(several, Member{netip.AddrPortFrom(m.Addr.Addr(), port), weight})
			}
		}
		slices.SortFunc(several, func(a, b Member) int { return a.Addr.Compare(b.Addr) })
		slots := SlotsByAddr(several, len(members))
		if !slices.Equal(addresses(several, slots), want) {
			t.Fatal("an address whose weight is divided among two ports has other slots")
		}
		if again := SlotsByAddr(several, len(members)); !slices.Equal(slots, again) {
			t.Fatal("the same members have another ring")
		}
		for i, n := range share(slots, len(several)) {
			if n == 0 && several[i].Weight > 1 {
				t.Errorf("%s with weight %d has no slot", several[i].Addr, several[i].Weight)
			}
		}
	}
}

func TestAnAddressWithSeveralPortsIsListedOnce(t *testing.T) {
	f := lb.Frontend{Backends: []lb.Backend{
		{Addr: netip.MustParseAddrPort("10.0.0.1:80")}, {Addr: netip.MustParseAddrPort("10.0.0.1:81")}, {Addr: netip.MustParseAddrPort("10.0.0.2:80")},
	}}
	if n := Listed(&f); n != 3 {
		t.Errorf("without affinity %d are listed, want 3", n)
	}
	f.Affinity = &lb.Affinity{Group: "g"}
	if n := Listed(&f); n != 2 {
		t.Errorf("with affinity %d are listed, want 2", n)
	}
}
