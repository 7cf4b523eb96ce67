// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/bpf"
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

// ReadAnsweredElsewhere returns the number of flows whose backend answers by an
// interface without the program.
func ReadAnsweredElsewhere(t datapath.Counts) (uint64, error) {
	all, err := t.Counters()
	if err != nil {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	return all[bpf.BlixtCounterCOUNTER_FLOW_ANSWERED_ELSEWHERE], nil
}
