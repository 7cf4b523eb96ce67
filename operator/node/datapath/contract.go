// SPDX-License-Identifier: Apache-2.0

package datapath

import "github.com/kubernetes-sigs/blixt/bpf"

// Map values and keys of the contract with the data plane, bpf/blixt.h, for
// packages that use the tables but not the eBPF object.
type (
	// Config is the element of the layout map.
	Config = bpf.BlixtConfig
	// Backend is an element of `backends`.
	Backend = bpf.BlixtBackend
	// Flow is a value of `flows`.
	Flow = bpf.BlixtFlow
	// FrontendCounters is an element of `frontend_stats`, of one CPU or of all.
	FrontendCounters = bpf.BlixtFrontendCounters
	// RefCounters is an element of `ref_stats`.
	RefCounters = bpf.BlixtRefCounters
	// Latency is an element of `client_rtt`.
	Latency = bpf.BlixtLatency
	// FlowKey is a key of `flows`.
	FlowKey = bpf.BlixtFlowKey
	// AnnounceConfig is the element of `announcing`.
	AnnounceConfig = bpf.BlixtAnnounceConfig
	// AnnounceKey is an element of `announce_keys`.
	AnnounceKey = bpf.BlixtAnnounceKey
	// Peer is a value of `peers`.
	Peer = bpf.BlixtPeer
)

// LatencyUnitsPerSecond is how many units of Latency.Sum a second has.
const LatencyUnitsPerSecond = 1 << 20

// Flags of the contract, and the backend id that rejects.
const (
	ConfigDrain       = uint32(bpf.BlixtConfigFlagCONFIG_DRAIN)
	ConfigUpgrading   = uint32(bpf.BlixtConfigFlagCONFIG_UPGRADING)
	ConfigSampleDrops = uint32(bpf.BlixtConfigFlagCONFIG_SAMPLE_DROPS)
	FrontendRecords   = uint32(bpf.BlixtFrontendFlagFRONTEND_RECORDS)
	FrontendRefuses   = uint32(bpf.BlixtFrontendFlagFRONTEND_REFUSES)
	FrontendDropNone  = uint32(bpf.BlixtFrontendFlagFRONTEND_DROP_NO_BACKEND)
	FrontendAffinity  = uint32(bpf.BlixtFrontendFlagFRONTEND_AFFINITY)
	FrontendKeepPort  = uint32(bpf.BlixtFrontendFlagFRONTEND_KEEP_PORT)
	FrontendShiftPort = uint32(bpf.BlixtFrontendFlagFRONTEND_SHIFT_PORT)
	AnnouncingUndo    = uint8(bpf.BlixtAnnouncingFlagANNOUNCING_UNDO)
	AnnouncingTell    = uint8(bpf.BlixtAnnouncingFlagANNOUNCING_TELL)
	AddressExclusive  = uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE)
	AddressRanges     = uint32(bpf.BlixtAddressFlagADDRESS_RANGES)
	FlowReply         = uint32(bpf.BlixtFlowFlagFLOW_REPLY)
	FlowSNAT          = uint32(bpf.BlixtFlowFlagFLOW_SNAT)
	FlowStack         = uint32(bpf.BlixtFlowFlagFLOW_STACK)
	FlowEstablished   = uint32(bpf.BlixtFlowFlagFLOW_ESTABLISHED)
	FlowFIN           = uint32(bpf.BlixtFlowFlagFLOW_FIN)
	FlowRST           = uint32(bpf.BlixtFlowFlagFLOW_RST)
	FlowAnswered      = uint32(bpf.BlixtFlowFlagFLOW_ANSWERED)
	FlowRefused       = uint32(bpf.BlixtFlowFlagFLOW_REFUSED)
	FlowClosed        = uint32(bpf.BlixtFlowFlagFLOW_CLOSED)
	FlowGone          = uint32(bpf.BlixtFlowFlagFLOW_GONE)
	FlowUndone        = uint32(bpf.BlixtFlowFlagFLOW_UNDONE)
	FlowPlain         = uint32(bpf.BlixtFlowFlagFLOW_PLAIN)
	BackendReject     = uint32(bpf.BlixtBackendIdBACKEND_REJECT)

	InterestVIP    = bpf.BlixtInterestFlagINTEREST_VIP
	InterestShared = bpf.BlixtInterestFlagINTEREST_SHARED
	InterestHost   = bpf.BlixtInterestFlagINTEREST_HOST
	InterestFrom   = bpf.BlixtInterestFlagINTEREST_FROM
	InterestPeer   = bpf.BlixtInterestFlagINTEREST_PEER
	InterestFresh  = bpf.BlixtInterestFlagINTEREST_FRESH

	BackendLocal       = uint16(bpf.BlixtBackendFlagBACKEND_LOCAL)
	BackendNotServing  = uint16(bpf.BlixtBackendFlagBACKEND_NOT_SERVING)
	BackendStack       = uint16(bpf.BlixtBackendFlagBACKEND_STACK)
	BackendProtected   = uint16(bpf.BlixtBackendFlagBACKEND_PROTECTED)
	BackendHearsWithin = uint16(bpf.BlixtBackendFlagBACKEND_HEARS_WITHIN)
	BackendHearsAlone  = uint16(bpf.BlixtBackendFlagBACKEND_HEARS_ALONE)
)

// Unanswered returns how many flows of a backendRef have ended without an answer, as
// SetUnanswered has written it.
func Unanswered(c RefCounters) uint64 { return c.Unanswered }

// TickShift is TICK_SHIFT of the contract, a #define that the generated Go code
// does not have: a tick is 2^30 ns of CLOCK_MONOTONIC.
const TickShift = bpf.BlixtClockTICK_SHIFT
