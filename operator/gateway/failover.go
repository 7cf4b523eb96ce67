// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Failovers remembers which groups of backends serve, from one resolution to the next. A nil one
// remembers nothing: then the first group that is available serves, and takes its flows back at once.
type Failovers struct {
	// Now is the time.
	Now func() time.Time

	mu    sync.Mutex
	of    map[failoverKey]*serving
	round int
}

// failoverKey is a frontend with what it comes from.
type failoverKey struct {
	lb.Key
	gateway, listener, route string
}

// serving is the group of a frontend that serves.
type serving struct {
	priority int
	// better is a group in front of it that is available again, since that time.
	better int
	since  time.Time

	wake  time.Time
	round int
}

// groupShare is how much of a group of backends is available. Those on trial are not.
type groupShare struct{ priority, available, trial, total int }

// reaches reports whether the percentage is available, and at least one.
func (g groupShare) reaches(percent int) bool {
	return g.available > 0 && g.available*100 >= percent*g.total
}

// next returns the group that serves from now on, where was is the last decision; nil: there is none.
func next(p *lb.Failover, groups []groupShare, was *serving, now time.Time) serving {
	at := func(priority int) int {
		return slices.IndexFunc(groups, func(g groupShare) bool { return g.priority == priority })
	}
	first := func(percent int, of []groupShare) int {
		return slices.IndexFunc(of, func(g groupShare) bool { return g.reaches(percent) })
	}
	i := -1
	if was != nil {
		i = at(was.priority)
	}
	if i < 0 || !groups[i].reaches(p.MinAvailable) {
		groups = trusted(groups, i)
		to := first(p.MinAvailable, groups)
		if to < 0 { // none is: as long as one has anything
			to = max(first(0, groups), 0)
			if i >= 0 && groups[i].available > 0 {
				to = i
			}
		}
		return serving{priority: groups[to].priority}
	}
	s := serving{priority: was.priority}
	back := first(max(p.Recover, p.MinAvailable), groups[:i])
	if back < 0 {
		return s
	}
	s.better, s.since = groups[back].priority, now
	if was.better == s.better && !was.since.IsZero() && !was.since.After(now) {
		s.since = was.since
	}
	if now.Sub(s.since) >= p.Hold {
		return serving{priority: s.better}
	}
	s.wake = s.since.Add(p.Hold)
	return s
}

// trusted returns the groups with those on trial as available, of groups behind the one at an
// index. Nobody tries these, so that their trial would never end.
func trusted(groups []groupShare, behind int) []groupShare {
	groups = slices.Clone(groups)
	for i := behind + 1; i < len(groups); i++ {
		groups[i].available += groups[i].trial
	}
	return groups
}

// decide returns the group of the frontend that serves.
func (m *Failovers) decide(f *Frontend, key lb.Key, groups []groupShare) int {
	if m == nil {
		return next(f.Failover, groups, nil, time.Time{}).priority
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.of == nil {
		m.of = map[failoverKey]*serving{}
	}
	k := failoverKey{key, f.Gateway, f.Listener, f.Route}
	s := next(f.Failover, groups, m.of[k], m.Now())
	s.round = m.round
	m.of[k] = &s
	return s.priority
}

// begin and end enclose a resolution of all frontends: what none of them has is forgotten.
func (m *Failovers) begin() {
	if m != nil {
		m.mu.Lock()
		m.round++
		m.mu.Unlock()
	}
}

func (m *Failovers) end() {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, s := range m.of {
		if s.round != m.round {
			delete(m.of, k)
		}
	}
}

// Wake returns when to resolve again although nothing has changed, as a group may be available for long enough
// then; zero: never.
func (m *Failovers) Wake() (at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.of {
		if !s.wake.IsZero() && (at.IsZero() || s.wake.Before(at)) {
			at = s.wake
		}
	}
	return at
}

// groups returns the groups of the shares, in order.
func (s *shares) groups() []groupShare {
	var all []groupShare
	for i := range s.of {
		one := &s.of[i]
		at := slices.IndexFunc(all, func(g groupShare) bool { return g.priority == one.ref.Priority })
		if at < 0 {
			at = len(all)
			all = append(all, groupShare{priority: one.ref.Priority})
		}
		if one.ref.Weight > 0 {
			all[at].available += one.healthy
			all[at].trial += one.trial
			all[at].total += one.total
		}
	}
	slices.SortFunc(all, func(a, b groupShare) int { return cmp.Compare(a.priority, b.priority) })
	return all
}

// chooseGroup returns which group of references serves, and has the others stand by.
func (s *shares) chooseGroup(f *Frontend, key lb.Key, o ResolveOptions) (priority int) {
	if f.Failover != nil && len(s.of) > 0 {
		priority = o.Failovers.decide(f, key, s.groups())
	}
	s.serveGroup(f, priority)
	return priority
}

// serveGroup has the other groups stand by, and finds what is served. Of a group in front of the
// one that serves, those on trial are tried: else nobody would find out that they are well again.
func (s *shares) serveGroup(f *Frontend, priority int) {
	s.behind = f.Failover != nil && priority > 0
	for i := range s.of {
		one := &s.of[i]
		if f.Failover == nil || one.ref.Priority == priority {
			s.local = s.local || len(one.best) > 0
			s.served = s.served || len(one.best) > 0 && one.ref.Weight > 0
			continue
		}
		one.standby = true
		one.best = slices.DeleteFunc(one.best, func(j int) bool {
			b := &one.endpoints[j]
			b.Standby = one.ref.Priority > priority || !b.Ejected.OnTrial()
			return b.Standby
		})
	}
}

// panics reports whether so few endpoints of the group that serves are healthy that health is not asked: they
// could not serve all. Another group that is available is better.
func (s *shares) panics(f *Frontend, priority int) bool {
	if f.Health == nil || f.Health.Panic == 0 {
		return false
	}
	ready, healthy := 0, 0
	for i := range s.of {
		if f.Failover == nil || s.of[i].ref.Priority == priority {
			ready += s.of[i].ready
			healthy += s.of[i].healthy
		}
	}
	if healthy == ready || healthy*100 >= f.Health.Panic*ready {
		return false
	}
	return f.Failover == nil || !slices.ContainsFunc(s.groups(), func(g groupShare) bool {
		return g.priority != priority && g.reaches(f.Failover.MinAvailable)
	})
}

func (s *shares) anyEjected() bool {
	return slices.ContainsFunc(s.of, func(one share) bool { return one.ejected && !one.standby && one.ref.Weight > 0 })
}
