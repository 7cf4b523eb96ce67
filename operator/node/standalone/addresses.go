// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"log/slog"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// hold makes the addresses that are served alone those of this host, unless they are left
// to somebody else. It returns the addresses as they are to be served: what another host
// has is not ours alone.
func (r *runner) hold(addresses []lb.Address, n *network) ([]lb.Address, error) {
	var alone []netip.Addr
	for _, a := range addresses {
		if a.Exclusive && !r.LeaveAddresses {
			alone = append(alone, a.IP)
		}
	}
	err := r.vips.Hold(alone, n.View)
	r.log.each("address", slog.LevelWarn, r.vips.Problems())
	r.log.each("place", slog.LevelInfo, r.vips.Notes())
	addresses = slices.Clone(addresses)
	for i, a := range addresses {
		addresses[i].Exclusive = a.Exclusive && !r.vips.Contested(a.IP)
	}
	return addresses, err
}
