// SPDX-License-Identifier: Apache-2.0

// Package fleet is the operator's end of the stream to the agents of all nodes.
// In come what is to be served, as frontends that name Services, and the
// endpoints of each Service. Out goes, to each agent, what has changed since
// the last update, and back comes what its maps hold. Each agent resolves for
// its node, so the change of an endpoint is the same few bytes for all agents.
package fleet

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Settings apply to all agents of an application, which is a
// ClusterBpfApplication. During an upgrade there are two applications.
type Settings struct {
	// SNAT are the source ports for backends on other nodes. Two applications
	// on one node must not share any.
	SNAT lb.PortRange
	// ThroughStack has backends on other nodes reached by the stack alone, whose NAT
	// translates sources of packets with the mark.
	ThroughStack   bool
	MasqueradeMark uint32
	// Upgrading reports that there is another application, in front of this one.
	Upgrading bool
	// ClusterSNAT are the ports to which any program of the cluster may translate
	// sources.
	ClusterSNAT lb.PortRange
	// Drain is true for nodes on which the application serves only the flows
	// that it knows, and false for nodes on which it serves all. On nodes that
	// are missing here it continues as before.
	Drain map[string]bool
}

// Node is what an agent needs to know of its own node.
type Node struct {
	Name, Zone string
	Addresses  []netip.Addr
	// Tunnels are its other addresses that its Node object names, PodCIDRs where its
	// pods are.
	Tunnels  []netip.Addr
	PodCIDRs []netip.Prefix
}

// Identity is the agent that a token belongs to.
type Identity struct {
	Node string
	// Pod is namespace/name.
	Pod string
}

// ServerOptions configure a server.
type ServerOptions struct {
	// TLS has the certificate. A certificate that GetCertificate returns
	// applies to new streams.
	TLS *tls.Config
	// Authenticate returns whom a token belongs to. It returns a RefusedError
	// if the token is not an agent's, and any other error if the token could
	// not be checked.
	Authenticate func(ctx context.Context, token string) (Identity, error)
	// ReviewMetrics says whether the owner of a token may read metrics; nil: agents
	// cannot ask.
	ReviewMetrics scrape.Review
	// Registerer registers the server's metrics; nil: they are not registered.
	Registerer prometheus.Registerer
	Log        *slog.Logger     // nil: nothing is logged
	Clock      func() time.Time // nil: time.Now
	// MaxAge is how long a stream lasts before its agent has to connect again,
	// with its present token; 0: an hour.
	MaxAge time.Duration
	// Hold is how long a new leader waits for the agents that the previous one had
	// before it says which nodes announce clients; 0: 45 seconds.
	Hold time.Duration
	// Silence is how long an agent that is asked something may say nothing; 0: half a
	// minute.
	Silence time.Duration
	// PeersEvery is how often agents hear of nodes at most; 0: a second.
	PeersEvery time.Duration
}

// Server is the operator's end of all streams. Its methods may be called
// concurrently, and never wait for an agent.
type Server struct {
	o        ServerOptions
	refusals *refusals
	updates  *prometheus.CounterVec

	changed       chan struct{}
	reviews       *reviews
	refusedTokens *refusedTokens

	publishing sync.Mutex // held while a snapshot is compared: see Publish

	mu       sync.Mutex // of all below
	leading  bool
	history  history
	nodes    map[string]Node
	settings map[string]Settings
	seed     *uint64 // nil: not known yet
	// sessions and reports are by agent. The report of an agent that has left
	// stays.
	sessions map[member]*session
	reports  map[member]*lb.Report
	limits   map[member]*rate.Limiter

	announcing announcing
	timing     timing
	judging    judging
}

// member identifies an agent: that of an application on a node.
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
	if o.Hold == 0 {
		o.Hold = 45 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 30 * time.Second
	}
	if o.PeersEvery == 0 {
		o.PeersEvery = peersEvery
	}
	s := &Server{
		o: o, refusals: newRefusals(o.Registerer, o.Log, o.Clock), changed: make(chan struct{}, 1), reviews: newReviews(), refusedTokens: newRefusedTokens(o.Clock),
		nodes: map[string]Node{}, settings: map[string]Settings{}, sessions: map[member]*session{}, reports: map[member]*lb.Report{},
		limits: map[member]*rate.Limiter{}, announcing: newAnnouncing(), timing: newTiming(),
	}
	s.updates = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blixt_fleet_updates_total", Help: "Updates sent to agents: complete ones, changes, and new numbers for what they hold of another leader.",
	}, []string{"kind"})
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "blixt_fleet_agents", Help: "Agents that are connected.",
	}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.sessions))
	})
	o.Registerer.MustRegister(slices.Concat(s.healthMetrics(), s.announcingMetrics(), s.timingMetrics(), []prometheus.Collector{s.updates, connected})...)
	return s
}

// Lead makes the server accept agents. No other leader, past or future, may use
// the same epoch: agents refuse a version that is older than theirs of the same
// epoch.
func (s *Server) Lead(epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading, s.history = true, newHistory(epoch)
	s.judging.sequence, s.judging.since, s.judging.judged, s.judging.kept = 0, s.o.Clock(), lb.Version{}, nil
	s.forgetVersions()
	s.hold()
	s.endAll(errNewEpoch)
}

// Publish makes agents serve a snapshot, and returns its version: the next
// version, or the last one if nothing has changed. In a server that does not
// lead, it does nothing and returns the zero Version.
func (s *Server) Publish(snapshot Snapshot) lb.Version {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	state := indexSnapshot(snapshot)
	s.mu.Lock()
	leading, old, sum, epoch := s.leading, s.history.state, s.history.sum, s.history.version.Epoch
	s.mu.Unlock()
	if !leading {
		return lb.Version{}
	}
	c := differences(old, state) // without the mutex: agents do not wait
	sum = newSum(sum, old, state, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.expectAcks(s.history.version.Sequence)
	switch {
	case s.history.version.Epoch != epoch: // Lead was called
		s.history.publish(state)
	case s.history.version.Sequence > 0 && c.empty():
		return s.history.version
	default:
		s.history.add(state, c, sum)
	}
	s.wake(func(*session) bool { return true })
	return s.history.version
}

// PublishEndpoints makes agents serve the endpoints of one Service of the snapshot
// that was published last. It returns as Publish does. Its cost does not grow with
// the snapshot.
func (s *Server) PublishEndpoints(service types.NamespacedName, e gateway.ServiceEndpoints) lb.Version {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.expectAcks(s.history.version.Sequence)
	if s.leading && s.history.publishEndpoints(service, e.Ports) {
		s.wake(func(*session) bool { return true })
	}
	return s.history.version
}

// PublishSources makes agents enforce one set of sources of the snapshot that was published
// last, as PublishEndpoints does with endpoints.
func (s *Server) PublishSources(set lb.SourceSet) lb.Version {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.expectAcks(s.history.version.Sequence)
	if s.leading && s.history.publishSources(set) {
		s.wake(func(*session) bool { return true })
	}
	return s.history.version
}

// SetNodes sets the nodes whose agents are accepted. The sessions of other
// nodes' agents are ended.
func (s *Server) SetNodes(nodes []Node) {
	now := make(map[string]Node, len(nodes))
	for _, n := range nodes {
		now[n.Name] = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.nodes
	s.nodes = now
	s.forgetNodes()
	s.endUnknown()
	if !maps.EqualFunc(old, now, func(a, b Node) bool {
		return slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Tunnels, b.Tunnels) && slices.Equal(a.PodCIDRs, b.PodCIDRs)
	}) {
		s.addressesMayHaveChanged()
	}
	alone := len(old) == 1 != (len(now) == 1)
	s.wake(func(c *session) bool {
		a, b := old[c.node], now[c.node]
		return alone || a.Zone != b.Zone || !slices.Equal(a.Addresses, b.Addresses)
	})
}

// SetSettings adds an application, or changes its settings.
func (s *Server) SetSettings(application string, settings Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.settings[application]
	s.settings[application] = settings
	s.wake(func(c *session) bool {
		before, known := old.Drain[c.node]
		drain, knows := settings.Drain[c.node]
		path := old.ThroughStack != settings.ThroughStack || old.MasqueradeMark != settings.MasqueradeMark
		return c.application == application && (old.SNAT != settings.SNAT || path || old.Upgrading != settings.Upgrading || old.ClusterSNAT != settings.ClusterSNAT || known != knows || before != drain)
	})
}

// SetSeed sets the seed of all agents. Until then each continues with the one that
// its maps hold.
func (s *Server) SetSeed(seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seed == nil || *s.seed != seed {
		s.seed = &seed
		s.wake(func(*session) bool { return true })
	}
}

// Forget removes an application. The sessions of its agents are ended.
func (s *Server) Forget(application string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.settings, application)
	s.endUnknown()
}

// endUnknown ends the sessions of agents whose node or application is unknown,
// and drops their reports.
func (s *Server) endUnknown() {
	for m := range s.reports {
		if err := s.checkMember(m); err != nil {
			delete(s.reports, m)
			delete(s.timing.left, m)
			s.forgetAgent(m)
			s.peersChanged(m.node)
			if c := s.sessions[m]; c != nil {
				c.end(err)
			}
			s.notify()
		}
	}
	for m := range s.limits {
		if s.reports[m] == nil {
			delete(s.limits, m)
		}
	}
}

// checkMember returns an error if the node or the application of an agent is
// unknown.
func (s *Server) checkMember(m member) error {
	if _, ok := s.settings[m.application]; !ok {
		return refused(ReasonApplication, fmt.Sprintf("there is no application %q: does the agent belong to another installation?", m.application))
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

// wake has sessions look for something to send.
func (s *Server) wake(which func(*session) bool) {
	for _, c := range s.sessions {
		if which(c) {
			c.wakeUp()
		}
	}
}

// Limits of the resources that an agent can take.
const (
	maxAgentMessage = 64 << 10
	maxHeaders      = 16 << 10 // a token has about one KiB
	buffers         = 4 << 10
)

// Serve serves agents until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	config := s.o.TLS.Clone()
	config.MinVersion = tls.VersionTLS13
	g := grpc.NewServer(
		grpc.Creds(tracked{credentials.NewTLS(config)}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: wire.PingEvery, Timeout: wire.PingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: wire.PingEvery / 2, PermitWithoutStream: true}),
		grpc.ConnectionTimeout(handshake), grpc.MaxConcurrentStreams(1), grpc.MaxRecvMsgSize(maxAgentMessage), grpc.MaxHeaderListSize(maxHeaders),
		// With gRPC's default buffers, a thousand agents would take 64 MB.
		grpc.ReadBufferSize(buffers), grpc.WriteBufferSize(buffers),
	)
	wire.RegisterFleetServer(g, service{s: s})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	go s.judgeForever(ctx)
	limited := newListener(l, func(peer netip.Prefix) {
		s.refusals.record(peer, refused(ReasonCrowded, "there are too many connections on which no agent has joined yet"))
	})
	if err := g.Serve(limited); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve agents: %w", err)
	}
	return nil
}

// service implements the gRPC service.
type service struct {
	wire.UnimplementedFleetServer
	s *Server
}

func (v service) Serve(stream wire.Fleet_ServeServer) error {
	c := connOf(stream.Context())
	err := v.s.serve(stream)
	v.s.refusals.record(c.peer, err)
	// An agent makes a connection for each stream.
	time.AfterFunc(closeAfter, func() { _ = c.Close() })
	return err
}
