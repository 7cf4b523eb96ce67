// SPDX-License-Identifier: Apache-2.0

package lb

import "time"

// Draining is the time that a previous program, or application, has for
// draining: it serves only the flows that it has. It can be unloaded when they
// have ended and it is settled, or when it has expired.
type Draining struct {
	// Since is when it began to drain; zero: it does not drain yet.
	Since time.Time `json:"since,omitzero"`
	// Until is when it is unloaded, whatever flows it has.
	Until time.Time `json:"until,omitzero"`
}

// DrainingSince returns a Draining that lasts for timeout at most.
func DrainingSince(since time.Time, timeout time.Duration) Draining {
	return Draining{Since: since, Until: since.Add(timeout)}
}

// Settled reports whether it has drained for long enough: settle is for flows
// that have begun but are not in the flow table yet.
func (d Draining) Settled(now time.Time, settle time.Duration) bool {
	return !now.Before(d.Since.Add(settle))
}

// Expired reports whether its time is up.
func (d Draining) Expired(now time.Time) bool { return !now.Before(d.Until) }
