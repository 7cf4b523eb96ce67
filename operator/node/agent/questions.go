// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// maxQuestions is how many questions are answered at a time, of all streams: one whose
// asker has gone may take a while to end.
const maxQuestions = 16

// questions are those that the operator has asked in a stream.
type questions struct {
	answerer observe.Answerer
	running  *atomic.Int32 // of all streams
	stream   context.Context
	send     chan *wire.Answer

	mu   sync.Mutex
	open map[uint64]*question
}

// question has not been answered to its end yet.
type question struct {
	id   uint64
	ctx  context.Context
	end  context.CancelFunc
	more chan struct{} // has an element if the window has grown

	mu     sync.Mutex
	window int
}

func newQuestions(stream context.Context, answerer observe.Answerer, running *atomic.Int32) *questions {
	return &questions{answerer: answerer, running: running, stream: stream, send: make(chan *wire.Answer), open: map[uint64]*question{}}
}

// receive takes a question, or what is new of one. It never waits.
func (q *questions) receive(m *wire.Question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.open[m.Id]
	switch {
	case it == nil && m.Query == nil: // was answered
		return
	case it == nil:
		it = &question{id: m.Id, more: make(chan struct{}, 1)}
		it.ctx, it.end = context.WithCancel(q.stream)
		q.open[m.Id] = it
		go q.answer(it, m.Query)
	}
	it.grow(int(m.Window))
	if m.Cancel {
		it.end()
	}
}

// answer answers a question, and always says when that ends.
func (q *questions) answer(it *question, text []byte) {
	end := &wire.Answer{Id: it.id, End: true}
	if err := q.try(it, text); err != nil {
		end.Error = err.Error()
	}
	it.end()
	q.mu.Lock()
	delete(q.open, it.id)
	q.mu.Unlock()
	select {
	case q.send <- end:
	case <-q.stream.Done():
	}
}

func (q *questions) try(it *question, text []byte) error {
	defer q.running.Add(-1)
	if n := q.running.Add(1); n > maxQuestions {
		return fmt.Errorf("the agent answers %d questions already: ask again later", maxQuestions)
	}
	var query observe.Query
	if err := json.Unmarshal(text, &query); err != nil {
		return fmt.Errorf("read the question: %w", err)
	}
	return q.answerer.Answer(it.ctx, query, func(piece json.RawMessage) error { return q.sendPiece(it, piece) })
}

// sendPiece sends a piece in as many parts as it takes. It waits while the asker has no
// room.
func (q *questions) sendPiece(it *question, piece []byte) error {
	for len(piece) > 0 {
		room, err := it.room()
		if err != nil {
			return err
		}
		part := piece[:min(room, len(piece))]
		piece = piece[len(part):]
		it.grow(-wire.AnswerCost(len(part)))
		select {
		case q.send <- &wire.Answer{Id: it.id, Data: bytes.Clone(part), Last: len(piece) == 0}:
		case <-it.ctx.Done():
			return it.ctx.Err()
		}
	}
	return nil
}

// grow lets the agent send more, or less.
func (it *question) grow(by int) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.window += by
	select {
	case it.more <- struct{}{}:
	default:
	}
}

// room returns how much data the next part may have. It waits until it may have some.
func (it *question) room() (int, error) {
	for {
		it.mu.Lock()
		room := wire.AnswerRoom(it.window)
		it.mu.Unlock()
		if room > 0 {
			return room, it.ctx.Err()
		}
		select {
		case <-it.more:
		case <-it.ctx.Done():
			return 0, it.ctx.Err()
		}
	}
}
