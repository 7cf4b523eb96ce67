// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Tables are the tables to which a state is written. Deleting a missing entry
// is no error. Every method may fail. After a failure, only Read tells what the
// tables hold.
type Tables interface {
	Sizes() Sizes

	Config() (bpf.BlixtConfig, error)
	SetConfig(bpf.BlixtConfig) error

	// AddInterest sets bits of the byte of an address in `interest`, before what
	// needs them is inserted: without them, the program passes by the packets of
	// the address.
	AddInterest(bpf.BlixtAddr, bpf.BlixtInterestFlag) error

	Addresses() (map[netip.Addr]bpf.BlixtAddress, error)
	PutAddress(netip.Addr, bpf.BlixtAddress) error
	DeleteAddress(netip.Addr) error

	Frontends() (map[lb.Key]bpf.BlixtFrontend, error)
	PutFrontend(lb.Key, bpf.BlixtFrontend) error
	DeleteFrontend(lb.Key) error

	// Published returns the rings of all frontends, by index.
	Published() ([]RingRef, error)
	// Publish stores one ring reference atomically.
	Publish(index uint32, w RingRef) error

	// Ring returns n slots of the slab.
	Ring(offset, n uint32) ([]uint32, error)
	// HasRing reports whether the slots are there.
	HasRing(offset uint32, slots []uint32) (bool, error)
	// WriteRing writes slots from an even offset on. It overwrites the slot
	// behind an odd number of slots, too.
	WriteRing(offset uint32, slots []uint32) error
	// ZeroSlots returns the longest run of slots that are zero.
	ZeroSlots() (offset, n uint32, err error)

	// Backends returns all entries by id, up to the last that was ever in use.
	Backends() ([]bpf.BlixtBackend, error)
	PutBackend(id uint32, b bpf.BlixtBackend) error

	// RefKeys returns the lb.BackendRef.Hash of whose each id of `ref_stats` is; 0:
	// nobody's. If the program does not count by backendRef, there are no ids.
	RefKeys() ([]uint64, error)
	// GiveRef sets the counters of an id to zero, and records whose it is from now on.
	GiveRef(id uint32, key uint64) error

	// PortRanges returns the ranges of all addresses and protocols: the port of a key is 0.
	PortRanges() (map[lb.Key]bpf.BlixtPortRanges, error)
	PutPortRanges(lb.Key, bpf.BlixtPortRanges) error
	DeletePortRanges(lb.Key) error

	// AffinityBackends returns the ids of the backends that clients get again.
	AffinityBackends() (map[AffinityKey]uint32, error)
	PutAffinityBackend(k AffinityKey, id uint32) error
	DeleteAffinityBackend(AffinityKey) error

	// ResetBackendFlows and ResetFrontendCounters set to zero what was counted
	// for a previous user of the id or index.
	ResetBackendFlows(id uint32) error
	ResetFrontendCounters(index uint32) error

	PolicyTables
	HealthTables
}

// Counts are the data plane's counters.
type Counts interface {
	Sizes() Sizes
	// Counters returns the number of packets by reason, in the order of
	// CounterNames.
	Counters() ([]uint64, error)
	FrontendCounters(index uint32) (bpf.BlixtFrontendCounters, error)
	// FirstFrontendCounters returns those of the frontends with indexes below n.
	FirstFrontendCounters(n int) ([]bpf.BlixtFrontendCounters, error)
	// BackendFlows returns how many new flows a backend has got, and FirstBackendFlows those
	// of the backends with ids below n.
	BackendFlows(id uint32) (uint64, error)
	FirstBackendFlows(n int) ([]uint64, error)
	// PolicyCounts returns what was counted of a policy, if the program enforces policies.
	PolicyCounts(id uint32) (PolicyCounts, error)
	// RefCounters returns the counters of a backendRef, given its id and its hash. ok
	// is false if the id is not its any more, or never was.
	RefCounters(id uint32, key uint64) (c RefCounters, ok bool)
	// ClientRTT returns the latencies of a frontend's clients. ok is false if the
	// program does not count them.
	ClientRTT(index uint32) (l Latency, ok bool)
	// LinkPackets returns the number of packets by (interface index %
	// MAX_LINKS) * 2 + (1 at egress).
	LinkPackets() ([]uint64, error)
	// HostListens returns the frontends at which a socket of the host got a
	// packet, and when it got the last one, in ticks.
	HostListens() (map[lb.Key]uint32, error)
}

// FlowEntry is an entry of a table of flows.
type FlowEntry struct {
	Key   bpf.BlixtFlowKey
	Value bpf.BlixtFlow
}

// Flows are the tables of flows that last: `flows`, the established TCP flows,
// and `udp_flows`.
type Flows interface {
	Sizes() Sizes
	// EachFlow calls yield with some entries at a time, until all were seen or
	// yield returns false. Entries that are added or removed meanwhile may be
	// seen, not seen or seen twice.
	EachFlow(yield func([]FlowEntry) bool) error
	// EachNewFlow is the same for `new_flows`.
	EachNewFlow(yield func([]FlowEntry) bool) error
	// SettleInterest gives the bytes of `interest` the bits that are needed, by
	// index. If clear is true, each byte to which nobody has added since the last
	// call loses all others, except INTEREST_HOST.
	SettleInterest(needed []uint8, clear bool) error
	Flow(bpf.BlixtFlowKey) (value bpf.BlixtFlow, found bool, err error)
	// LatestNumbers returns the TCP numbers of an entry: those of its slot in
	// `flow_cache` where these are later.
	LatestNumbers(FlowEntry) (next, ack uint32, err error)
	// DeleteFlow removes an entry. It reports whether there was one.
	DeleteFlow(bpf.BlixtFlowKey) (found bool, err error)
	// Bury puts a tombstone into `new_flows` in place of the removed reply entry
	// of a TCP flow with these flags: late packets of its backend are answered
	// with RST. tick is the time in ticks.
	Bury(reply bpf.BlixtFlowKey, flags bpf.BlixtFlowFlag, tick uint32) error
	// RefKeys is as in Tables, and RefCounters as in Counts.
	RefKeys() ([]uint64, error)
	RefCounters(id uint32, key uint64) (c RefCounters, ok bool)
	// SetUnanswered sets Unanswered of a backendRef's counters, given its id and its
	// hash, unless it is larger already.
	SetUnanswered(id uint32, key, n uint64)
	// Established returns how many flows `flows` has by the data plane's count:
	// element 0 is the total, and 1 + n belongs to the frontend with index n.
	Established() []uint32
	// AddEstablished adds to an element of Established, atomically.
	AddEstablished(element int, delta int32)
	// MarkGone has the program treat the flow of an entry as one whose backend is gone: it
	// answers the next packet with RST.
	MarkGone(bpf.BlixtFlowKey) error
	// EndRecord gives the record of a flow, if there is one, the reason why it has ended.
	EndRecord(forward bpf.BlixtFlowKey, why bpf.BlixtEndReason) error

	LimitedFlows
}

// Sizes are the capacities of the tables.
type Sizes struct {
	Addresses int `json:"addresses"`
	Frontends int `json:"frontends"`
	Backends  int `json:"backends"`
	// Refs are backendRefs, and an element of none; 0: the program does not count by
	// them.
	Refs      int `json:"refs,omitempty"`
	RingSlots int `json:"ringSlots"`
	// Policies are ids, of which 0 is none, and Sources are prefixes; 0: the program does
	// not enforce policies.
	Policies int `json:"policies,omitempty"`
	Sources  int `json:"sources,omitempty"`
	// Flows, NewFlows and UDPFlows count flows, which have two entries each.
	Flows    int `json:"flows"`
	NewFlows int `json:"newFlows"`
	UDPFlows int `json:"udpFlows"`
}
