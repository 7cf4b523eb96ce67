// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"time"

	"github.com/kubernetes-sigs/blixt/operator/agent"
)

// heartbeatLimit is how long a direction may see no packet. An interface that
// leads out of a node sees some every few seconds, but for a node where nothing
// runs and nothing asks.
const heartbeatLimit = time.Minute

// heartbeat remembers when packets were seen last, by direction: where a link
// is missing, the other direction goes on. Interfaces come and go, so that one
// of several stands still says nothing.
type heartbeat struct {
	totals map[string]uint64
	moved  map[string]time.Time
}

var directions = []string{"ingress", "egress"}

// sample looks at the counters.
func (h *heartbeat) sample(now time.Time, links []agent.LinkCount) {
	totals := map[string]uint64{}
	for _, l := range links {
		totals[l.Direction] += l.Packets
	}
	first := h.totals == nil
	if first {
		h.moved = map[string]time.Time{}
	}
	for _, d := range directions {
		if first || totals[d] != h.totals[d] { // less: the program was loaded again
			h.moved[d] = now
		}
	}
	h.totals = totals
}

// age is how long ago a packet was seen last.
func (h *heartbeat) age(now time.Time) time.Duration {
	last := now.Sub(h.moved[directions[0]])
	for _, d := range directions {
		last = min(last, now.Sub(h.moved[d]))
	}
	return last
}

// lost tells whether a direction has stood still for too long.
func (h *heartbeat) lost(now time.Time) bool {
	for _, d := range directions {
		if h.totals != nil && now.Sub(h.moved[d]) > heartbeatLimit {
			return true
		}
	}
	return false
}
