// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Cause is why a version differs from the one before.
type Cause struct {
	// Seen is when the first event of it was seen; zero: it is unknown.
	Seen time.Time
	// Changes are those of EndpointSlices.
	Changes []EndpointChange
}

// EndpointChange is the change of an EndpointSlice, for the SLI of network programming
// latency of Kubernetes' SIG Scalability.
type EndpointChange struct {
	// At is when it was asked for: a pod became ready, or a Service was created.
	At time.Time
	V6 bool
}

// Limits of what is remembered.
const (
	// maxChanges is how many changes of a version are measured.
	maxChanges = 100
	// maxSpans is how many gaps there may be among the versions that an agent is
	// expected to confirm.
	maxSpans = 8
	// handoverTime is how long an agent may take to connect again, and still count as the
	// one that was connected when a version was published.
	handoverTime = time.Minute
)

// timing measures how long versions take to reach the nodes. Everything is measured by
// the clock of this replica, and by what it has seen itself since it leads. A version
// counts once for each node: when the agent confirms it that served the node when the
// version was published. What no agent confirms is not measured: its age is
// blixt_fleet_oldest_unconfirmed_seconds. The server's mutex guards it.
type timing struct {
	programming *prometheus.HistogramVec
	propagation prometheus.Histogram

	cause Cause // of the next version
	// versions are the newest of this epoch. The last one is the newest of all.
	versions []timedVersion
	// left has what agents still had to confirm when their streams ended.
	left map[member]handover
}

type timedVersion struct {
	cause     Cause
	published time.Time
}

// span is a range of sequences, both ends included.
type span struct{ first, last uint64 }

type handover struct {
	pod      string
	at       time.Time
	expected []span
}

func newTiming() timing {
	return timing{
		left: map[member]handover{},
		programming: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "blixt_network_programming_duration_seconds",
			Help: "Time from the change of a pod or Service, by the annotation of its EndpointSlice, to a node's acknowledgement: one observation for each changed EndpointSlice and node. Annotations have whole seconds.",
			// Some of those of kubeproxy_network_programming_duration_seconds, so that both can be compared.
			Buckets:                     []float64{.25, .5, 1, 2, 3, 4, 5, 10, 20, 30, 60, 120, 300},
			NativeHistogramBucketFactor: nativeFactor,
		}, []string{"ip_family"}),
		propagation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:                        "blixt_propagation_duration_seconds",
			Help:                        "Time from the first event that a version is made of, as the operator sees it, to a node's acknowledgement: one observation for each version and node.",
			Buckets:                     []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
			NativeHistogramBucketFactor: nativeFactor,
		}),
	}
}

// nativeFactor is the growth of native buckets: an error of 5 % at most.
const nativeFactor = 1.1

// timingMetrics returns the metrics of versions.
func (s *Server) timingMetrics() []prometheus.Collector {
	for _, family := range []string{familyV4, familyV6} {
		s.timing.programming.WithLabelValues(family) // shown from the beginning, as 0
	}
	return []prometheus.Collector{
		s.timing.programming, s.timing.propagation,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blixt_fleet_oldest_unconfirmed_seconds",
			Help: "Age of the oldest version that a connected agent has not confirmed, counted from when it connected if that was later; 0: there is none.",
		}, func() float64 { return s.oldestUnconfirmed().Seconds() }),
	}
}

// The values of the label ip_family, which are kube-proxy's.
const (
	familyV4 = "IPv4"
	familyV6 = "IPv6"
)

// CausedBy says why the next version differs. It is called before Publish or
// PublishEndpoints. If those make no version, the cause is forgotten.
func (s *Server) CausedBy(c Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Changes = c.Changes[:min(len(c.Changes), maxChanges)]
	s.timing.cause = c
}

// forgetVersions forgets what was measured of the last epoch.
func (s *Server) forgetVersions() {
	s.timing.cause, s.timing.versions = Cause{}, nil
	clear(s.timing.left)
	for _, c := range s.sessions {
		c.expected = nil
	}
}

// expectAcks has the agents measured that have the newest version to confirm, if it is
// new. The first version of an epoch changes nothing: it is what a new leader has found.
func (s *Server) expectAcks(before uint64) {
	t, cause := &s.timing, s.timing.cause
	t.cause = Cause{}
	sequence := s.history.version.Sequence
	if sequence == before {
		return
	}
	now := s.o.Clock()
	if cause.Seen.IsZero() {
		cause.Seen = now
	}
	t.versions = append(t.versions, timedVersion{cause, now})
	if len(t.versions) > historyLimit {
		t.versions = append(t.versions[:0:0], t.versions[historyLimit/4:]...)
	}
	if sequence == 1 {
		return
	}
	for _, c := range s.serving() {
		c.expected = appendSequence(c.expected, sequence)
	}
}

// serving returns the session of each node whose agent's maps serve new connections as
// they should.
func (s *Server) serving() map[string]*session {
	nodes := make(map[string]*session, len(s.sessions))
	for m, c := range s.sessions {
		r := s.reports[m]
		if r == nil || r.Version.Sequence == 0 || r.Error != "" || r.HeartbeatLost || s.settings[m.application].Drain[m.node] {
			continue
		}
		// During an upgrade a node may have two. Which of them counts must not change
		// with each version.
		if other := nodes[m.node]; other == nil || m.application < other.application {
			nodes[m.node] = c
		}
	}
	return nodes
}

func appendSequence(all []span, sequence uint64) []span {
	if n := len(all); n > 0 && all[n-1].last+1 == sequence {
		all[n-1].last = sequence
		return all
	}
	all = append(all, span{sequence, sequence})
	return all[max(len(all)-maxSpans, 0):]
}

// measure records what an agent has confirmed, according to its report.
func (s *Server) measure(c *session, r *lb.Report) {
	if r.Version.Epoch != s.history.version.Epoch {
		return
	}
	now, confirmed := s.o.Clock(), r.Version.Sequence
	for len(c.expected) > 0 && c.expected[0].first <= confirmed {
		e := &c.expected[0]
		last := min(e.last, confirmed)
		if r.Error == "" { // else the maps do not hold all of it
			s.observe(now, e.first, last)
		}
		if e.first = last + 1; e.first > e.last {
			c.expected = c.expected[1:]
		}
	}
}

// observe records that an agent has confirmed versions now.
func (s *Server) observe(now time.Time, first, last uint64) {
	t := &s.timing
	oldest := s.history.version.Sequence - uint64(len(t.versions)) + 1
	for n := max(first, oldest); n <= last; n++ {
		cause := &t.versions[n-oldest].cause
		t.propagation.Observe(seconds(now.Sub(cause.Seen)))
		for _, change := range cause.Changes {
			family := familyV4
			if change.V6 {
				family = familyV6
			}
			t.programming.WithLabelValues(family).Observe(seconds(now.Sub(change.At)))
		}
	}
}

// seconds of a duration that is not negative: a clock may be set back, and a negative
// observation would take away from the sum.
func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }

// handOver keeps what an agent still has to confirm, for its next stream.
func (s *Server) handOver(c *session) {
	now := s.o.Clock()
	for m, h := range s.timing.left {
		if now.Sub(h.at) > handoverTime {
			delete(s.timing.left, m)
		}
	}
	if len(c.expected) > 0 {
		s.timing.left[c.member] = handover{c.pod, now, c.expected}
		c.expected = nil
	}
}

// takeOver gives a session what its agent still had to confirm when its last stream
// ended, or is about to.
func (s *Server) takeOver(c *session) {
	if old := s.sessions[c.member]; old != nil {
		s.handOver(old)
	}
	h, ok := s.timing.left[c.member]
	delete(s.timing.left, c.member)
	if ok && h.pod == c.pod && s.o.Clock().Sub(h.at) <= handoverTime {
		c.expected = h.expected
	}
}

// oldestUnconfirmed returns the age of the oldest version that a connected agent has not
// confirmed.
func (s *Server) oldestUnconfirmed() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var age time.Duration
	now, newest := s.o.Clock(), s.history.version
	oldest := newest.Sequence - uint64(len(s.timing.versions)) + 1
	for m := range s.sessions {
		r := s.reports[m]
		next := oldest
		if r != nil && r.Version.Epoch == newest.Epoch {
			next = max(next, r.Version.Sequence+1)
		}
		if r == nil || next > newest.Sequence {
			continue
		}
		since := s.timing.versions[next-oldest].published
		if r.ConnectedAt.After(since) {
			since = r.ConnectedAt
		}
		age = max(age, now.Sub(since))
	}
	return age
}
