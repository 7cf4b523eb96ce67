// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

const (
	// judgeEvery is how often backends are judged.
	judgeEvery = time.Second
	// judgeAfter is how long a new leader listens before agents hear from it: until then they go on with what
	// the previous one has ejected.
	judgeAfter = 5 * time.Second
)

// judging decides which backends are healthy, for all nodes: so their rings stay equal.
type judging struct {
	mu    sync.Mutex // of judge; never locked while Server.mu is
	judge health.Judge

	// Guarded by Server.mu.
	judged   lb.Version // for which the groups are
	decision health.Decision
	checkers []string
	since    time.Time // when the server began to lead
	total    int       // how many times backends were ejected
	sequence uint64    // of the message; 0: there is none yet
	// kept is what nodes eject as the previous leader said, until there is a message.
	kept    map[string]lb.EjectedSet
	message *wire.Ejected
}

// Health returns what is ejected now, and where health is not obeyed.
func (s *Server) Health() health.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.judging.decision
}

// healthMetrics returns the metrics of the health of backends.
func (s *Server) healthMetrics() []prometheus.Collector {
	locked := func(value func() int) func() float64 {
		return func() float64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return float64(value())
		}
	}
	return []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blixt_backends_ejected", Help: "Backends that are ejected, as they are not healthy, or on trial.",
		}, locked(func() int { return len(s.judging.decision.Ejected) })),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blixt_ejections_total", Help: "How many times backends were ejected.",
		}, locked(func() int { return s.judging.total })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blixt_health_checks_suspected", Help: "Groups of backends of which all fail their check at once, so that it is not obeyed.",
		}, locked(func() int { return len(s.judging.decision.Suspects) })),
	}
}

// receiveHealth takes what a node knows of backends.
func (s *Server) receiveHealth(c *session, m *wire.Health) {
	if !c.policies {
		return
	}
	if len(m.Ejected) > 0 {
		s.keep(c.node, wire.DecodeKept(m.Ejected))
		return
	}
	flows, results := wire.DecodeHealth(m)
	now := s.o.Clock()
	c.results = append(c.results, results...)
	c.results = c.results[:min(len(c.results), wire.MaxJudged)]
	s.judging.mu.Lock()
	defer s.judging.mu.Unlock()
	node := c.application + "/" + c.node
	s.judging.judge.Observe(node, flows, now)
	if !m.More {
		s.judging.judge.Check(node, c.results, now)
		c.results = nil
	}
}

// keep remembers what a node ejects, while this leader listens.
func (s *Server) keep(node string, set lb.EjectedSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	j := &s.judging
	if j.sequence > 0 {
		return
	}
	if j.kept == nil {
		j.kept = map[string]lb.EjectedSet{}
	}
	if j.kept[node] == nil {
		j.kept[node] = lb.EjectedSet{}
	}
	for key, e := range set {
		if len(j.kept[node]) < wire.MaxJudged {
			j.kept[node][key] = e
		}
	}
}

// agreed returns what most of so many nodes have kept alike: one alone may say what it likes.
func agreed(kept map[string]lb.EjectedSet, nodes int) lb.EjectedSet {
	type entry struct {
		key lb.EjectedKey
		e   lb.Ejected
	}
	votes, set := map[entry]int{}, lb.EjectedSet{}
	for _, one := range kept {
		for key, e := range one {
			v := entry{key, *e}
			if votes[v]++; votes[v] > nodes/2 {
				set[key] = e
			}
		}
	}
	return set
}

// judgeForever judges backends until ctx ends.
func (s *Server) judgeForever(ctx context.Context) {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.judgeBackends(s.o.Clock())
		}
	}
}

// judgeBackends decides, and tells the agents.
func (s *Server) judgeBackends(now time.Time) {
	j := &s.judging
	s.mu.Lock()
	leading, version, state := s.leading, s.history.version, s.history.state
	ejected, panics := j.decision.Ejected, j.decision.Panics
	changed := j.judged != version
	j.judged = version
	var nodes []string
	for _, c := range s.sessions {
		if c.policies && !slices.Contains(nodes, c.node) {
			nodes = append(nodes, c.node)
		}
	}
	listened := now.Sub(j.since) >= judgeAfter || now.Before(j.since)
	var kept lb.EjectedSet
	if leading && version.Sequence > 0 && j.sequence == 0 && listened {
		kept, j.kept = agreed(j.kept, len(nodes)), nil
	}
	s.mu.Unlock()
	if !leading || version.Sequence == 0 {
		return
	}
	j.mu.Lock()
	if changed {
		j.judge.Judge(health.Groups(judgedFrontends(state, ejected)))
	}
	j.judge.Adopt(kept)
	d := j.judge.Decide(now)
	j.mu.Unlock()
	switch d.Panics = panics; {
	case len(d.Ejected) == 0:
		d.Panics = nil
	case changed || !maps.Equal(ejected, d.Ejected):
		d.Panics = health.Panics(judgedFrontends(state, d.Ejected))
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	was := j.decision
	j.decision = d
	s.logHealth(was, d)
	if !slices.Equal(was.Suspects, d.Suspects) || !slices.Equal(was.Panics, d.Panics) {
		s.notify()
	}
	checkers := wire.Checkers(nodes)
	if j.sequence > 0 && maps.Equal(was.Ejected, d.Ejected) && slices.Equal(j.checkers, checkers) {
		return
	}
	if j.sequence == 0 && !listened {
		return
	}
	j.checkers = checkers
	j.sequence++
	j.message = wire.EncodeEjected(d.Ejected, checkers)
	s.wake(func(c *session) bool { return c.policies })
}

// nextEjected returns what is ejected, if the agent does not know; nil: it does.
func (s *Server) nextEjected(c *session) *wire.Ejected {
	if !c.policies || c.ejected == s.judging.sequence {
		return nil
	}
	c.ejected = s.judging.sequence
	return s.judging.message
}

// logHealth says what has changed.
func (s *Server) logHealth(was, now health.Decision) {
	for key, e := range now.Ejected {
		before := was.Ejected[key]
		switch {
		case before == nil || before.Since != e.Since:
			s.judging.total++
			s.o.Log.Warn("backend is ejected", "backend", key.Backend, "protocol", key.Protocol, "policy", key.Policy, "why", e.Why)
		case e.Trial && !before.Trial:
			s.o.Log.Info("backend on trial: it gets one flow at a time", "backend", key.Backend, "protocol", key.Protocol, "policy", key.Policy)
		}
	}
	for key := range was.Ejected {
		if now.Ejected[key] == nil {
			s.o.Log.Info("backend is not ejected any more", "backend", key.Backend, "protocol", key.Protocol, "policy", key.Policy)
		}
	}
	s.logNotices("health check is suspected", was.Suspects, now.Suspects)
	s.logNotices("health of backends is not asked", was.Panics, now.Panics)
}

func (s *Server) logNotices(message string, was, now []lb.HealthNotice) {
	for _, n := range now {
		if !slices.ContainsFunc(was, func(o lb.HealthNotice) bool { return o.Policy == n.Policy && o.Group == n.Group }) {
			s.o.Log.Warn(message, "policy", n.Policy, "why", n.Why)
		}
	}
}

// judgedFrontends returns the frontends whose health is asked for, with their endpoints.
func judgedFrontends(state *indexedSnapshot, ejected lb.EjectedSet) []lb.Frontend {
	var u gateway.Unresolved
	endpoints := gateway.Endpoints{}
	for _, f := range state.frontends {
		if f.Health == nil {
			continue
		}
		u.Frontends = append(u.Frontends, f)
		for _, ref := range f.Refs {
			if ports, ok := state.services.get(ref.Service); ok {
				endpoints[ref.Service] = gateway.ServiceEndpoints{Ports: ports}
			}
		}
	}
	slices.SortFunc(u.Frontends, func(a, b gateway.Frontend) int { return cmp.Or(a.Key.Compare(b.Key)) })
	return gateway.Resolve(&u, endpoints, gateway.ResolveOptions{Ejected: ejected}).State.Frontends
}
