// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// partSize is well below the largest message that gRPC accepts by default.
const partSize = 256 << 10

// send sends the agent its config and updates, one update at a time: while the
// agent applies one version, newer versions become a single update.
func (s *Server) send(ctx context.Context, c *session, stream wire.Fleet_ServeServer) error {
	for {
		peers, config, ejected, next := s.next(c)
		var data []byte
		if next != nil {
			var err error
			if data, err = next.encoded(); err != nil {
				return err
			}
			s.updates.WithLabelValues(next.kind).Inc()
		}
		if peers != nil {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Peers{Peers: peers}}); err != nil {
				return err
			}
		}
		if config != nil {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Config{Config: config}}); err != nil {
				return err
			}
		}
		if ejected != nil {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Ejected{Ejected: ejected}}); err != nil {
				return err
			}
		}
		for _, question := range c.questions.next() {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Question{Question: question}}); err != nil {
				return err
			}
		}
		for _, verdict := range c.reviews.next() {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Verdict{Verdict: verdict}}); err != nil {
				return err
			}
		}
		for rest := data; len(rest) > 0; {
			part := &wire.Part{Data: rest[:min(partSize, len(rest))]}
			rest = rest[len(part.Data):]
			part.Last = len(rest) == 0
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Part{Part: part}}); err != nil {
				return err
			}
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// next returns the peers, the config, what is ejected, and the update to send to an agent now, in this
// order, nil for each that it does not need.
func (s *Server) next(c *session) (peers *wire.Peers, config *wire.Config, ejected *wire.Ejected, next *update) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.member] != c || s.checkMember(c.member) != nil {
		return nil, nil, nil, nil // it is about to end
	}
	peers = s.nextPeers(c)
	now := encodeConfig(s.nodes[c.node], s.settings[c.application], len(s.nodes) == 1, s.seed)
	now.Reviews = s.o.ReviewMetrics != nil
	if c.announces {
		now.Announcing = s.encodeAnnouncing(c)
	}
	if !proto.Equal(c.config, now) {
		c.config, config = now, now
	}
	ejected = s.nextEjected(c)
	newest := s.history.version
	if newest.Sequence == 0 || c.sent > 0 || c.got != nil && *c.got == newest {
		return peers, config, ejected, nil
	}
	if c.got != nil && c.gotSum != nil {
		next = s.history.renumber(*c.got, *c.gotSum)
		c.gotSum = nil
	}
	if next == nil {
		next = s.history.since(c.got, c.policies)
	}
	c.sent = next.version.Sequence
	c.maxSequence = max(c.maxSequence, c.sent)
	return peers, config, ejected, next
}

// nextPeers returns the peers to send to an agent now.
func (s *Server) nextPeers(c *session) *wire.Peers {
	h := &s.announcing.peers
	if !c.announces || h.sequence == 0 {
		return nil
	}
	m := h.since(c.peers)
	if c.peers == 0 && len(c.peersSums) == wire.PeerBuckets {
		m = h.differences(c.peersSums)
	}
	c.peers, c.peersSums = h.sequence, nil
	return m
}

func encodeConfig(n Node, s Settings, alone bool, seed *uint64) *wire.Config {
	c := &wire.Config{Node: n.Name, Zone: n.Zone, Alone: alone, Seed: seed, Snat: &wire.Ports{Min: uint32(s.SNAT.First), Max: uint32(s.SNAT.Last)}}
	c.ThroughStack, c.MasqueradeMark, c.Upgrading = s.ThroughStack, s.MasqueradeMark, s.Upgrading
	if drain, known := s.Drain[n.Name]; known {
		c.Drain = &drain
	}
	for _, a := range n.Addresses {
		c.Addresses = append(c.Addresses, a.AsSlice())
	}
	return c
}
