// SPDX-License-Identifier: Apache-2.0

package writer

import "github.com/kubernetes-sigs/blixt/operator/lb"

// FlowQuota is how established TCP flows share the table that nothing evicts. A
// frontend that has more than its share of a nearly full table keeps its new
// flows in `new_flows`: they are served, but a flood may evict them. So one
// tenant cannot take the room of the others.
type FlowQuota struct {
	// NearlyFull is the number of flows from which on shares count.
	NearlyFull uint32 `json:"nearlyFull"`
	// Share is the number of flows that each frontend may have then.
	Share uint32 `json:"share"`
}

// quota divides a table of flows among the TCP frontends of a state. It counts
// from three quarters on: below, a frontend may use what others leave. The rest
// is for those that have less than their share then.
func quota(flows int, s *lb.State) FlowQuota {
	frontends := 0
	for _, f := range s.Frontends {
		if f.Protocol == lb.TCP {
			frontends++
		}
	}
	return FlowQuota{NearlyFull: uint32(flows - flows/4), Share: uint32(flows / max(frontends, 1))}
}
