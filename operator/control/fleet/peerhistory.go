// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// peerHistory is the nodes that agents hear of, and what has changed of late. Like
// history, it makes each message once for all agents, and names, for each change, only
// the nodes.
type peerHistory struct {
	sequence uint64 // 0: there is nothing yet
	now      map[string]*wire.Peer
	buckets  [wire.PeerBuckets]map[string]*wire.Peer // now
	sums     wire.PeerSums
	short    []uint64 // of sums
	// changes are those of the newest sequences, the newest last.
	changes [][]string
	// messages lead to the newest sequence, by the one from which they start; 0: from
	// nothing.
	messages map[uint64]*wire.Peers
}

// set makes these nodes what they are now; nil: gone. It returns false if all are so
// already.
func (h *peerHistory) set(now map[string]*wire.Peer) bool {
	if h.now == nil {
		h.now = map[string]*wire.Peer{}
	}
	var changed []string
	for node, p := range now {
		before := h.now[node]
		if before == p || before != nil && p != nil && proto.Equal(before, p) {
			continue
		}
		changed = append(changed, node)
		if before != nil {
			h.sums.Remove(before)
			delete(h.now, node)
			delete(h.buckets[wire.PeerBucket(node)], node)
		}
		if p != nil {
			h.sums.Add(p)
			h.now[node] = p
			bucket := &h.buckets[wire.PeerBucket(node)]
			if *bucket == nil {
				*bucket = map[string]*wire.Peer{}
			}
			(*bucket)[node] = p
		}
	}
	if h.sequence > 0 && len(changed) == 0 {
		return false
	}
	h.sequence++
	h.messages = map[uint64]*wire.Peers{}
	h.changes = append(h.changes, changed)
	h.short = h.sums.Short()
	if len(h.changes) > historyLimit {
		h.changes = append(h.changes[:0:0], h.changes[historyLimit/4:]...)
	}
	return true
}

// since returns the message that leads from a sequence to the newest one; nil: there is
// nothing to say.
func (h *peerHistory) since(base uint64) *wire.Peers {
	missed := h.sequence - base
	if missed == 0 {
		return nil
	}
	if base == 0 || missed > uint64(len(h.changes)) {
		base = 0
	}
	if m := h.messages[base]; m != nil {
		return m
	}
	m := &wire.Peers{Complete: base == 0}
	if m.Complete {
		for _, p := range h.now {
			m.Changed = append(m.Changed, p)
		}
	} else {
		seen := map[string]bool{}
		for _, change := range h.changes[uint64(len(h.changes))-missed:] {
			for _, node := range change {
				switch p := h.now[node]; {
				case seen[node]:
				case p == nil:
					m.Gone = append(m.Gone, node)
				default:
					m.Changed = append(m.Changed, p)
				}
				seen[node] = true
			}
		}
	}
	h.messages[base] = m
	return m
}

// differences returns the message for an agent that has nodes with these sums, of another
// leader or stream; nil: it has all.
func (h *peerHistory) differences(sums []uint64) *wire.Peers {
	m := &wire.Peers{}
	for i, sum := range h.short {
		if sums[i] != sum {
			m.Buckets = append(m.Buckets, uint32(i))
			m.Changed = slices.AppendSeq(m.Changed, maps.Values(h.buckets[i]))
		}
	}
	if len(m.Buckets) == 0 {
		return nil
	}
	return m
}
