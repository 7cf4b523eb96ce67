// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"fmt"
	"net/netip"
	"time"
)

// Drained says that somebody has drained a backend by hand: blixt drain.
type Drained struct {
	Since time.Time `json:"since"`
	// By is the name or the number of a user.
	By string `json:"by"`
}

// String returns who, and since when.
func (d *Drained) String() string {
	return fmt.Sprintf("by %s since %s", d.By, d.Since.Local().Format(time.DateTime))
}

// DrainedSet is what is drained by hand: addresses with a port, or with port 0, which
// stands for all. IPv4-mapped addresses are not among them.
type DrainedSet map[netip.AddrPort]*Drained

// Of returns why a backend is drained; nil: it is not.
func (s DrainedSet) Of(backend netip.AddrPort) *Drained {
	if len(s) == 0 {
		return nil
	}
	if d := s[backend]; d != nil {
		return d
	}
	return s[netip.AddrPortFrom(backend.Addr(), 0)]
}

// What Backend.State returns.
const (
	StateServing    = "serving"
	StateDraining   = "draining"    // it keeps its flows and gets no new ones
	StateNotServing = "not-serving" // nor does it keep its UDP flows
	StateEjected    = "ejected"     // it is not healthy: it keeps its flows and gets no new ones
	StateTrial      = "trial"       // it gets one flow at a time, until one is answered
	StateStandby    = "standby"     // another group of backends gets the flows
)

// StateRank is smaller the more a backend of a state deserves a look.
func StateRank(state string) int {
	switch state {
	case StateNotServing:
		return 0
	case StateServing:
		return 2
	}
	return 1
}
