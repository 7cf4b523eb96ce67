// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"encoding/binary"
	"fmt"
)

// Layout is BLIXT_LAYOUT: the version of the maps' layout and of the algorithm
// that fills rings. All nodes have to compute the same ring for a frontend, so
// if package ring returns other slots, the layout needs a new number.
const Layout = int(BlixtLayoutBLIXT_LAYOUT)

// LayoutPrefix begins the name of the config map; the layout's number follows.
// bpfman pins maps but no constants, so the number has to be part of a name.
const LayoutPrefix = "blixt_layout_"

// LayoutMap is the name of the config map of this layout.
var LayoutMap = fmt.Sprintf("%s%d", LayoutPrefix, Layout)

// Tombstone returns the entry of `new_flows` that takes the place of the reply
// entry of a TCP flow, by the flags of either entry: see bury in flow.h. tick is the
// time in ticks.
func Tombstone(reply BlixtFlowKey, flags BlixtFlowFlag, tick uint32) BlixtFlow {
	tomb := BlixtFlowFlagFLOW_REPLY | BlixtFlowFlagFLOW_GONE
	switch {
	case flags&(BlixtFlowFlagFLOW_STACK|BlixtFlowFlagFLOW_SNAT) == BlixtFlowFlagFLOW_STACK:
		tomb |= BlixtFlowFlagFLOW_EGRESS | BlixtFlowFlagFLOW_STACK
	case flags&BlixtFlowFlagFLOW_REENTER != 0:
		tomb |= BlixtFlowFlagFLOW_EGRESS
	}
	return BlixtFlow{
		Tag: FlowTag(reply), Generation: uint32(BlixtNoFlowOfNO_GENERATION), Frontend: uint32(BlixtNoFlowOfNO_FRONTEND), LastSeen: tick,
		Flags: uint32(tomb),
	}
}

// FlowTag returns the tag of a key: see flow_tag in flow.h.
func FlowTag(k BlixtFlowKey) uint32 {
	b := make([]byte, 40)
	copy(b, k.Src.Bytes[:])
	copy(b[16:], k.Dst.Bytes[:])
	binary.NativeEndian.PutUint16(b[32:], k.Sport)
	binary.NativeEndian.PutUint16(b[34:], k.Dport)
	b[36] = k.Protocol
	var h uint64
	for i, factor := range []uint64{0x9e3779b97f4a7c15, 0xbf58476d1ce4e5b9, 0x94d049bb133111eb, 0xd6e8feb86659fd93, 0xc2b2ae3d27d4eb4f} {
		h += binary.NativeEndian.Uint64(b[8*i:]) * factor
	}
	return uint32(h >> 32)
}

// EntryInterest returns the bit without which packets would not find an entry of
// a flow table, and the address whose byte needs it: see announce_entry in
// interest.h.
func EntryInterest(k BlixtFlowKey, f BlixtFlow) (BlixtAddr, BlixtInterestFlag) {
	flags := BlixtFlowFlag(f.Flags)
	reply := flags&BlixtFlowFlagFLOW_REPLY != 0
	switch {
	case !reply && flags&(BlixtFlowFlagFLOW_UNDONE|BlixtFlowFlagFLOW_PLAIN) != 0:
		return k.Src, BlixtInterestFlagINTEREST_PEER
	case reply && flags&BlixtFlowFlagFLOW_EGRESS != 0, !reply && f.Frontend == uint32(BlixtNoFlowOfNO_FRONTEND):
		return k.Src, BlixtInterestFlagINTEREST_FROM
	case reply:
		return k.Dst, BlixtInterestFlagINTEREST_HOST
	}
	return k.Dst, BlixtInterestFlagINTEREST_VIP
}

// CacheSet returns the index of the set of a key in `flow_cache`, by the seed of
// the config: see set_of in cache.h.
func CacheSet(k BlixtFlowKey, seed uint64) uint32 {
	half := func(a BlixtAddr, i int) uint64 { return binary.NativeEndian.Uint64(a.Bytes[8*i:]) }
	var ports [4]byte
	binary.NativeEndian.PutUint16(ports[:], k.Sport)
	binary.NativeEndian.PutUint16(ports[2:], k.Dport)
	h := ((uint64(k.Protocol)<<32 | uint64(binary.NativeEndian.Uint32(ports[:]))) ^ seed) * 0xff51afd7ed558ccd
	h ^= h >> 32
	h = (h + half(k.Src, 1) + half(k.Src, 0)*0x9e3779b97f4a7c15) * 0xc4ceb9fe1a85ec53
	h ^= h >> 32
	h = (h + half(k.Dst, 1) + half(k.Dst, 0)*0x9e3779b97f4a7c15 + seed) * 0xff51afd7ed558ccd
	return uint32(h >> 47)
}

// Slot returns the slot of a key, or nil: see slot_of in cache.h.
func (s *BlixtCacheSet) Slot(k BlixtFlowKey) *BlixtCachedFlow {
	for i := range s.Ways {
		w := &s.Ways[i]
		if w.Src == k.Src && w.Dst == k.Dst && w.Sport == k.Sport && w.Dport == k.Dport && w.Protocol == k.Protocol {
			return w
		}
	}
	return nil
}

// PortHash returns PORT_HASH of a port.
func PortHash(port uint16) int { return int(byte(port ^ port>>8)) }

// MapNames returns the names of the maps that a writer uses: all except those
// that only the program uses: those of fragments, backend_addresses,
// answer_buckets and packets.
func MapNames() []string {
	return []string{
		LayoutMap, BlixtMapAddresses, BlixtMapFrontends, BlixtMapPublished,
		BlixtMapRings, BlixtMapBackends, BlixtMapBackendFlows, BlixtMapInterest, BlixtMapFlowCache, BlixtMapFlows, BlixtMapNewFlows, BlixtMapUdpFlows, BlixtMapEstablished, BlixtMapHostListens,
		BlixtMapCounters, BlixtMapFrontendStats, BlixtMapLinkPackets,
		BlixtMapAnnouncing, BlixtMapAnnounceKeys, BlixtMapPeers, BlixtMapProbes, BlixtMapEgressLinks,
		BlixtMapRefStats, BlixtMapClientRtt, BlixtMapRecorded, BlixtMapRecordedNumber, BlixtMapSlotCounts,
		BlixtMapFlowLog0, BlixtMapFlowLog1, BlixtMapFlowLog2, BlixtMapFlowLog3,
		BlixtMapPortRanges, BlixtMapFrontendPolicies, BlixtMapPolicies, BlixtMapPolicyStates, BlixtMapPolicyStats, BlixtMapSources, BlixtMapLimitedSources,
		BlixtMapAffinities, BlixtMapUdpAffinities, BlixtMapAffinityBackends, BlixtMapBackendHealth,
	}
}

// IsOptional reports whether an earlier program of this layout may lack a map. It needs
// nothing that would be written there.
func IsOptional(name string) bool {
	switch name {
	case BlixtMapInterest, BlixtMapFlowCache, BlixtMapAnnouncing, BlixtMapAnnounceKeys, BlixtMapPeers, BlixtMapProbes, BlixtMapEgressLinks,
		BlixtMapRefStats, BlixtMapClientRtt, BlixtMapRecorded, BlixtMapRecordedNumber, BlixtMapSlotCounts,
		BlixtMapFlowLog0, BlixtMapFlowLog1, BlixtMapFlowLog2, BlixtMapFlowLog3,
		BlixtMapPortRanges, BlixtMapFrontendPolicies, BlixtMapPolicies, BlixtMapPolicyStates, BlixtMapPolicyStats, BlixtMapSources, BlixtMapLimitedSources,
		BlixtMapAffinities, BlixtMapUdpAffinities, BlixtMapAffinityBackends, BlixtMapBackendHealth:
		return true
	}
	return false
}

// InterestHash returns the index of an address's byte in `interest`: see
// interest_hash in interest.h.
func InterestHash(a BlixtAddr) uint32 {
	first, second := binary.NativeEndian.Uint64(a.Bytes[:8]), binary.NativeEndian.Uint64(a.Bytes[8:])
	return uint32((first*0x9e3779b97f4a7c15 + second*0xd6e8feb86659fd93) >> 47)
}
