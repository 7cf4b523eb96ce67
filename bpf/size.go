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

// NewFlows returns the number of new flows that the tables are made for, given
// that of established flows: a quarter, as by default. The table takes its
// memory at load time, 288 B for each flow, hence the maximum of 75 MB.
func NewFlows(flows uint32) uint32 {
	return min(max(flows/4, MinFlows), 1<<18)
}
