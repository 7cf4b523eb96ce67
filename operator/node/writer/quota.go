// SPDX-License-Identifier: Apache-2.0

package writer

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

// quota divides a table of flows among TCP frontends. It counts from three
// quarters on: below, a frontend may use what others leave. The rest is for those
// that have less than their share then.
func quota(flows, frontends int) FlowQuota {
	return FlowQuota{NearlyFull: uint32(flows - flows/4), Share: uint32(flows / max(frontends, 1))}
}
