// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"iter"
	"maps"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// PeerBuckets is how many parts the nodes that announce clients to each other are
// divided into, by their names. Of 5,000 nodes, 20 are in one.
const PeerBuckets = 256

// PeerBucket returns the bucket of a node.
func PeerBucket(node string) uint32 { return uint32(lb.SumOf([]byte(node))[0] % PeerBuckets) }

// PeerSums are the sums of each bucket.
type PeerSums [PeerBuckets]lb.Sum

// Add adds a node.
func (s *PeerSums) Add(p *Peer) { s[PeerBucket(p.Node)].Add(sumOf('p', p)) }

// Remove removes a node, which s must have.
func (s *PeerSums) Remove(p *Peer) { s[PeerBucket(p.Node)].Remove(sumOf('p', p)) }

// Short returns 64 bits that stand for each sum.
func (s *PeerSums) Short() []uint64 {
	all := make([]uint64, len(s))
	for i := range s {
		all[i] = s[i].Short()
	}
	return all
}

// PeerTable is an agent's copy of the nodes that announce clients to each other. It
// outlasts streams: a Hello with its Sums spares the operator to send again what has
// not changed. The zero value is empty.
type PeerTable struct {
	peers map[string]*Peer
	sums  PeerSums
	has   bool
}

// Apply applies a message. The caller must not change it any more.
func (t *PeerTable) Apply(m *Peers) {
	if t.peers == nil || m.Complete {
		t.peers, t.sums = map[string]*Peer{}, PeerSums{}
	}
	if len(m.Buckets) > 0 {
		replaced := map[uint32]bool{}
		for _, b := range m.Buckets {
			replaced[b] = true
		}
		for name := range t.peers {
			if replaced[PeerBucket(name)] {
				t.remove(name)
			}
		}
	}
	for _, p := range m.Changed {
		t.remove(p.Node)
		t.peers[p.Node] = p
		t.sums.Add(p)
	}
	for _, name := range m.Gone {
		t.remove(name)
	}
	t.has = true
}

func (t *PeerTable) remove(name string) {
	if p := t.peers[name]; p != nil {
		t.sums.Remove(p)
		delete(t.peers, name)
	}
}

// Sums is for Hello.peers_sums: nil before the first message.
func (t *PeerTable) Sums() []uint64 {
	if !t.has {
		return nil
	}
	return t.sums.Short()
}

// All returns all nodes, in no order. They must not be changed.
func (t *PeerTable) All() iter.Seq[*Peer] { return maps.Values(t.peers) }
