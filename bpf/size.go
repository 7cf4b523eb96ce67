// SPDX-License-Identifier: Apache-2.0

package bpf

// Limits of the table sizes: the number of established flows, and of the slots
// of all rings. With fewer slots than two of the largest rings have, such a ring
// could never be changed. More slots take more than 32 MB.
const (
	MinFlows     = 1 << 10
	MaxFlows     = 4 << 20
	MinRingSlots = 1 << 18
	MaxRingSlots = 8 << 20
)

// FlowTables returns the sizes of the tables of flows, by the names of the maps,
// for a number of established TCP flows. A flow has two entries. The LRU tables
// take their memory at load time, 400 B for each flow.
//
//   - Half-open flows are a quarter, and at most 1<<18: 105 MB.
//   - UDP flows are as many up to the default of MAX_UDP_FLOWS, and half from
//     twice that number on. An eighth is added: a CPU keeps up to 128 elements of
//     an LRU table in reserve, so that the kernel evicts from one that is not
//     quite full (Documentation/bpf/map_hash.rst).
func FlowTables(flows uint32) map[string]uint32 {
	halfOpen := min(max(flows/4, MinFlows), 1<<18)
	udp := max(min(flows, uint32(BlixtLimitMAX_UDP_FLOWS)), flows/2)
	return map[string]uint32{
		BlixtMapFlows:    2 * flows,
		BlixtMapNewFlows: 2 * halfOpen,
		BlixtMapUdpFlows: 2*udp + udp/4,
	}
}
