// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/metadata"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// authenticate returns whom the stream's token belongs to. An agent has a token
// instead of a TLS certificate.
func (s *Server) authenticate(ctx context.Context) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var token string
	if values := md.Get("authorization"); len(values) == 1 {
		token, _ = strings.CutPrefix(values[0], "Bearer ")
	}
	if token == "" {
		return Identity{}, refused(ReasonNoToken, "there is no token")
	}
	if why := s.refusedTokens.get(token); why != nil {
		return Identity{}, why
	}
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	release, err := s.reviews.acquire(ctx, connOf(ctx).peer)
	if err != nil {
		return Identity{}, refused(ReasonUnauthorizable, "too many tokens are being checked")
	}
	defer release()
	id, err := s.o.Authenticate(ctx, token)
	if why, is := errors.AsType[*RefusedError](err); is {
		s.refusedTokens.add(token, why)
	} else if err != nil {
		err = &RefusedError{Reason: ReasonUnauthorizable, Message: "the token could not be checked", cause: err}
	}
	return id, err
}

// join registers the session of an agent, ends a previous session of the same
// member, and records the agent's status.
func (s *Server) join(c *session, id Identity, hello *wire.Hello) error {
	if hello == nil || hello.Status == nil {
		return refused(ReasonProtocol, "the first message is not Hello")
	}
	if hello.Node != id.Node {
		return refused(ReasonNode, fmt.Sprintf("the agent claims to be on node %q, but its token is for node %q", hello.Node, id.Node))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.left:
		return context.Canceled
	case !s.leading:
		return errNotLeader
	}
	c.member, c.pod = member{hello.Application, hello.Node}, id.Pod
	if err := s.checkMember(c.member); err != nil {
		return err
	}
	// An agent cannot have a later version of this epoch than the newest
	// published one.
	c.maxSequence = s.history.version.Sequence
	c.got = wire.DecodeVersion(hello.Got)
	if sum, ok := lb.SumFromBytes(hello.GotSum); ok {
		c.gotSum = &sum
	}
	if err := s.checkAck(c, hello.Status.Holds); err != nil {
		return err
	}
	if err := s.checkAck(c, hello.Got); err != nil {
		return err
	}
	c.maxSequence = max(s.sequenceOf(hello.Got), s.sequenceOf(hello.Status.Holds))
	if old := s.sessions[c.member]; old != nil {
		old.end(refused(ReasonReplaced, fmt.Sprintf("another stream of application %s on node %s has begun", c.application, c.node)))
	}
	s.takeOver(c)
	s.sessions[c.member] = c
	if s.limits[c.member] == nil {
		s.limits[c.member] = rate.NewLimiter(costsPerSecond, maxCosts)
	}
	c.limit = s.limits[c.member]
	r := &lb.Report{Node: c.node, Application: c.application, Pod: c.pod, Connected: true, ConnectedAt: s.o.Clock(), Kernel: clip(hello.Kernel), Layout: int(hello.Layout), EnforcesPolicies: hello.Policies}
	readStatus(r, hello.Status, s.o.Clock(), s.reports[c.member])
	s.reports[c.member] = r
	s.measure(c, r)
	s.joinAnnouncing(c, hello)
	c.answers, c.policies = hello.Answers, hello.Policies
	s.notify()
	c.wakeUp()
	return nil
}

// sequenceOf returns the sequence of a version if it is of this epoch,
// otherwise 0.
func (s *Server) sequenceOf(v *wire.Version) uint64 {
	if v.GetEpoch() != s.history.version.Epoch {
		return 0
	}
	return v.GetSequence()
}

// checkAck returns an error if the agent claims a version that it was never
// sent.
func (s *Server) checkAck(c *session, v *wire.Version) error {
	if n := s.sequenceOf(v); n > c.maxSequence {
		return refused(ReasonFalseAck, fmt.Sprintf("application %s on node %s claims to have state %d of epoch %d, but was sent %d at most: has the epoch been used before?",
			c.application, c.node, n, v.GetEpoch(), c.maxSequence))
	}
	return nil
}
