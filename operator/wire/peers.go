// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"iter"
	"maps"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// PeerTable is an agent's copy of the nodes that announce clients to each other. It
// outlasts streams: a Hello with its Sum spares the operator to send it again. The
// zero value is empty.
type PeerTable struct {
	peers map[string]*Peer
	sum   lb.Sum
	has   bool
}

// Apply applies a message. The caller must not change it any more.
func (t *PeerTable) Apply(m *Peers) {
	if t.peers == nil || m.Complete {
		t.peers, t.sum = map[string]*Peer{}, lb.Sum{}
	}
	for _, p := range m.Changed {
		t.remove(p.Node)
		t.peers[p.Node] = p
		t.sum.Add(SumPeer(p))
	}
	for _, name := range m.Gone {
		t.remove(name)
	}
	t.has = true
}

func (t *PeerTable) remove(name string) {
	if p := t.peers[name]; p != nil {
		t.sum.Remove(SumPeer(p))
		delete(t.peers, name)
	}
}

// Sum is for Hello.peers_sum: nil before the first message.
func (t *PeerTable) Sum() []byte {
	if !t.has {
		return nil
	}
	return t.sum.Bytes()
}

// All returns all nodes, in no order. They must not be changed.
func (t *PeerTable) All() iter.Seq[*Peer] { return maps.Values(t.peers) }

// SumPeer returns the sum of one node.
func SumPeer(p *Peer) lb.Sum { return sumOf('p', p) }
