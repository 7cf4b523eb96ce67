// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Hook is one direction of one interface.
type Hook struct {
	// Index is the interface's, folded into the range of link_packets.
	Index     int    `json:"index"`
	Direction string `json:"direction"`
}

// HookCount is how many packets a link has seen: its heartbeat.
type HookCount struct {
	Hook
	Packets uint64 `json:"packets"`
}

// ReadHooks returns the links that have seen packets.
func ReadHooks(t datapath.Counts) ([]HookCount, error) {
	all, err := t.LinkPackets()
	if err != nil {
		return nil, fmt.Errorf("read packets of links: %w", err)
	}
	var links []HookCount
	for i, n := range all {
		if n > 0 {
			links = append(links, HookCount{Hook{i / 2, [...]string{"ingress", "egress"}[i%2]}, n})
		}
	}
	return links, nil
}
