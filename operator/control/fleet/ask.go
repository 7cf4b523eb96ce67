// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Limits of questions: how much of the answers of all agents waits for an asker, how
// much of one agent's, and how many questions an agent may have.
const (
	maxWaiting = 2 << 20
	maxWindow  = 64 << 10
	maxOpen    = 32
)

// Ask asks agents, and calls send with what they answer, until all have answered or
// ctx ends; without nodes it asks those of all nodes. While send blocks, the agents
// wait, and nobody else.
func (s *Server) Ask(ctx context.Context, q observe.Query, nodes []string, send func(*wire.AskReply) error) error {
	kind, err := q.Kind()
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	text, err := json.Marshal(q)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	sessions, silent, err := s.whoAnswers(kind, nodes)
	if err != nil {
		return err
	}
	in := &inbox{waiting: make(chan struct{}, 1)}
	window := min(max(maxWaiting/max(len(sessions), 1), wire.MinWindow), maxWindow)
	open := map[*asked]bool{}
	defer func() {
		for a := range open {
			a.cancel()
		}
	}()
	for _, c := range sessions {
		if a, why := c.questions.ask(c, text, window, in); why != "" {
			silent[c.node] = why
		} else {
			open[a] = true
		}
	}
	for _, node := range slices.Sorted(maps.Keys(silent)) {
		if err := send(&wire.AskReply{Node: node, End: true, Error: silent[node]}); err != nil {
			return err
		}
	}
	limit := s.o.Silence
	if q.Flows != nil && q.Flows.Follow { // nothing may happen for long
		limit = 0
	}
	return deliver(ctx, in, open, limit, send)
}

// deliver sends what arrives for an asker until nobody has anything to say any more.
func deliver(ctx context.Context, in *inbox, open map[*asked]bool, limit time.Duration, send func(*wire.AskReply) error) error {
	tick := time.NewTicker(cmp.Or(limit, time.Hour) / 4)
	defer tick.Stop()
	for {
		for _, m := range in.take() {
			if !open[m.from] {
				continue // was given up
			}
			r := &wire.AskReply{Node: m.from.c.node, Application: m.from.c.application, Data: m.Data, Last: m.Last, End: m.End, Error: clip(m.Error)}
			if err := send(r); err != nil {
				return err
			}
			if m.End {
				delete(open, m.from)
			} else {
				m.from.taken(wire.AnswerCost(len(m.Data)))
			}
		}
		if len(open) == 0 {
			return nil
		}
		select {
		case <-in.waiting:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			for a := range open {
				if limit == 0 || a.silence() < limit {
					continue
				}
				a.cancel()
				delete(open, a)
				r := &wire.AskReply{Node: a.c.node, Application: a.c.application, End: true, Error: fmt.Sprintf("its agent has said nothing for %v", limit)}
				if err := send(r); err != nil {
					return err
				}
			}
		}
	}
}

// whoAnswers returns the sessions that are to be asked, and why other nodes cannot be.
func (s *Server) whoAnswers(kind observe.Kind, nodes []string) (sessions []*session, silent map[string]string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading {
		return nil, nil, errNotLeader
	}
	if len(nodes) == 0 {
		nodes = slices.Collect(maps.Keys(s.nodes))
	}
	of := map[string][]*session{}
	for m, c := range s.sessions {
		of[m.node] = append(of[m.node], c)
	}
	silent = map[string]string{}
	for _, node := range nodes {
		if _, known := s.nodes[node]; !known {
			silent[clip(node)] = "there is no such node, or the data plane does not select it"
			continue
		}
		all := of[node]
		delete(of, node) // a node that is named twice is asked once
		if kind == observe.KindTrace || kind == observe.KindStatus {
			all = newest(all, s.reports)
		}
		for _, c := range all {
			if c.answers {
				sessions = append(sessions, c)
			} else {
				silent[node] = "its agent is of a version that answers no questions"
			}
		}
		if len(all) == 0 && !slices.ContainsFunc(sessions, func(c *session) bool { return c.node == node }) {
			silent[node] = "its agent is not connected"
		}
	}
	return sessions, silent, nil
}

// newest returns those sessions of a node that do not drain, or all if there are none.
func newest(all []*session, reports map[member]*lb.Report) []*session {
	serving := slices.DeleteFunc(slices.Clone(all), func(c *session) bool { r := reports[c.member]; return r == nil || r.Draining })
	if len(serving) == 0 {
		return all
	}
	return serving
}

// questions are those that a session's agent is to answer.
type questions struct {
	mu    sync.Mutex
	gone  bool
	last  uint64
	open  map[uint64]*asked
	toAsk []*asked // something of them is to be sent
}

// asked is a question to one agent. The mutex of questions guards its fields.
type asked struct {
	c         *session
	in        *inbox
	id        uint64
	query     []byte // to be sent first; nil: was sent
	window    int    // what the agent may send before it is told that it may send more
	size      int    // of the window at first
	read      int    // what the asker has read since the agent was told
	more      int    // what the agent is to be told
	cancelled bool
	queued    bool
	heard     time.Time // when the agent last said something, or was told that it may
}

// ask has an agent asked. It returns why it cannot be.
func (q *questions) ask(c *session, query []byte, window int, in *inbox) (*asked, string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.gone:
		return nil, "its agent has gone"
	case len(q.open) >= maxOpen:
		return nil, fmt.Sprintf("its agent has %d questions to answer already", len(q.open))
	}
	q.last++
	a := &asked{c: c, in: in, id: q.last, query: query, window: window, size: window, more: window, heard: time.Now()}
	if q.open == nil {
		q.open = map[uint64]*asked{}
	}
	q.open[a.id] = a
	q.queue(a)
	return a, ""
}

// queue has what is new of a question sent to the agent.
func (q *questions) queue(a *asked) {
	if !a.queued && !q.gone {
		a.queued = true
		q.toAsk = append(q.toAsk, a)
		a.c.wakeUp()
	}
}

// next returns what is to be sent to the agent now.
func (q *questions) next() (all []*wire.Question) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range q.toAsk {
		all = append(all, &wire.Question{Id: a.id, Query: a.query, Window: uint32(a.more), Cancel: a.cancelled})
		a.query, a.more, a.queued = nil, 0, false
	}
	q.toAsk = nil
	return all
}

// receive takes a part of an answer. It returns an error if the agent was not asked
// for it.
func (q *questions) receive(m *wire.Answer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.open[m.Id]
	if a == nil || a.query != nil {
		return refused(ReasonProtocol, fmt.Sprintf("the agent answers question %d, which was not asked", m.Id))
	}
	a.heard = time.Now()
	if m.End {
		delete(q.open, m.Id)
		m = &wire.Answer{Id: m.Id, End: true, Error: m.Error}
	} else if a.window -= wire.AnswerCost(len(m.Data)); a.window < 0 {
		return refused(ReasonProtocol, "an answer is larger than the agent was told that it may be")
	}
	if !a.cancelled {
		a.in.put(received{m, a})
	}
	return nil
}

// end ends all questions: the stream has ended.
func (q *questions) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.gone = true
	for _, a := range q.open {
		if !a.cancelled {
			a.in.put(received{&wire.Answer{End: true, Error: "its agent has gone while it answered: ask again"}, a})
		}
	}
	q.open, q.toAsk = nil, nil
}

// cancel tells the agent that the rest of the answer is not wanted. Until the agent
// has ended it, it counts.
func (a *asked) cancel() {
	q := &a.c.questions
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[a.id] != a {
		return
	}
	a.cancelled = true
	if a.query != nil { // the agent knows nothing of it
		delete(q.open, a.id)
		q.toAsk = slices.DeleteFunc(q.toAsk, func(other *asked) bool { return other == a })
		return
	}
	q.queue(a)
}

// taken makes room for what the agent sends next.
func (a *asked) taken(cost int) {
	q := &a.c.questions
	q.mu.Lock()
	defer q.mu.Unlock()
	a.read += cost
	if a.read < a.size/2 {
		return
	}
	a.window += a.read
	a.more += a.read
	a.read = 0
	a.heard = time.Now()
	q.queue(a)
}

// silence returns how long the agent has said nothing although it may.
func (a *asked) silence() time.Duration {
	a.c.questions.mu.Lock()
	defer a.c.questions.mu.Unlock()
	return time.Since(a.heard)
}

// inbox has what agents have answered, until the asker has read it. The windows limit
// its size.
type inbox struct {
	waiting chan struct{} // has an element if there is something

	mu  sync.Mutex
	all []received
}

type received struct {
	*wire.Answer
	from *asked
}

func (i *inbox) put(r received) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all = append(i.all, r)
	select {
	case i.waiting <- struct{}{}:
	default:
	}
}

func (i *inbox) take() []received {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := i.all
	i.all = nil
	return all
}
