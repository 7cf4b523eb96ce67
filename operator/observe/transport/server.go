// SPDX-License-Identifier: Apache-2.0

// Package transport carries questions and answers of package observe over connections:
// from commands to a host's own process or to the operator.
package transport

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Limits of what askers can take.
const (
	// MaxQuestions is how many questions a server answers at a time.
	MaxQuestions   = 16
	maxQuestion    = 64 << 10 // the size of one
	maxConnections = 64
	// maxHeaders has room for a token, which has about one KiB.
	maxHeaders = 16 << 10
	handshake  = 10 * time.Second
)

// Options configure a server. What is zero has a default.
type Options struct {
	// StallAfter is how long an asker may read nothing while there is something to
	// read; 0: half a minute.
	StallAfter time.Duration
	// MaxAge is the longest time that an answer may last; 0: for ever.
	MaxAge time.Duration
}

// Handler answers a question. send may block for as long as the asker does not read.
// An error of package status is passed on as it is.
type Handler func(ctx context.Context, q *wire.AskRequest, send func(*wire.AskReply) error) error

// NewServer returns a server whose questions a handler answers.
func NewServer(h Handler, o Options, more ...grpc.ServerOption) *grpc.Server {
	if o.StallAfter == 0 {
		o.StallAfter = 30 * time.Second
	}
	g := grpc.NewServer(append(more,
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute, Time: wire.PingEvery, Timeout: wire.PingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.PingEvery / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(MaxQuestions), grpc.MaxRecvMsgSize(maxQuestion), grpc.MaxHeaderListSize(maxHeaders),
	)...)
	wire.RegisterObserveServer(g, &service{o: o, answer: h, free: semaphore.NewWeighted(MaxQuestions)})
	return g
}

// service implements the gRPC service.
type service struct {
	wire.UnimplementedObserveServer
	o      Options
	answer Handler
	free   *semaphore.Weighted
}

func (s *service) Ask(q *wire.AskRequest, stream wire.Observe_AskServer) error {
	if !s.free.TryAcquire(1) {
		return status.Errorf(codes.ResourceExhausted, "%d questions are being answered, which is the limit: ask again later", MaxQuestions)
	}
	ctx, end := context.WithCancelCause(stream.Context())
	defer end(nil)
	if s.o.MaxAge > 0 {
		old := time.AfterFunc(s.o.MaxAge, func() {
			end(status.Errorf(codes.DeadlineExceeded, "an answer lasts for %v at most: ask again", s.o.MaxAge))
		})
		defer old.Stop()
	}
	done := make(chan error, 1)
	go func() {
		err := s.answer(ctx, q, func(r *wire.AskReply) error {
			stalled := time.AfterFunc(s.o.StallAfter, func() {
				end(status.Errorf(codes.Aborted, "the answer was not read for %v", s.o.StallAfter))
			})
			defer stalled.Stop()
			return stream.Send(r)
		})
		s.free.Release(1)
		done <- err
	}()
	select {
	case err := <-done:
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	case <-ctx.Done(): // whoever blocks in Send is freed when this returns
		return context.Cause(ctx)
	}
}

// Local returns a handler for what one Answerer has to say.
func Local(a observe.Answerer) Handler {
	return func(ctx context.Context, r *wire.AskRequest, send func(*wire.AskReply) error) error {
		if len(r.Nodes) > 0 {
			return status.Error(codes.InvalidArgument, "this host is asked alone: it knows no other nodes")
		}
		var q observe.Query
		if err := json.Unmarshal(r.Query, &q); err != nil {
			return status.Errorf(codes.InvalidArgument, "read the question: %v", err)
		}
		var gone error
		err := a.Answer(ctx, q, func(piece json.RawMessage) error {
			for len(piece) > 0 && gone == nil {
				part := piece[:min(wire.MaxAnswer, len(piece))]
				piece = piece[len(part):]
				gone = send(&wire.AskReply{Data: part, Last: len(piece) == 0})
			}
			return gone
		})
		if gone != nil {
			return gone
		}
		end := &wire.AskReply{End: true}
		if err != nil && !errors.Is(err, context.Canceled) {
			end.Error = err.Error()
		}
		return send(end)
	}
}

// Serve serves on a listener until ctx ends.
func Serve(ctx context.Context, g *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(netutil.LimitListener(l, maxConnections)); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve questions: %w", err)
	}
	return nil
}
