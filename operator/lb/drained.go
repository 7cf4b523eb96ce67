// SPDX-License-Identifier: Apache-2.0

package lb

import "time"

// Drained says that somebody has drained a backend by hand: blixt drain.
type Drained struct {
	Since time.Time `json:"since"`
	// By is the name or the number of a user.
	By string `json:"by"`
}

// What Backend.State returns.
const (
	StateServing    = "serving"
	StateDraining   = "draining"    // it keeps its flows and gets no new ones
	StateNotServing = "not-serving" // nor does it keep its UDP flows
)
