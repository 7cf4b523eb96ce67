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
// limits how many flows a node can have with each backend: two thirds of them,
// and one third while an upgrade drains the previous program.
//
// The default of BlixtConfig's snatPorts is the same.
var DefaultSNATPorts = PortRange{First: 11000, Last: 29999}

// String returns first-last.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Overlaps reports whether the ranges share a port.
func (r PortRange) Overlaps(o PortRange) bool {
	return r != PortRange{} && o != PortRange{} && r.First <= o.Last && o.First <= r.Last
}

// Hull returns the smallest range that has both.
func (r PortRange) Hull(o PortRange) PortRange {
	switch (PortRange{}) {
	case r:
		return o
	case o:
		return r
	}
	return PortRange{First: min(r.First, o.First), Last: max(r.Last, o.Last)}
}

// Ends returns the first and the last third of the range: what a program has
// while there is another one on the node. Two programs must not share ports, as a
// reply's port tells whose it is. The second end of a single port is empty.
func (r PortRange) Ends() [2]PortRange {
	if r.First == r.Last {
		return [2]PortRange{r}
	}
	third := max((int(r.Last)-int(r.First)+1)/3, 1)
	return [2]PortRange{
		{First: r.First, Last: r.First + uint16(third-1)},
		{First: r.Last - uint16(third-1), Last: r.Last},
	}
}

// FreeEnd returns the first end that overlaps none of the taken ranges, and
// false if there is none.
func (r PortRange) FreeEnd(taken ...PortRange) (PortRange, bool) {
	for _, end := range r.Ends() {
		if end != (PortRange{}) && !slices.ContainsFunc(taken, end.Overlaps) {
			return end, true
		}
	}
	return PortRange{}, false
}

// Alone returns what a program with ports `own` has while it is the only one: all
// but one of the ends. It has never used that end, so the next program can begin
// there at once, whatever flows there are. It returns all but the last end if
// `own` are not ports of this kind.
func (r PortRange) Alone(own PortRange) PortRange {
	ends := r.Ends()
	first, last := r, r
	if ends[1] != (PortRange{}) {
		first.Last, last.First = ends[1].First-1, ends[0].Last+1
	}
	if own != (PortRange{}) && last.First <= own.First && own.Last <= last.Last && own.Last > first.Last {
		return last
	}
	return first
}
