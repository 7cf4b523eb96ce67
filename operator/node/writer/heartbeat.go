// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
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
