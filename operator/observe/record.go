// SPDX-License-Identifier: Apache-2.0

package observe

import (
	"net/netip"
	"time"
)

// RecordVersion is Record.V. It rises when a meaning changes. Readers ignore
// keys that they do not know.
const RecordVersion = 1

// Event is what a Record tells.
type Event string

// The events.
const (
	// EventOpen is a flow that has not ended: it comes from the tables.
	EventOpen     Event = "open"
	EventEnd      Event = "end"
	EventRejected Event = "rejected"
	EventDropped  Event = "dropped"
)

// Record tells of one flow, or of one packet that was rejected or dropped. What is
// not known is left out. Durations are in seconds. It is one line of JSON.
type Record struct {
	V     int    `json:"v"`
	Event Event  `json:"event"`
	Node  string `json:"node,omitempty"`
	// Seq counts the records of a node's agent since that began.
	Seq uint64 `json:"seq,omitempty"`
	// Time is that of the last packet.
	Time     time.Time `json:"time"`
	Protocol string    `json:"protocol"` // tcp, udp, icmp, icmpv6, or a number
	// Reason is why the flow has ended (fin, reset, idle, ...: enum end_reason
	// without its prefix, in lower case) or the name of the counter that has counted the packet
	// (drop_no_route).
	Reason string `json:"reason,omitempty"`
	// EndedBy is client or backend: who sent the first FIN or RST.
	EndedBy string   `json:"endedBy,omitempty"`
	Client  Endpoint `json:"client"`
	// Server is the frontend.
	Server Endpoint `json:"server"`
	// SNAT is the source that the backend sees, if it is not the client.
	SNAT     *Endpoint `json:"snat,omitempty"`
	Backend  *Endpoint `json:"backend,omitempty"`
	Gateway  string    `json:"gateway,omitempty"` // namespace/name
	Listener string    `json:"listener,omitempty"`
	Route    string    `json:"route,omitempty"`   // kind/namespace/name
	Service  string    `json:"service,omitempty"` // namespace/name
	Start    time.Time `json:"start,omitzero"`
	Connect  float64   `json:"connect,omitempty"`
	RTT      float64   `json:"rtt,omitempty"`
	Duration float64   `json:"duration,omitempty"`
	In       *Traffic  `json:"in,omitempty"`  // from the client
	Out      *Traffic  `json:"out,omitempty"` // from the backend
	// Interface is that by which the first packet came in.
	Interface string `json:"interface,omitempty"`
	// Sampled is how many packets a record of a rejected or dropped one stands for.
	Sampled uint32 `json:"sampled,omitempty"`
	// Packet is its first bytes, from the IP header on, in hexadecimal.
	Packet string `json:"packet,omitempty"`
}

// Endpoint is an address and a port; 0 where there is none.
type Endpoint struct {
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port,omitempty"`
}

// Traffic is one direction. Bytes are counted from the IP header on.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// FlowsQuery asks for records, oldest first: with Follow for those that come, too.
type FlowsQuery struct {
	Filter Filter `json:"filter"`
	Follow bool   `json:"follow,omitempty"`
	// Last is how many of the newest that the node remembers; 0: all.
	Last int `json:"last,omitempty"`
	// Open is whether flows that have not ended are wanted.
	Open bool `json:"open,omitempty"`
}

// Filter selects records. All that is set must hold; of several values of one
// member, any.
type Filter struct {
	Since, Until time.Time
	Events       []Event
	Protocols    []string
	Reasons      []string // with * at their end: all that begin so
	Clients      []netip.Prefix
	Servers      []netip.Prefix
	Backends     []netip.Prefix
	SNATs        []netip.Prefix
	Ports        []uint16 // of the client, server, SNAT source or backend
	Gateways     []string // namespace/name, or name
	Routes       []string // kind/namespace/name, namespace/name or name
	Services     []string // namespace/name, or name
}

// DropsQuery asks for the last packets of reasons; none: of all.
type DropsQuery struct {
	Reasons []string `json:"reasons,omitempty"`
	Last    int      `json:"last,omitempty"` // of each reason; 0: all that are remembered
}

// TraceQuery asks where a packet of this tuple would go.
type TraceQuery struct {
	Client   netip.AddrPort `json:"client"`
	Server   netip.AddrPort `json:"server"`
	Protocol string         `json:"protocol"` // tcp or udp
	// Interface is that by which it comes in; "": that of the route to the client.
	Interface string `json:"interface,omitempty"`
	// Bytes is its size from the IP header on; 0: as small as can be.
	Bytes int `json:"bytes,omitempty"`
}
