// SPDX-License-Identifier: Apache-2.0

// Package fleet is the stream from the operator to the agents of all nodes. In
// come what is to be served, as frontends that name Services and the endpoints
// of each Service; out goes, to each agent, what has changed since it was last
// told, and back comes what its maps hold. What it means on a node, the agent
// finds out: so the change of an endpoint is the same few bytes for everybody.
package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Settings are those of all agents of an application, which is a
// ClusterBpfApplication. There are two applications during an upgrade.
type Settings struct {
	// SNAT are the source ports for backends elsewhere. Two applications on
	// one node must not share any.
	SNAT lb.PortRange
	// Drain is true for nodes on which the application is to serve no flows but
	// those that it knows, and false where it serves all. On other nodes it goes
	// on as it does.
	Drain map[string]bool
}

// Node is what an agent is told about the node that it is on.
type Node struct {
	Name, Zone string
	Addresses  []netip.Addr
}

// Identity is whom a token belongs to.
type Identity struct {
	Node string
	// Pod is namespace/name.
	Pod string
}

// ServerOptions of a server.
type ServerOptions struct {
	// TLS has the certificate. A new one, by GetCertificate, is for new streams.
	TLS *tls.Config
	// Authenticate tells whose token it is. Returns RefusedError if it is not an
	// agent's; any other error means that nobody can say.
	Authenticate func(ctx context.Context, token string) (Identity, error)
	// Registerer gets the counters of the server, nil: nobody.
	Registerer prometheus.Registerer
	Log        *slog.Logger     // nil: nothing is logged
	Clock      func() time.Time // nil: time.Now
	// MaxAge is how long a stream lasts before its agent has to show a token
	// again; 0: an hour.
	MaxAge time.Duration
}

// Server is the operator's side. Its methods may be called concurrently, and
// never wait for an agent.
type Server struct {
	o        ServerOptions
	refusals *refusals
	updates  *prometheus.CounterVec

	changed chan struct{}
	reviews chan struct{} // a place for each token that is being checked

	mu       sync.Mutex // of all below
	leading  bool
	history  history
	nodes    map[string]Node
	settings map[string]Settings
	// sessions and reports are by agent; of an agent that has left, the
	// report stays.
	sessions map[member]*session
	reports  map[member]*lb.Report
}

// member is the agent of an application on a node.
type member struct{ application, node string }

// NewServer returns a server that does not lead.
func NewServer(o ServerOptions) *Server {
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.MaxAge == 0 {
		o.MaxAge = time.Hour
	}
	s := &Server{
		o: o, refusals: newRefusals(o.Registerer, o.Log, o.Clock), changed: make(chan struct{}, 1), reviews: make(chan struct{}, maxReviews),
		nodes: map[string]Node{}, settings: map[string]Settings{}, sessions: map[member]*session{}, reports: map[member]*lb.Report{},
	}
	s.updates = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blixt_fleet_updates_total", Help: "Updates sent to agents: complete ones, and changes.",
	}, []string{"kind"})
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "blixt_fleet_agents", Help: "Agents that are connected.",
	}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.sessions))
	})
	o.Registerer.MustRegister(s.updates, connected)
	return s
}

// Lead makes the server serve agents. No leader, before or after, may have the
// same epoch: agents refuse what is older than what they have of an epoch.
func (s *Server) Lead(epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading, s.history = true, newHistory(epoch)
	s.endAll(errNewEpoch)
}

// Publish makes agents serve a snapshot. Returns its version: the next one, or
// the last if nothing differs. Does nothing in a server that does not lead.
func (s *Server) Publish(snapshot Snapshot) lb.Version {
	state := indexSnapshot(snapshot)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leading && s.history.publish(state) {
		s.wakeAll()
	}
	return s.history.version
}

// SetNodes says which nodes there are. Agents of others are sent away.
func (s *Server) SetNodes(nodes []Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nodes = make(map[string]Node, len(nodes))
	for _, n := range nodes {
		s.nodes[n.Name] = n
	}
	s.endUnknown()
	s.wakeAll()
}

// SetSettings makes an application known, or changes its settings.
func (s *Server) SetSettings(application string, settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settings[application] = settings
	s.wakeAll()
}

// Forget ends with an application: its agents are sent away.
func (s *Server) Forget(application string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.settings, application)
	s.endUnknown()
}

// endUnknown ends the sessions of agents that should not be, and drops what
// they said.
func (s *Server) endUnknown() {
	for m := range s.reports {
		if err := s.checkMember(m); err != nil {
			delete(s.reports, m)
			if c := s.sessions[m]; c != nil {
				c.end(err)
			}
			s.notify()
		}
	}
}

// checkMember returns why an agent should not be.
func (s *Server) checkMember(m member) error {
	if _, ok := s.settings[m.application]; !ok {
		return refused(ReasonApplication, fmt.Sprintf("there is no application %q: is this agent of an older or a newer installation?", m.application))
	}
	if _, ok := s.nodes[m.node]; !ok {
		return refused(ReasonUnknownNode, fmt.Sprintf("there is no node %q, or the data plane does not select it", m.node))
	}
	return nil
}

func (s *Server) endAll(err error) {
	for _, c := range s.sessions {
		c.end(err)
	}
}

func (s *Server) wakeAll() {
	for _, c := range s.sessions {
		c.wakeUp()
	}
}

// Limits of what an agent, or who is not one yet, can make the server hold or
// ask of others.
const (
	maxAgentMessage = 64 << 10
	buffers         = 4 << 10
	handshake       = 10 * time.Second
	maxReviews      = 32
)

// Serve serves agents until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	config := s.o.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	g := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(config)),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: wire.PingEvery, Timeout: wire.PingTimeout, MaxConnectionAge: s.o.MaxAge, MaxConnectionAgeGrace: time.Second,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.PingEvery / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(2), grpc.MaxRecvMsgSize(maxAgentMessage),
		// A thousand agents with gRPC's own buffers would take 64 MB.
		grpc.ReadBufferSize(buffers), grpc.WriteBufferSize(buffers),
	)
	wire.RegisterFleetServer(g, service{s: s})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve agents: %w", err)
	}
	return nil
}

// service is the server as gRPC sees it.
type service struct {
	wire.UnimplementedFleetServer
	s *Server
}

func (v service) Serve(stream wire.Fleet_ServeServer) error {
	err := v.s.serve(stream)
	v.s.refusals.record(stream.Context(), err)
	return err
}
