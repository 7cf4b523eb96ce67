// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/kubernetes-sigs/blixt/operator/agent"
	"github.com/kubernetes-sigs/blixt/operator/fleet/wire"
)

var errNewEpoch = status.Error(codes.Unavailable, "another leader has begun here: connect again")

// notLeader is the reason in the detail of a redirect.
const notLeader = "NOT_LEADER"

// redirect sends an agent to the leader, if it is known.
func redirect(leader string) error {
	s := status.New(codes.Unavailable, "this operator is not the leader")
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: notLeader, Metadata: map[string]string{"leader": leader}})
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}

// session is the stream of one agent. The server's mutex guards its fields.
type session struct {
	member
	pod  string
	end  context.CancelCauseFunc
	wake chan struct{}

	config *wire.Config // that was sent last
	// got is what the agent has in memory, nil: nothing of this epoch.
	got *agent.Version
	// sent is the sequence that was sent last, and 0 once the agent has tried it.
	sent uint64
	// most is the highest sequence that the agent can have honestly.
	most uint64
}

func (c *session) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// serve talks to an agent until either leaves.
func (s *Server) serve(stream wire.Fleet_ServeServer) error {
	s.mu.Lock()
	leading, leader := s.leading, s.leader
	s.mu.Unlock()
	if !leading {
		return redirect(leader)
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	c := &session{end: end, wake: make(chan struct{}, 1)}
	received := make(chan error, 1)
	go func() { received <- s.receive(ctx, c, stream) }()
	select {
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

// receive lets the agent in, and hears it until it leaves.
func (s *Server) receive(ctx context.Context, c *session, stream wire.Fleet_ServeServer) error {
	id, err := s.authenticate(ctx)
	if err != nil {
		return err
	}
	late := time.AfterFunc(handshake, func() { c.end(refused(ReasonProtocol, "the agent says nothing")) })
	m, err := stream.Recv()
	late.Stop()
	if err != nil {
		return err
	}
	if err := s.join(c, id, m.GetHello()); err != nil {
		return err
	}
	go func() { c.end(s.send(ctx, c, stream)) }()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		if err := s.hear(c, m.GetStatus()); err != nil {
			return err
		}
	}
}

// authenticate looks at the token, which belongs to the stream, as TLS has no
// certificate of the agent.
func (s *Server) authenticate(ctx context.Context) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var token string
	if values := md.Get("authorization"); len(values) == 1 {
		token, _ = strings.CutPrefix(values[0], "Bearer ")
	}
	if token == "" {
		return Identity{}, refused(ReasonNoToken, "there is no token")
	}
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	id, err := s.o.Authenticate(ctx, token)
	if _, is := errors.AsType[*RefusedError](err); err != nil && !is {
		s.o.Log.Error("authenticate agent", "peer", peerHost(ctx), "error", err)
		err = refused(ReasonUnauthorizable, "the token could not be checked")
	}
	return id, err
}

// join makes an agent a member.
func (s *Server) join(c *session, id Identity, hello *wire.Hello) error {
	if hello == nil || hello.Status == nil {
		return refused(ReasonProtocol, "the first message is not Hello")
	}
	if hello.Node != id.Node {
		return refused(ReasonNode, fmt.Sprintf("the agent says that it is on node %q, and its token that it is on %q", hello.Node, id.Node))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.leading {
		return redirect(s.leader)
	}
	c.member, c.pod = member{hello.Application, hello.Node}, id.Pod
	if err := s.known(c.member); err != nil {
		return err
	}
	// What it had before it came, it can have of what was published.
	c.most = s.history.version.Sequence
	c.got = decodeVersion(hello.Got)
	if err := s.honest(c, hello.Status.Holds); err != nil {
		return err
	}
	if err := s.honest(c, hello.Got); err != nil {
		return err
	}
	c.most = max(s.ours(hello.Got), s.ours(hello.Status.Holds))
	if old := s.sessions[c.member]; old != nil {
		old.end(refused(ReasonReplaced, fmt.Sprintf("another stream of application %s on node %s has begun", c.application, c.node)))
	}
	s.sessions[c.member] = c
	r := &Report{Node: c.node, Application: c.application, Pod: c.pod, Connected: true, Kernel: clip(hello.Kernel), Layout: int(hello.Layout)}
	r.read(hello.Status, s.o.Clock(), s.reports[c.member])
	s.reports[c.member] = r
	s.tell()
	c.wakeUp()
	return nil
}

// ours returns the sequence of a version of this epoch, 0 if it is not.
func (s *Server) ours(v *wire.Version) uint64 {
	if v.GetEpoch() != s.history.version.Epoch {
		return 0
	}
	return v.GetSequence()
}

// honest returns an error if an agent cannot have the version.
func (s *Server) honest(c *session, v *wire.Version) error {
	if n := s.ours(v); n > c.most {
		return refused(ReasonFalseAck, fmt.Sprintf("application %s on node %s says that it has state %d of epoch %d, and was told %d at most: has the epoch been used before?",
			c.application, c.node, n, v.GetEpoch(), c.most))
	}
	return nil
}

// leave ends what join began, unless another stream has taken over.
func (s *Server) leave(c *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.member == (member{}) || s.sessions[c.member] != c {
		return
	}
	delete(s.sessions, c.member)
	if r := s.reports[c.member]; r != nil {
		gone := *r
		gone.Connected = false
		s.reports[c.member] = &gone
		s.tell()
	}
}

// hear takes what an agent says of its maps.
func (s *Server) hear(c *session, st *wire.Status) error {
	if st == nil {
		return refused(ReasonProtocol, "a message is not Status")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.reports[c.member]
	if s.sessions[c.member] != c || old == nil {
		return nil // it is about to end
	}
	for _, v := range []*wire.Version{st.Got, st.Holds} {
		if err := s.honest(c, v); err != nil {
			return err
		}
	}
	if n := s.ours(st.Got); n > 0 {
		c.got = decodeVersion(st.Got)
		if n >= c.sent {
			c.sent = 0
			c.wakeUp()
		}
	}
	r := *old
	r.read(st, s.o.Clock(), old)
	s.reports[c.member] = &r
	if !r.same(*old) {
		s.tell()
	}
	return nil
}

// partSize is well below what gRPC takes as one message.
const partSize = 256 << 10

// send tells the agent what it does not know, one version at a time: while it
// is busy with one, newer ones become one.
func (s *Server) send(ctx context.Context, c *session, stream wire.Fleet_ServeServer) error {
	for {
		config, update, err := s.next(c)
		if err != nil {
			return err
		}
		if config != nil {
			if err := stream.Send(&wire.OperatorMessage{Message: &wire.OperatorMessage_Config{Config: config}}); err != nil {
				return err
			}
		}
		for rest := update; len(rest) > 0; {
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

// next returns what to tell an agent now, if anything.
func (s *Server) next(c *session) (config *wire.Config, update []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[c.member] != c || s.known(c.member) != nil {
		return nil, nil, nil // it is about to end
	}
	if now := encodeConfig(s.nodes[c.node], s.settings[c.application]); !proto.Equal(c.config, now) {
		c.config, config = now, now
	}
	newest := s.history.version
	if newest.Sequence == 0 || c.sent > 0 || c.got != nil && *c.got == newest {
		return config, nil, nil
	}
	kind := "complete"
	if _, known := s.history.missed(c.got); known {
		kind = "changes"
	}
	if update, err = s.history.since(c.got); err != nil {
		return nil, nil, err
	}
	s.updates.WithLabelValues(kind).Inc()
	c.sent, c.most = newest.Sequence, newest.Sequence
	return config, update, nil
}

func encodeConfig(n Node, s Settings) *wire.Config {
	c := &wire.Config{Node: n.Name, Zone: n.Zone, Snat: &wire.Ports{Min: uint32(s.SNAT.Min), Max: uint32(s.SNAT.Max)}}
	if drain, known := s.Drain[n.Name]; known {
		c.Drain = &drain
	}
	for _, a := range n.Addresses {
		c.Addresses = append(c.Addresses, a.AsSlice())
	}
	return c
}
