// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Verdict is what becomes of a packet.
type Verdict string

// The verdicts.
const (
	Forwarded Verdict = "forwarded" // translated, towards a backend
	Rejected  Verdict = "rejected"  // answered, or dropped as its connection is refused
	Dropped   Verdict = "dropped"
	Passed    Verdict = "passed" // left to the host, unchanged
)

// Result is where a packet would go: a SYN, or a datagram. Members are nil if the packet
// does not get so far.
type Result struct {
	// Node is that of a cluster where it would do so.
	Node     string         `json:"node,omitempty"`
	Client   netip.AddrPort `json:"client"`
	Server   netip.AddrPort `json:"server"`
	Protocol string         `json:"protocol"` // tcp or udp
	// Interface is where the program sees the packet, Hook is ingress or egress.
	Interface string `json:"interface,omitempty"`
	Hook      string `json:"hook,omitempty"`

	Verdict Verdict `json:"verdict"`
	// Counter is the one that would count the packet.
	Counter string `json:"counter"`
	// Why says it in words.
	Why string `json:"why"`

	Address  *Address  `json:"address,omitempty"`
	Frontend *Frontend `json:"frontend,omitempty"`
	// Flow is the entry that the client has in the tables; Ended says why the packet
	// begins another one.
	Flow  *Flow  `json:"flow,omitempty"`
	Ended string `json:"ended,omitempty"`
	// Ring is the client's slot.
	Ring    *Ring    `json:"ring,omitempty"`
	Backend *Backend `json:"backend,omitempty"`
	// Way is local, remote, stack, reenter, forwarded or host: see bpf/way.h.
	Way string `json:"way,omitempty"`
	// SNAT is the source that the backend's host sees, if it is not the client. It has no
	// port if that is chosen by chance among those that are free.
	SNAT *observe.Endpoint `json:"snat,omitempty"`
	// Announced is whether the backend's node is told the client.
	Announced bool `json:"announced,omitempty"`
	NextHop   *Hop `json:"nextHop,omitempty"`
	// Notes are what is not known here, and what else should be known.
	Notes []string `json:"notes,omitempty"`
}

// Address is an entry of `addresses`.
type Address struct {
	Exclusive bool `json:"exclusive"`
}

// Frontend is an entry of `frontends`. Names are empty where they are not known.
type Frontend struct {
	Index    uint32 `json:"index"`
	Gateway  string `json:"gateway,omitempty"`
	Listener string `json:"listener,omitempty"`
	Route    string `json:"route,omitempty"`
}

// Flow is a flow in the tables.
type Flow struct {
	Table   string            `json:"table"`
	State   string            `json:"state"` // new, answered, established, closed
	Backend uint32            `json:"backend"`
	SNAT    *observe.Endpoint `json:"snat,omitempty"`
	// Idle is for how many seconds the client has sent nothing.
	Idle float64 `json:"idle"`
}

// Ring is a frontend's ring, and the slot of the client.
type Ring struct {
	Size uint32 `json:"size"`
	Slot uint32 `json:"slot"`
	// Backend is its id; 0: the slot rejects.
	Backend uint32 `json:"backend"`
}

// Backend is an entry of `backends`.
type Backend struct {
	ID         uint32         `json:"id"`
	Address    netip.AddrPort `json:"address"`
	Generation uint32         `json:"generation"`
	Ref        uint32         `json:"ref,omitempty"`
	Local      bool           `json:"local,omitempty"`
	Draining   bool           `json:"draining,omitempty"`
	Service    string         `json:"service,omitempty"`
}

// Hop is where translated packets leave.
type Hop struct {
	Interface string     `json:"interface"`
	Via       netip.Addr `json:"via,omitzero"`
	MTU       int        `json:"mtu,omitempty"`
	// Silent is whether its hardware address is not known.
	Silent bool `json:"silent,omitempty"`
}
