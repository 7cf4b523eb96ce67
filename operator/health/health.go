// SPDX-License-Identifier: Apache-2.0

// Package health decides which backends are healthy: from how their flows begin on nodes,
// and from what checkers find, to what is ejected. It is pure: it does no I/O and has no
// clock. Whoever uses it tells it the time.
package health

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

const (
	// What a node has reported counts for so long. Then the node is taken for gone.
	freshness = 10 * time.Second
	// A trial flow of UDP that nobody has refused for so long was good: there may be no answer.
	silentTrial = 5 * time.Second
)

// Group is the backends of a frontend whose health is asked for. Those that are not ready
// are not among them: readiness comes first.
type Group struct {
	// Name is for people.
	Name string
	// Gateway is that of the frontend.
	Gateway  string
	Protocol lb.Protocol
	Health   *lb.Health
	Members  []netip.AddrPort
}

// Groups returns the groups of frontends.
func Groups(frontends []lb.Frontend) []Group {
	var all []Group
	for i := range frontends {
		f := &frontends[i]
		if f.Health == nil || (f.Health.Passive == nil && f.Health.Active == nil) {
			continue
		}
		g := Group{Name: f.Key().String(), Gateway: f.Gateway, Protocol: f.Protocol, Health: f.Health}
		for _, b := range f.Backends {
			if b.Weight > 0 || b.Standby || b.Ejected != nil {
				g.Members = append(g.Members, b.Addr)
			}
		}
		if len(g.Members) > 0 {
			all = append(all, g)
		}
	}
	return all
}

func (g *Group) key(m netip.AddrPort) lb.EjectedKey {
	return lb.EjectedKey{Policy: g.Health.Policy, Protocol: g.Protocol, Backend: m}
}

// Observation is how flows of a backend have begun on one node, as counted since some time in the past.
type Observation struct {
	Key lb.EjectedKey
	// Consecutive is how many flows have failed since the last answer; Others is true if they are of
	// clients of more than one prefix.
	Consecutive uint32
	Others      bool
	// Failures, Answers and Unanswered only grow: Unanswered are those Failures that were
	// not refused.
	Failures, Answers, Unanswered uint32
	// Trial is another number whenever the backend has got a flow on trial.
	Trial uint32
}

// Result is what a checker thinks of a backend.
type Result struct {
	Key lb.EjectedKey
	// Down is true after as many failed checks in a row as were asked for.
	Down bool
	// Why is for people: what the last failed check has found.
	Why string
}

// Decision is what to do.
type Decision struct {
	Ejected lb.EjectedSet
	// Suspects are checks that are not obeyed, as they fail for all backends of a group at once. They
	// are in order.
	Suspects []lb.HealthNotice
	// Panics are what Panics returns for the state that follows from Ejected. A Judge does not know the
	// state, and leaves them out.
	Panics []lb.HealthNotice
}

// Judge keeps what it needs to decide. The zero value judges nobody.
type Judge struct {
	groups  []Group
	members map[lb.EjectedKey]*member
	nodes   map[string]time.Time // the last report of each
	// causes are why the checks of Suspects fail, by the group's name and policy.
	causes map[[2]string]cause
}

// member is a backend that is judged.
type member struct {
	passive *lb.PassiveHealth // nil: it is not asked
	active  bool
	views   map[string]*view // by node

	// Of the passive ejection.
	ejected    *lb.Ejected
	length     time.Duration // of the ejection
	again      int           // how many times it was ejected in a row
	readmitted time.Time
	reason     string    // of the first of these ejections
	failing    time.Time // since when nodes see it fail; zero: they do not

	down  *lb.Ejected // by active checks
	cause cause       // of down
}

// Judge sets what is judged. What is known of backends that stay is kept.
func (j *Judge) Judge(groups []Group) {
	j.groups = groups
	old := j.members
	j.members = map[lb.EjectedKey]*member{}
	for i := range groups {
		for _, addr := range groups[i].Members {
			key := groups[i].key(addr)
			m := j.members[key]
			if m == nil {
				if m = old[key]; m == nil {
					m = &member{views: map[string]*view{}}
				}
				j.members[key] = m
			}
			m.passive, m.active = groups[i].Health.Passive, groups[i].Health.Active != nil
			if m.passive == nil {
				m.ejected = nil
			}
			if !m.active {
				m.down = nil
			}
		}
	}
}

// Observe takes all that a node has counted. Backends that are not judged are ignored.
func (j *Judge) Observe(node string, all []Observation, now time.Time) {
	j.heard(node, now)
	for _, o := range all {
		if m := j.members[o.Key]; m != nil {
			m.view(node).observe(o, m.window(), now)
		}
	}
}

// Check takes all that the checker of a node has found.
func (j *Judge) Check(node string, all []Result, now time.Time) {
	j.heard(node, now)
	for _, m := range j.members {
		if v := m.views[node]; v != nil {
			v.result = nil
		}
	}
	for _, r := range all {
		if m := j.members[r.Key]; m != nil && m.active {
			m.view(node).result = &r
		}
	}
}

// Forget forgets what a node has reported.
func (j *Judge) Forget(node string) {
	delete(j.nodes, node)
	for _, m := range j.members {
		delete(m.views, node)
	}
}

func (j *Judge) heard(node string, now time.Time) {
	if j.nodes == nil {
		j.nodes = map[string]time.Time{}
	}
	j.nodes[node] = now
}

// Adopt takes over what another judge has decided, for backends about which this one does not know
// anything yet, within the bounds of what may be ejected and for how long.
func (j *Judge) Adopt(set lb.EjectedSet) {
	for key, e := range set {
		m := j.members[key]
		switch {
		case m == nil || m.ejected != nil || m.down != nil || !m.readmitted.IsZero():
		case e.Until.IsZero() && m.active:
			m.down = e
		case !e.Until.IsZero() && m.passive != nil && e.Until.Sub(e.Since) <= m.passive.MaxEjection && j.canEject(m):
			m.ejected, m.length, m.reason = e, e.Until.Sub(e.Since), e.Why
		}
	}
}

// Decide returns what is ejected now. Entries that do not change keep their pointer.
func (j *Judge) Decide(now time.Time) Decision {
	j.expire(now)
	d := Decision{Suspects: j.decideActive(now)}
	j.endTrials(now)
	j.decidePassive(now)
	d.Ejected = lb.EjectedSet{}
	for key, m := range j.members {
		if e := cmp.Or(m.down, m.ejected); e != nil {
			d.Ejected[key] = e
		}
	}
	return d
}

// expire forgets nodes that have not reported for a while. A report from the future was taken before the clock was set back.
func (j *Judge) expire(now time.Time) {
	for node, at := range j.nodes {
		if age := now.Sub(at); age > freshness || age < -freshness {
			j.Forget(node)
		}
	}
}

// sorted returns the group's members in the order in which they are ejected: who has failed first.
func (j *Judge) sorted(g *Group) []*member {
	all := make([]*member, 0, len(g.Members))
	for _, addr := range slices.SortedFunc(slices.Values(g.Members), netip.AddrPort.Compare) {
		all = append(all, j.members[g.key(addr)])
	}
	slices.SortStableFunc(all, func(a, b *member) int { return a.failing.Compare(b.failing) })
	return all
}
