// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/json"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

const (
	// lookAgain is how often Follow looks for agents that have connected.
	lookAgain = time.Second
	// askAgain is how long Follow leaves an agent alone that has ended its answer.
	askAgain = 30 * time.Second
	// maxFollowed limits a piece: it is one record.
	maxFollowed = 16 << 10
)

// Follow asks the agents of all nodes for what goes on, and those that connect later,
// while this server leads and until ctx ends. It calls got with each piece, and lost
// with the number of those that were not as they should be. While got blocks, the agents wait, and
// nobody else.
func (s *Server) Follow(ctx context.Context, q observe.FlowsQuery, got func(node string, piece json.RawMessage) error, lost func(pieces int)) error {
	q.Follow = true
	text, err := json.Marshal(observe.Query{Flows: &q})
	if err != nil {
		return err
	}
	f := &followed{in: &inbox{waiting: make(chan struct{}, 1)}, open: map[*session]*asked{}, next: map[*session]time.Time{}, partial: map[*asked][]byte{}}
	defer func() {
		for _, a := range f.open {
			a.cancel()
		}
	}()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		sessions, _, err := s.whoAnswers(observe.KindFlows, nil)
		if err != nil {
			return err
		}
		f.ask(sessions, text)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		case <-f.in.waiting:
		}
		for _, m := range f.in.take() {
			if piece := f.add(m, lost); piece != nil {
				if err := got(m.from.c.node, piece); err != nil {
					return err
				}
			}
			if !m.End {
				m.from.taken(wire.AnswerCost(len(m.Data)))
			}
		}
	}
}

// followed are the agents that Follow has asked.
type followed struct {
	in      *inbox
	open    map[*session]*asked
	next    map[*session]time.Time // when an agent that has ended may be asked again
	partial map[*asked][]byte      // nil: the rest of this piece is left out
}

// ask asks the agents that were not asked yet. There is room for the least that each may
// send.
func (f *followed) ask(sessions []*session, query []byte) {
	now := time.Now()
	for c, at := range f.next {
		if now.After(at) {
			delete(f.next, c)
		}
	}
	for _, c := range sessions {
		if f.open[c] != nil || !f.next[c].IsZero() {
			continue
		}
		if a, _ := c.questions.ask(c, query, wire.MinWindow, f.in); a != nil {
			f.open[c], f.partial[a] = a, []byte{}
		} else {
			f.next[c] = now.Add(askAgain)
		}
	}
}

// add returns the piece that a message completes; nil: none.
func (f *followed) add(m received, lost func(int)) json.RawMessage {
	c := m.from.c
	if f.open[c] != m.from {
		return nil
	}
	if m.End {
		if len(f.partial[m.from]) > 0 {
			lost(1)
		}
		delete(f.open, c)
		delete(f.partial, m.from)
		f.next[c] = time.Now().Add(askAgain)
		return nil
	}
	piece := f.partial[m.from]
	if piece != nil {
		if piece = append(piece, m.Data...); len(piece) > maxFollowed {
			piece = nil
			lost(1)
		}
	}
	f.partial[m.from] = piece
	if !m.Last {
		return nil
	}
	f.partial[m.from] = []byte{}
	if piece != nil && !json.Valid(piece) {
		lost(1)
		return nil
	}
	return piece
}
