// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Hook is one direction of one interface.
type Hook struct {
	// Index is the interface's index modulo MAX_LINKS.
	Index     int    `json:"index"`
	Direction string `json:"direction"`
}

// HookCount is the number of packets that a hook has seen: its heartbeat.
type HookCount struct {
	Hook
	Packets uint64 `json:"packets"`
}

// ReadHooks returns the hooks that have seen packets.
func ReadHooks(t datapath.Counts) ([]HookCount, error) {
	all, err := t.LinkPackets()
	if err != nil {
		return nil, fmt.Errorf("read packets of hooks: %w", err)
	}
	var hooks []HookCount
	for i, n := range all {
		if n > 0 {
			hooks = append(hooks, HookCount{Hook{i / 2, [...]string{"ingress", "egress"}[i%2]}, n})
		}
	}
	return hooks, nil
}
