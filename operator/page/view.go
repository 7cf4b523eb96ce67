// SPDX-License-Identifier: Apache-2.0

package page

import (
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// ViewVersion is the version of View: it changes when a member changes its meaning.
const ViewVersion = 1

// View is what a browser shows at one moment. Rates are of the time since the View before
// it; null: not known yet. Shares are from 0 to 1, durations in seconds.
type View struct {
	V    int       `json:"v"`
	Time time.Time `json:"time"`
	// Seconds since the View before; 0: this is the first.
	Seconds float64 `json:"seconds"`
	// Every is how many seconds the next one will be later.
	Every float64 `json:"every"`
	Overview
	// MoreFindings is how many are left out of Overview.Status.
	MoreFindings int    `json:"moreFindings,omitempty"`
	Totals       Totals `json:"totals"`
	// Gateways are those of the page that was chosen: Pages is how many there are, Matching
	// how many Gateways match the search, All how many there are.
	Gateways []Gateway `json:"gateways"`
	Page     int       `json:"page"` // from 1
	Pages    int       `json:"pages"`
	Matching int       `json:"matching"`
	All      int       `json:"all"`
	// Drops are counters of packets that were rejected or dropped, the busiest first.
	Drops []Drop `json:"drops"`
	// Flows are those that have ended last, the newest first. FlowsNote says why there may
	// be none.
	Flows     []observe.Record `json:"flows"`
	FlowsNote string           `json:"flowsNote,omitempty"`
	// Nodes are those that are not well, and then others, up to a limit; NodesAll is how
	// many there are, and Versions how many have which.
	Nodes    []Node         `json:"nodes"`
	NodesAll int            `json:"nodesAll"`
	Versions map[string]int `json:"versions"`
	// Unanswered says which nodes have not answered, and why: their numbers are missing.
	Unanswered map[string]string `json:"unanswered,omitempty"`
}

// Rate is by second; null: not known.
type Rate *float64

// Totals are of everything that is served, whatever the search.
type Totals struct {
	Gateways  int    `json:"gateways"`
	Frontends int    `json:"frontends"`
	Backends  int    `json:"backends"`
	Active    uint64 `json:"active"`
	NewFlows  Rate   `json:"newFlows"`
	Rejected  Rate   `json:"rejected"`
	BytesIn   Rate   `json:"bytesIn"`
	BytesOut  Rate   `json:"bytesOut"`
}

// Traffic is what goes through something.
type Traffic struct {
	Active   uint64 `json:"active"`
	NewFlows Rate   `json:"newFlows"`
	Rejected Rate   `json:"rejected"`
	BytesIn  Rate   `json:"bytesIn"` // from clients
	BytesOut Rate   `json:"bytesOut"`
}

// Gateway is a Gateway with its listeners.
type Gateway struct {
	Declared
	Traffic
	Listeners []Listener `json:"listeners"`
	// MoreListeners is how many are left out.
	MoreListeners int `json:"moreListeners,omitempty"`
}

// Listener is a listener with the route that it serves.
type Listener struct {
	DeclaredListener
	Traffic
	// Addresses are where clients reach it: address:port/protocol, one for each address of
	// the Gateway.
	Addresses []string `json:"addresses"`
	// HostListens is true if a socket of the host gets its new connections.
	HostListens bool `json:"hostListens,omitempty"`
	// Route is kind/namespace/name; "": none. RejectShare is the share of connections that
	// is refused for want of a backend.
	Route       string    `json:"route"`
	RejectShare float64   `json:"rejectShare"`
	Services    []Service `json:"services"`
	// MoreServices is how many are left out.
	MoreServices int `json:"moreServices,omitempty"`
}

// Service is a backendRef of a route with its backends.
type Service struct {
	Name string `json:"name"` // namespace/name; "": not known
	// Wanted is the share of new flows that its backends are to have, Seen the share that
	// they have had of all so far.
	Wanted   float64 `json:"wanted"`
	Seen     float64 `json:"seen"`
	Active   uint64  `json:"active"`
	NewFlows Rate    `json:"newFlows"`
	// Ready get new flows, Draining keep theirs.
	Ready    int `json:"ready"`
	Draining int `json:"draining"`
	// Connect is how long backends took from SYN to SYN-ACK since the View before, or, if
	// there was no connection, so far; null: nothing is known (UDP).
	Connect *Connect `json:"connect"`
	// Refused and Unanswered are flows of all listeners of the Gateway that have the same
	// backendRef.
	Refused    Rate `json:"refused"`
	Unanswered Rate `json:"unanswered"`
	// Backends are those that are not ready, and then others, up to a limit.
	Backends     []Backend `json:"backends"`
	MoreBackends int       `json:"moreBackends,omitempty"`
}

// Connect is how long connections took to open.
type Connect struct {
	Mean float64 `json:"mean"`
	// P50 and P99 are upper bounds: the powers of two of a second above them.
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// Backend is one that connections go to.
type Backend struct {
	Address string `json:"address"`
	State   string `json:"state"` // serving, draining, not-serving, ejected, trial, standby
	// Drained is set if somebody has drained it by hand: since when, and by whom.
	Drained  *lb.Drained `json:"drained,omitempty"`
	Local    bool        `json:"local,omitempty"`
	Weight   float64     `json:"weight"`
	Wanted   float64     `json:"wanted"`
	Seen     float64     `json:"seen"`
	Active   uint64      `json:"active"`
	NewFlows Rate        `json:"newFlows"`
}

// Drop is a reason why packets were rejected or dropped.
type Drop struct {
	observe.Reason
	Packets   uint64 `json:"packets"`
	PerSecond Rate   `json:"perSecond"`
}
