// SPDX-License-Identifier: Apache-2.0

package datapath

import "github.com/kubernetes-sigs/blixt/bpf"

// AddressInterest returns the bits of `interest` that an entry of `addresses`
// needs.
func AddressInterest(a bpf.BlixtAddress) bpf.BlixtInterestFlag {
	if a.Flags&AddressExclusive != 0 {
		return InterestVIP
	}
	return InterestVIP | InterestShared
}

// settled returns what SettleInterest makes of a byte.
//
// INTEREST_HOST stays for as long as the map does. The program must see all
// connections of a host's address to keep their ports apart from those of flows:
// also those of pods, which the host masquerades. No table tells which addresses
// it has for that.
func settled(have, needed uint8, clear bool) uint8 {
	if clear && have&uint8(InterestFresh) == 0 {
		have &= uint8(InterestHost)
	}
	return have&^uint8(InterestFresh) | needed
}
