// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Both make an agent connect again: to this replica, or to the next one.
var (
	errNewEpoch  = status.Error(codes.Unavailable, "this operator has begun a new epoch: connect again")
	errNotLeader = status.Error(codes.Unavailable, "this operator is not the leader")
)

// session is the stream of one agent. The server's mutex guards its fields.
type session struct {
	member
	pod  string
	left bool // the stream has ended, and may not join any more
	end  context.CancelCauseFunc
	wake chan struct{}
	// limit is that of the member: a new stream does not begin anew.
	limit *rate.Limiter

	config *wire.Config // sent last
	// answers: the agent answers questions, which have a mutex of their own.
	answers   bool
	policies  bool            // that of Hello
	results   []health.Result // of checks, as far as they have come; its stream's alone
	ejected   uint64          // the sequence of what is ejected that was sent last
	questions questions
	reviews   tokenReviews
	// announces: the agent gets what nodes need that announce clients to each other.
	announces bool
	// peers is the sequence of peers that was sent last; 0: none. peersSums are those of
	// what the agent has of another leader or stream, until they are compared.
	peers     uint64
	peersSums []uint64
	// got is the version that the agent has in memory; nil: none.
	got *lb.Version
	// gotSum is the sum of got, if it is of another leader and has not been
	// compared yet.
	gotSum *lb.Sum
	// sent is the sequence of the update that the agent has not confirmed yet;
	// 0: none.
	sent uint64
	// maxSequence is the highest sequence that the agent can have: an agent
	// that claims a higher one is refused.
	maxSequence uint64
	// expected are the versions that are measured when the agent confirms them, sorted.
	expected []span
}

func (c *session) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// serve serves one stream until either side ends it.
func (s *Server) serve(stream wire.Fleet_ServeServer) error {
	s.mu.Lock()
	leading := s.leading
	s.mu.Unlock()
	if !leading {
		return errNotLeader
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	c := &session{end: end, wake: make(chan struct{}, 1), reviews: newTokenReviews()}
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx, c, stream) }()
	// So that agents that have come together do not go together.
	age := time.NewTimer(s.o.MaxAge*3/4 + rand.N(s.o.MaxAge/4))
	defer age.Stop()
	select {
	case <-age.C: // the agent comes again, with its present token
		s.leave(c)
		return nil
	case err := <-received:
		s.leave(c)
		if cause := context.Cause(ctx); cause != nil && stream.Context().Err() == nil {
			return cause
		}
		return err
	case <-ctx.Done():
		s.leave(c)
		return context.Cause(ctx)
	}
}

// receive authenticates the agent, lets it join, starts to send to it, and
// receives its status until it leaves.
func (s *Server) receive(ctx context.Context, c *session, stream wire.Fleet_ServeServer) error {
	id, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(handshake, func() { c.end(refused(ReasonProtocol, "the agent sent no Hello")) })
	m, err := stream.Recv()
	late.Stop()
	if err != nil {
		return err
	}
	if l := s.limitOf(id, m.GetHello()); l != nil {
		if err := l.WaitN(ctx, joinCost); err != nil {
			return err
		}
	}
	if err := s.join(c, id, m.GetHello()); err != nil {
		return err
	}
	connOf(ctx).joined()
	go func() { c.end(s.send(ctx, c, stream)) }()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer := m.GetAnswer(); answer != nil {
			if err := c.questions.receive(answer); err != nil {
				return err
			}
			continue
		}
		if h := m.GetHealth(); h != nil {
			s.receiveHealth(c, h)
			if err := c.limit.WaitN(ctx, 1); err != nil {
				return err
			}
			continue
		}
		if review := m.GetReview(); review != nil && s.o.ReviewMetrics != nil {
			if c.reviews.start(ctx, s.o.ReviewMetrics, c, review) {
				continue
			}
			if err := c.limit.WaitN(ctx, changeCost); err != nil {
				return err
			}
			continue
		}
		cost, err := s.receiveStatus(c, m.GetStatus())
		if err == nil {
			err = c.limit.WaitN(ctx, cost)
		}
		if err != nil {
			return err
		}
	}
}

// leave removes the session, unless another stream has replaced it. The report
// stays.
func (s *Server) leave(c *session) {
	c.questions.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	c.left = true
	if s.sessions[c.member] != c {
		return
	}
	delete(s.sessions, c.member)
	s.handOver(c)
	if r := s.reports[c.member]; r != nil {
		gone := *r
		gone.Connected = false
		s.reports[c.member] = &gone
		s.notify()
	}
}

// limitOf returns the limit of an agent that has joined before; nil: there is none.
func (s *Server) limitOf(id Identity, hello *wire.Hello) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits[member{hello.GetApplication(), id.Node}]
}

// What an agent may say, and how often, is limited: each change of a report makes
// the operator think, and write. An agent that has said too much waits. To confirm
// a version costs one. So a node that is hostile, or flaps, keeps nobody else from
// being heard.
const (
	costsPerSecond = 100
	maxCosts       = 500
	joinCost       = 50
	changeCost     = 20 // of anything that is not a version
)

// receiveStatus records an agent's status. A confirmed version makes room for
// the next update. It returns the cost.
func (s *Server) receiveStatus(c *session, st *wire.Status) (cost int, err error) {
	if st == nil {
		return 0, refused(ReasonProtocol, "a message is not Status")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.reports[c.member]
	if s.sessions[c.member] != c || old == nil {
		return 1, nil // it is about to end
	}
	for _, v := range []*wire.Version{st.Got, st.Holds} {
		if err := s.checkAck(c, v); err != nil {
			return 0, err
		}
	}
	if n := s.sequenceOf(st.Got); n > 0 {
		c.got = wire.DecodeVersion(st.Got)
		if n >= c.sent {
			c.sent = 0
			c.wakeUp()
		}
	}
	r := *old
	readStatus(&r, st, s.o.Clock(), old)
	s.reports[c.member] = &r
	s.measure(c, &r)
	cost = 1
	if s.receiveAnnouncing(c, st.Announcing) {
		cost = changeCost
	}
	if r.HeartbeatLost != old.HeartbeatLost || r.Draining != old.Draining {
		s.peersChanged(c.node)
	}
	if !sameReport(r, *old) {
		s.notify()
		same := *old
		same.Version, same.AckedAt, same.StateHash, same.Frontends, same.Backends = r.Version, r.AckedAt, r.StateHash, r.Frontends, r.Backends
		if !sameReport(r, same) {
			cost = changeCost
		}
	}
	return cost, nil
}
