// SPDX-License-Identifier: Apache-2.0

package bpf

import "fmt"

// Layout is BLIXT_LAYOUT: the layout of the maps, and the number of the
// algorithm that fills a ring. Every node computes the same ring from the
// same frontend and ring size only as long as package maglev returns the same
// slots.
const Layout = 1

// LayoutPrefix begins the name of the config map. The layout's number follows:
// bpfman pins maps but no constants, so a name has to tell the layout.
const LayoutPrefix = "blixt_layout_"

// LayoutMap is the name of the config map of this layout.
var LayoutMap = fmt.Sprintf("%s%d", LayoutPrefix, Layout)

// MapNames returns the maps that a writer uses: all but those of new flows and
// of fragments, which only the program uses.
func MapNames() []string {
	return []string{
		LayoutMap, BlixtMapAddresses, BlixtMapFrontends, BlixtMapPublished,
		BlixtMapRings, BlixtMapBackends, BlixtMapBackendFlows, BlixtMapFlows,
		BlixtMapCounters, BlixtMapFrontendStats, BlixtMapLinkPackets,
	}
}
