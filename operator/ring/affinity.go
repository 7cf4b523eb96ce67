// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Rings of frontends with affinity are made from the addresses of their backends
// alone. So a client gets the same address from all frontends that lead to the same
// addresses with the same weights, whatever their own address, port and protocol, and
// whatever ports their backends have.

// Listed returns the number of backends by which the size of a frontend's ring goes:
// with affinity, an address with several ports counts once.
func Listed(f *lb.Frontend) int {
	if f.Affinity == nil {
		return len(f.Backends)
	}
	n := 0
	for i := range f.Backends { // sorted by address
		if i == 0 || f.Backends[i].Addr.Addr() != f.Backends[i-1].Addr.Addr() {
			n++
		}
	}
	return n
}

// SlotsByAddr is Slots of a frontend with affinity. Of an address with several ports,
// the weights add up. Which of them a slot of the address has, depends on the slot
// alone, so that no slot changes its port unless a port comes or goes.
func SlotsByAddr(members []Member, backends int) []uint32 {
	var addresses []Member
	var first []int // of the members of each address
	for i, m := range members {
		if i == 0 || m.Addr.Addr() != members[i-1].Addr.Addr() {
			addresses, first = append(addresses, Member{Weight: 0}), append(first, i)
			if m.Addr.IsValid() {
				addresses[len(addresses)-1].Addr = netip.AddrPortFrom(m.Addr.Addr(), 0)
			}
		}
		addresses[len(addresses)-1].Weight += m.Weight
	}
	slots := Slots(lb.Key{}, addresses, backends)
	first = append(first, len(members))
	for slot, a := range slots {
		slots[slot] = uint32(first[a] + pick(members[first[a]:first[a+1]], addresses[a].Weight, uint64(slot)))
	}
	return slots
}

// pick returns the one of some members that a slot has, by their weights, whose sum is
// total.
func pick(members []Member, total, slot uint64) int {
	if len(members) == 1 {
		return 0
	}
	at := mix(slot) % total
	for i, m := range members {
		if at < m.Weight {
			return i
		}
		at -= m.Weight
	}
	return 0
}
