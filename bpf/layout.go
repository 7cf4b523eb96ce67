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

// PortHash returns PORT_HASH of a port.
func PortHash(port uint16) int { return int(byte(port ^ port>>8)) }

// MapNames returns the names of the maps that a writer uses: all except those
// that only the program uses: those of fragments, backend_addresses,
// answer_buckets and packets.
func MapNames() []string {
	return []string{
		LayoutMap, BlixtMapAddresses, BlixtMapFrontends, BlixtMapPublished,
		BlixtMapRings, BlixtMapBackends, BlixtMapBackendFlows, BlixtMapFlows, BlixtMapNewFlows, BlixtMapUdpFlows, BlixtMapEstablished, BlixtMapHostListens,
		BlixtMapCounters, BlixtMapFrontendStats, BlixtMapLinkPackets,
	}
}
