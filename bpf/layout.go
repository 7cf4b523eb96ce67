// SPDX-License-Identifier: Apache-2.0

package bpf

import "fmt"

// Layout is BLIXT_LAYOUT: the version of the maps' layout and of the algorithm
// that fills rings. All nodes have to compute the same ring for a frontend, so
// if package maglev returns other slots, the layout needs a new number.
const Layout = int(BlixtLayoutBLIXT_LAYOUT)

// LayoutPrefix begins the name of the config map; the layout's number follows.
// bpfman pins maps but no constants, so the number has to be part of a name.
const LayoutPrefix = "blixt_layout_"

// LayoutMap is the name of the config map of this layout.
var LayoutMap = fmt.Sprintf("%s%d", LayoutPrefix, Layout)

// MapNames returns the names of the maps that a writer uses: all except those
// that only the program uses: those of fragments, new_flows, backend_addresses,
// answer_buckets and packets.
func MapNames() []string {
	return []string{
		LayoutMap, BlixtMapAddresses, BlixtMapFrontends, BlixtMapPublished,
		BlixtMapRings, BlixtMapBackends, BlixtMapBackendFlows, BlixtMapFlows, BlixtMapUdpFlows, BlixtMapEstablished,
		BlixtMapCounters, BlixtMapFrontendStats, BlixtMapLinkPackets,
	}
}
