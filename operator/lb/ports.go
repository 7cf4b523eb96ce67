// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"slices"
)

// PortRange is a range of ports, both ends included. The zero PortRange is empty.
type PortRange struct {
	First uint16 `json:"min"`
	Last  uint16 `json:"max"`
}

// DefaultSNATPorts are the source ports of translated flows. They lie below
// Linux's ephemeral ports (32768 to 60999 by default) and Kubernetes' node
// ports (30000 to 32767). A flow takes one port per backend, so their number
// limits how many flows a node can have with each backend.
//
// The default of BlixtConfig's snatPorts is the same.
var DefaultSNATPorts = PortRange{First: 11000, Last: 29999}

// String returns first-last.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Overlaps reports whether the ranges share a port.
func (r PortRange) Overlaps(o PortRange) bool {
	return r != PortRange{} && o != PortRange{} && r.First <= o.Last && o.First <= r.Last
}

// Halves divides the range between the two programs that there may be on a
// node. The second half of a single port is empty.
func (r PortRange) Halves() [2]PortRange {
	middle := r.First + (r.Last-r.First)/2
	halves := [2]PortRange{{First: r.First, Last: middle}}
	if middle < r.Last {
		halves[1] = PortRange{First: middle + 1, Last: r.Last}
	}
	return halves
}

// FreeHalf returns the first half that overlaps none of the taken ranges, and
// false if there is none.
func (r PortRange) FreeHalf(taken ...PortRange) (PortRange, bool) {
	for _, half := range r.Halves() {
		if half != (PortRange{}) && !slices.ContainsFunc(taken, half.Overlaps) {
			return half, true
		}
	}
	return PortRange{}, false
}
