// SPDX-License-Identifier: Apache-2.0

package lb

// Version orders states: a later epoch is newer and, within one epoch, a later
// sequence. The zero Version precedes every state.
type Version struct {
	Epoch    uint64 `json:"epoch"`
	Sequence uint64 `json:"sequence"`
}
