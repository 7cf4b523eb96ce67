// SPDX-License-Identifier: Apache-2.0

package bpf

// How many established flows, and slots of all rings, the tables may be made
// for. Fewer slots than two of the largest rings could never be changed; more
// take more than 32 MB.
const (
	MinFlows     = 1 << 10
	MaxFlows     = 4 << 20
	MinRingSlots = 1 << 18
	MaxRingSlots = 8 << 20
)

// NewFlows returns how many unanswered flows go with so many established
// ones: a quarter, as by default. The table takes its memory at load time
// (288 B a flow), hence at most 75 MB.
func NewFlows(flows uint32) uint32 {
	return min(max(flows/4, MinFlows), 1<<18)
}
