// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// Reason says in a word why an agent was refused.
type Reason string

// The reasons, as the counter has them.
const (
	ReasonNoToken        Reason = "no_token"       // none was sent
	ReasonToken          Reason = "token"          // not one of this cluster, or of a Pod that is gone
	ReasonExpired        Reason = "expired"        // the token
	ReasonAudience       Reason = "audience"       // the token is for somebody else
	ReasonAccount        Reason = "account"        // the token is not of the agents' ServiceAccount
	ReasonUnbound        Reason = "unbound"        // the token names no node
	ReasonNode           Reason = "node"           // the agent claims to be on another node than its token
	ReasonUnknownNode    Reason = "unknown_node"   // there is no such node
	ReasonApplication    Reason = "application"    // there is no such application
	ReasonFalseAck       Reason = "false_ack"      // of a version that was never sent
	ReasonProtocol       Reason = "protocol"       // messages that mean nothing
	ReasonReplaced       Reason = "replaced"       // another stream of the same node and application came
	ReasonUnauthorizable Reason = "unauthorizable" // nobody could say whether the token is right
)

var reasons = []Reason{ReasonNoToken, ReasonToken, ReasonExpired, ReasonAudience, ReasonAccount, ReasonUnbound, ReasonNode,
	ReasonUnknownNode, ReasonApplication, ReasonFalseAck, ReasonProtocol, ReasonReplaced, ReasonUnauthorizable}

// RefusedError says why an agent is refused.
type RefusedError struct {
	Reason  Reason
	Message string
}

func (e *RefusedError) Error() string { return e.Message }

// GRPCStatus makes gRPC tell the agent.
func (e *RefusedError) GRPCStatus() *status.Status {
	code := codes.PermissionDenied
	switch e.Reason {
	case ReasonNoToken, ReasonToken, ReasonExpired, ReasonAudience:
		code = codes.Unauthenticated
	case ReasonUnknownNode, ReasonApplication, ReasonUnauthorizable:
		code = codes.Unavailable // later, maybe
	case ReasonFalseAck, ReasonProtocol:
		code = codes.InvalidArgument
	case ReasonReplaced:
		code = codes.Aborted
	}
	return status.New(code, e.Message)
}

func refused(r Reason, message string) error { return &RefusedError{r, message} }

// logInterval is how long a peer's further refusals for the same reason are not
// logged.
const logInterval = time.Minute

// refusals counts them all, and logs each peer's once a minute.
type refusals struct {
	total *prometheus.CounterVec
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	logged map[peerReason]time.Time
}

type peerReason struct {
	peer   string
	reason Reason
}

func newRefusals(r prometheus.Registerer, log *slog.Logger, clock func() time.Time) *refusals {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blixt_fleet_refusals_total", Help: "Agents refused, by reason.",
	}, []string{"reason"})
	for _, reason := range reasons {
		total.WithLabelValues(string(reason)) // shown from the beginning, as 0
	}
	r.MustRegister(total)
	return &refusals{total: total, log: log, clock: clock, logged: map[peerReason]time.Time{}}
}

// record counts err if it is a refusal.
func (r *refusals) record(ctx context.Context, err error) {
	why, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return
	}
	r.total.WithLabelValues(string(why.Reason)).Inc()
	p := peerReason{peerHost(ctx), why.Reason}
	if r.shouldLog(p) {
		r.log.Warn("agent refused", "peer", p.peer, "reason", why.Reason, "message", why.Message)
	}
}

// shouldLog tells whether this is to be logged. It forgets what is over, so that
// it holds no more than a minute's peers.
func (r *refusals) shouldLog(p peerReason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	if at, ok := r.logged[p]; ok && now.Sub(at) < logInterval {
		return false
	}
	for old, at := range r.logged {
		if now.Sub(at) >= logInterval {
			delete(r.logged, old)
		}
	}
	r.logged[p] = now
	return true
}

// peerHost returns the address of the other side, without its port.
func peerHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "unknown"
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
