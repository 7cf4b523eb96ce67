// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// loopbackIndex is the index of lo in every network namespace of Linux.
const loopbackIndex = 1

// place is the link on which neighbours look for an address.
type place struct {
	hostnet.Interface
	// bits is the length of the network that the address is in; -1: it is in none.
	bits int
}

// choosePlace returns the interface with the longest of the networks that an address is
// in. Of several, it is the current one, or else that with the lowest index. usable
// reports whether an interface may be chosen.
func choosePlace(ip netip.Addr, n *hostnet.View, current int, usable func(hostnet.Interface) bool) place {
	best := place{hostnet.Interface{Index: loopbackIndex, Name: "lo"}, -1}
	for _, c := range n.Networks() { // by index
		longer := c.Prefix.Bits() > best.bits || c.Prefix.Bits() == best.bits && c.Index == current
		if longer && c.Prefix.Contains(ip) && usable(c.Interface) {
			best = place{c.Interface, c.Prefix.Bits()}
		}
	}
	return best
}

// sameLink reports whether neighbours that know where the address is need not be told, and
// nobody else could have got it meanwhile.
func (p place) sameLink(o place) bool {
	return p.Same(o.Interface) && p.MAC == o.MAC && p.Carrier == o.Carrier
}
