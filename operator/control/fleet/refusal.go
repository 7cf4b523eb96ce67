// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Reason is why an agent was refused, in one word.
type Reason string

// The values of Reason. They are the labels of the counter.
const (
	ReasonNoToken        Reason = "no_token"       // the agent sent no token
	ReasonToken          Reason = "token"          // the token is not of this cluster, or its Pod is gone
	ReasonExpired        Reason = "expired"        // the token has expired
	ReasonAudience       Reason = "audience"       // the token is for another audience
	ReasonAccount        Reason = "account"        // the token is not of the agents' ServiceAccount
	ReasonUnbound        Reason = "unbound"        // the token names no node
	ReasonNode           Reason = "node"           // the agent claims to be on another node than its token
	ReasonUnknownNode    Reason = "unknown_node"   // the node does not exist, or is not selected
	ReasonApplication    Reason = "application"    // the application does not exist
	ReasonFalseAck       Reason = "false_ack"      // the agent claims a version that it was never sent
	ReasonProtocol       Reason = "protocol"       // a message was missing or unexpected
	ReasonReplaced       Reason = "replaced"       // another stream of the same node and application began
	ReasonUnauthorizable Reason = "unauthorizable" // the token could not be checked
	ReasonCrowded        Reason = "crowded"        // the peer, or all, had too many connections without an agent
)

var reasons = []Reason{ReasonNoToken, ReasonToken, ReasonExpired, ReasonAudience, ReasonAccount, ReasonUnbound, ReasonNode,
	ReasonUnknownNode, ReasonApplication, ReasonFalseAck, ReasonProtocol, ReasonReplaced, ReasonUnauthorizable, ReasonCrowded}

// RefusedError means that an agent is refused. The agent gets the message.
type RefusedError struct {
	Reason  Reason
	Message string
	cause   error // is logged, and not sent
}

func (e *RefusedError) Error() string { return e.Message }

// GRPCStatus is what gRPC sends to the agent.
func (e *RefusedError) GRPCStatus() *status.Status {
	code := codes.PermissionDenied
	switch e.Reason {
	case ReasonNoToken, ReasonToken, ReasonExpired, ReasonAudience:
		code = codes.Unauthenticated
	case ReasonUnknownNode, ReasonApplication, ReasonUnauthorizable:
		code = codes.Unavailable // may be accepted later
	case ReasonFalseAck, ReasonProtocol:
		code = codes.InvalidArgument
	case ReasonReplaced:
		code = codes.Aborted
	}
	return status.New(code, e.Message)
}

func refused(r Reason, message string) error { return &RefusedError{Reason: r, Message: message} }

// logInterval is the minimum interval between log lines about one peer for one
// reason. Of one interval, no more than maxLogged lines are logged.
const (
	logInterval = time.Minute
	maxLogged   = 256
)

// refusals counts all refusals, and logs those of each peer once per
// logInterval.
type refusals struct {
	total *prometheus.CounterVec
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	logged map[peerReason]time.Time
}

type peerReason struct {
	peer   netip.Prefix
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
func (r *refusals) record(peer netip.Prefix, err error) {
	why, ok := errors.AsType[*RefusedError](err)
	if !ok {
		return
	}
	r.total.WithLabelValues(string(why.Reason)).Inc()
	if !r.shouldLog(peerReason{peer, why.Reason}) {
		return
	}
	log := r.log
	if why.cause != nil {
		log = log.With("error", why.cause)
	}
	log.Warn("agent refused", "peer", peer, "reason", why.Reason, "message", why.Message)
}

// shouldLog reports whether to log this refusal.
func (r *refusals) shouldLog(p peerReason) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	recent := func(at time.Time) bool { return now.Sub(at) >= 0 && now.Sub(at) < logInterval }
	if at, ok := r.logged[p]; ok && recent(at) {
		return false
	}
	for old, at := range r.logged {
		if !recent(at) {
			delete(r.logged, old)
		}
	}
	if len(r.logged) >= maxLogged {
		return false
	}
	r.logged[p] = now
	return true
}
