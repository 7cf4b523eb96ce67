// SPDX-License-Identifier: Apache-2.0

package lb

// Version orders the states of one leader, which has an epoch of its own: a later
// sequence is newer. Epochs have no order. The zero Version precedes every state.
type Version struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}
