// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/datapath"
)

// Link is one direction of one interface.
type Link struct {
	// Index is the interface's, folded into the range of link_packets.
	Index     int    `json:"index"`
	Direction string `json:"direction"`
}

// LinkCount is how many packets a link has seen: its heartbeat.
type LinkCount struct {
	Link
	Packets uint64 `json:"packets"`
}

// ReadLinks returns the links that have seen packets.
func ReadLinks(t datapath.Counts) ([]LinkCount, error) {
	all, err := t.LinkPackets()
	if err != nil {
		return nil, fmt.Errorf("read packets of links: %w", err)
	}
	var links []LinkCount
	for i, n := range all {
		if n > 0 {
			links = append(links, LinkCount{Link{i / 2, [...]string{"ingress", "egress"}[i%2]}, n})
		}
	}
	return links, nil
}

// Still returns the links that stood still between two samples: those of the
// first, and those that are expected, if they are not in the second with more
// packets. An interface in use sees packets every few seconds, so a link that
// stands still for longer is gone, or its program is, whatever others say.
func Still(before, after []LinkCount, expected ...Link) []Link {
	had := map[Link]uint64{}
	for _, l := range expected {
		had[l] = 0
	}
	for _, l := range before {
		had[l.Link] = l.Packets
	}
	for _, l := range after {
		if n, ok := had[l.Link]; ok && l.Packets > n {
			delete(had, l.Link)
		}
	}
	var still []Link
	for l := range had {
		still = append(still, l)
	}
	slices.SortFunc(still, func(a, b Link) int {
		if a.Index != b.Index {
			return a.Index - b.Index
		}
		return len(b.Direction) - len(a.Direction) // ingress before egress
	})
	return still
}
