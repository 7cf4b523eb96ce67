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

// FlowsPiece is a piece of the answer to FlowsQuery: a Record or, first of all and
// whenever records are lost on their way to who follows, what the node remembers.
type FlowsPiece struct {
	*Record
	Memory *Memory `json:"memory,omitempty"`
}

// Memory tells what a node remembers, so that nobody takes a record that is missing for
// a connection that was not.
type Memory struct {
	// Recording tells whether flows get records: see the constants; "": there are no
	// frontends.
	Recording string `json:"recording,omitempty"`
	// Began is since when the node remembers at all.
	Began time.Time `json:"began"`
	// Flows are those that their clients have proven, Attempts all others: a flood of
	// forged packets takes no room of flows. Packets were rejected or dropped.
	Flows    Remembered `json:"flows"`
	Attempts Remembered `json:"attempts"`
	Packets  Remembered `json:"packets"`
	// Lost are records that the node's program or agent had no room for, by where,
	// since the program was loaded, or the agent began.
	Lost map[string]uint64 `json:"lost,omitempty"`
	// LeftOut is how many older records the query's Last has left out.
	LeftOut int `json:"leftOut,omitempty"`
	// Missed is how many records were not sent to who follows, as that was too slow.
	Missed uint64 `json:"missed,omitempty"`
}

// Remembered is one part of a memory.
type Remembered struct {
	Records int `json:"records"`
	// Since is the time of the oldest, if older ones were forgotten; zero: none were.
	Since time.Time `json:"since,omitzero"`
}

// Values of Memory.Recording.
const (
	RecordingAll  = "all"  // of all frontends
	RecordingSome = "some" // of some frontends
	RecordingOff  = "off"
	RecordingNot  = "not possible" // the program is of an earlier version
)

// DropsQuery asks for the last packets of reasons; none: of all.
type DropsQuery struct {
	Reasons []string `json:"reasons,omitempty"`
	Last    int      `json:"last,omitempty"` // of each reason; 0: all that are remembered
}

// DropsOf is a piece of the answer to DropsQuery: a reason for which packets were
// rejected or dropped.
type DropsOf struct {
	Reason string `json:"reason"`
	// Packets is how many there were since the program was loaded.
	Packets uint64 `json:"packets"`
	// Last are the last ones, oldest first. LeftOut is how many between them have no
	// record: only samples have.
	Last    []Record `json:"last,omitempty"`
	LeftOut uint64   `json:"leftOut,omitempty"`
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
