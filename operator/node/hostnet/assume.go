// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"net/netip"
	"slices"
)

// Assume returns the view of a host that has these addresses, each with its network, on
// one interface with a default route.
func Assume(addresses []netip.Prefix) *View {
	i := Interface{Index: 2, Name: "eth0", Up: true, Carrier: true}
	v := &View{Snapshot: &Snapshot{Interfaces: []Interface{i}, Defaults: []int{i.Index}}}
	for _, p := range addresses {
		v.Addresses = append(v.Addresses, Address{IP: p.Addr(), Network: p.Masked(), Index: i.Index})
		v.own = append(v.own, p.Addr())
		if !p.IsSingleIP() {
			v.networks = append(v.networks, Network{i, p.Masked()})
		}
	}
	v.primary = slices.Clone(v.own)
	v.sort()
	return v
}
