// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// openingFor is how long after its last packet a TCP flow counts that is not established:
// a client whose SYN was lost sends it again after 1, 3 and 7 s.
const openingFor = 10 * time.Second

// Remaining returns how many flows each backend still has, by its id. Unlike the flows
// of a sweep these are counted now, those that are opening are among them, and those that
// their client alone has closed, as the backend may not have said all.
func Remaining(t Tables) (map[uint32]uint64, error) { return remaining(t, ticks()) }

func remaining(t Tables, now uint32) (map[uint32]uint64, error) {
	backends, err := t.Backends()
	if err != nil {
		return nil, fmt.Errorf("read backends: %w", err)
	}
	s := sweeper{backends: backends}
	flows := map[uint32]uint64{}
	count := func(opening bool) func([]datapath.FlowEntry) bool {
		const over = datapath.FlowReply | datapath.FlowRST | datapath.FlowClosed | datapath.FlowGone
		return func(entries []datapath.FlowEntry) bool {
			for _, e := range entries {
				f := e.Value
				waits := opening && f.Flags&datapath.FlowEstablished == 0
				if f.Flags&over == 0 && !s.backendGone(f) && !(waits && age(f, now) > datapath.Ticks(openingFor)) {
					flows[f.Backend]++
				}
			}
			return true
		}
	}
	if err := t.EachFlow(count(false)); err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	if err := t.EachNewFlow(count(true)); err != nil {
		return nil, fmt.Errorf("read new flows: %w", err)
	}
	return flows, nil
}

// CountRemaining has the active flows of each backend be those of Remaining.
func (s *Status) CountRemaining(t Tables) error {
	flows, err := Remaining(t)
	if err != nil {
		return err
	}
	for i := range s.Frontends {
		for j := range s.Frontends[i].Backends {
			b := &s.Frontends[i].Backends[j]
			b.ActiveFlows = flows[b.ID]
		}
	}
	return nil
}
