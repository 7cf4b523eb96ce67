// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// effective is what all policies on the way to a listener's route make of it.
type effective struct {
	lb.Settings // Ports is nil: it depends on the address
	// idle is that of the policies; 0: none says so.
	idle time.Duration
	// by are the policies with the last word.
	by [units]*policyTarget
	// restricting are where Restrictions come from.
	restricting []*policyTarget
	// ports are served at inRange alone.
	ports   *lb.Ports
	portsBy *policyTarget
	inRange map[netip.Addr]bool
}

// apply merges the policies of every listener.
func (p *policies) apply(gateways []*gateway, routes []*route) {
	if p == nil {
		return
	}
	for _, r := range routes {
		r.applyFailover()
	}
	for _, level := range p.levels {
		level.settleTies()
	}
	for _, g := range gateways {
		for _, l := range g.all() {
			if levels := l.levels(); len(levels) > 0 {
				l.effective = p.merge(l, levels)
			}
		}
	}
	p.claimRanges(gateways)
	p.compareBackends(gateways)
}

// merge returns what policies make of a listener.
func (p *policies) merge(l *listener, levels []*policyLevel) *effective {
	e := &effective{}
	frontends := 0
	if l.gateway.isServed() {
		frontends = len(l.keys)
	}
	for _, level := range levels {
		for _, t := range level.targets {
			t.frontends += frontends
			t.ancestor(l.gateway).frontends += frontends
		}
	}
	p.restrict(e, l, levels)
	for u := range units {
		e.by[u] = choose(u, levels, l)
	}
	p.settle(e, l)
	if len(l.attached) > 0 {
		e.Failover = l.attached[0].failover
	}
	return e
}

// choose returns the policy with the last word about a unit, or nil: that of the least specific
// target with strategy Overrides or, without one, that of the most specific target. The others
// learn whose word holds.
func choose(u unit, levels []*policyLevel, l *listener) *policyTarget {
	if !u.concerns(l.protocol) {
		return nil
	}
	var winner *policyTarget
	for _, level := range levels {
		if t := level.best[u]; t != nil && (winner == nil || !winner.policy.overrides) {
			winner = t
		}
	}
	if winner == nil {
		return nil
	}
	winner.ancestor(l.gateway).won[u] = true
	for _, level := range levels {
		if t := level.best[u]; t != nil && t != winner {
			t.ancestor(l.gateway).lose(u, winner)
		}
	}
	return winner
}

// settleTies has the policies that do not have the last word about their own target know.
func (l *policyLevel) settleTies() {
	for _, t := range l.targets {
		if t.policy.dryRun {
			continue
		}
		for u, has := range t.policy.has {
			if winner := l.best[u]; has && winner != t {
				for _, g := range t.gateways {
					t.ancestor(g).lose(unit(u), winner)
				}
			}
		}
		for _, g := range t.gateways {
			a := t.ancestor(g)
			a.loseOwn("failover", t.policy.failover != nil, l.failover, t)
			a.loseOwn("ports", t.policy.ports != nil, l.ports, t)
		}
	}
	for i, t := range l.restricting {
		if i >= lb.MaxRestrictions {
			t.leaveOut(t.name(), l.restricting[:lb.MaxRestrictions])
		}
	}
}

// leaveOut says that a restriction does not hold.
func (t *policyTarget) leaveOut(where string, instead []*policyTarget) {
	if t.fault != nil {
		return
	}
	var names []string
	for _, o := range instead {
		names = append(names, o.policy.name())
	}
	t.fault = faultf(gwv1.PolicyReasonInvalid, "%s is restricted by more than %d policies, which is the most: its sources and limits are left out, those of %s hold.", where, lb.MaxRestrictions, phrase.Sample(names))
	if t.closes() {
		t.fault.message += " It gets no new connections, as its sources cannot be enforced: delete one of the policies, or have one policy say it all."
	}
}

// closes reports whether nobody may connect if the policy cannot be enforced.
func (t *policyTarget) closes() bool { return t.restriction.Sources && !t.policy.dryRun }

// restrict sets the restrictions, the least specific first. If there are too many, those of the
// most specific targets give way, the youngest first, and before them what refuses nothing:
// otherwise the owner of a route could get rid of the restrictions of its Gateway.
func (p *policies) restrict(e *effective, l *listener, levels []*policyLevel) {
	var all []*policyTarget
	for _, level := range levels {
		for i, t := range level.restricting {
			switch {
			case t.policy.refused != "":
				e.Refused = cmp.Or(e.Refused, t.policy.refused)
			case i >= lb.MaxRestrictions:
				if t.closes() {
					e.Refused = cmp.Or(e.Refused, t.fault.message)
				}
			default:
				all = append(all, t)
			}
		}
	}
	for len(all) > lb.MaxRestrictions {
		i := len(all) - 1
		for j := range all {
			if all[j].policy.dryRun {
				i = j
			}
		}
		left := all[i]
		all = slices.Delete(all, i, i+1)
		left.leaveOut(l.name(), all)
		if left.closes() {
			e.Refused = cmp.Or(e.Refused, left.fault.message)
		}
	}
	for i, t := range all {
		r := t.restriction
		if slices.ContainsFunc(all[:i], func(o *policyTarget) bool { return o.policy == t.policy }) {
			r.Sources, r.ResetSources = false, false // once is enough
		}
		a := t.ancestor(l.gateway)
		a.restricts = true
		a.noteOthers(t, all[:i], l)
		if r.Sources {
			p.sources[r.Policy] = t.policy.sources
		}
		if r.Sources || r.Limits != nil {
			e.Restrictions = append(e.Restrictions, r)
			e.restricting = append(e.restricting, t)
		}
	}
}

// settle sets what the policies with the last word say.
func (p *policies) settle(e *effective, l *listener) {
	if t := e.by[unitAffinity]; t != nil && t.policy.affinity.Bits4 > 0 && len(l.attached) > 0 {
		e.Affinity = p.affinity(t, l)
	}
	for _, u := range []unit{unitTCPIdle, unitUDPIdle} {
		if t := e.by[u]; t != nil {
			e.idle = t.policy.tcp
			if u == unitUDPIdle {
				e.idle = t.policy.udp
			}
		}
	}
	if t := e.by[unitMaxAge]; t != nil {
		e.MaxAge = t.policy.maxAge
	}
	e.Health = p.health(e.by[unitPassive], e.by[unitActive], e.by[unitPanic])
	if t := e.by[unitNoBackend]; t != nil {
		e.DropNoBackend = t.policy.drop
	}
	if t := e.by[unitChallenge]; t != nil {
		e.Challenge = t.policy.challenge
	}
}

// affinity returns that of the group of frontends that lead to the same Services.
func (p *policies) affinity(t *policyTarget, l *listener) *lb.Affinity {
	h := fnv.New64a()
	for _, s := range l.attached[0].services() {
		fmt.Fprintln(h, s.name)
	}
	group := fmt.Sprintf("%s %s %x", t.policy.name(), l.gateway.key(), h.Sum64())
	if p.affinities[group] == nil {
		a := t.policy.affinity
		a.Group = group
		p.affinities[group] = &a
	}
	return p.affinities[group]
}

// defaultPanic is the percentage of healthy backends below which health is not asked, where no
// policy says another one.
const defaultPanic = 50

// health returns what each of the units says, under a name for all that have the same.
func (p *policies) health(of ...*policyTarget) *lb.Health {
	var key [3]*readPolicy
	var names []string
	out := lb.Health{Panic: defaultPanic}
	for i, t := range of {
		if t == nil {
			continue
		}
		key[i] = t.policy.readPolicy
		if !slices.Contains(names, t.policy.name()) {
			names = append(names, t.policy.name())
		}
		switch i {
		case 0:
			out.Passive = t.policy.passive
		case 1:
			out.Active = t.policy.active
		case 2:
			out.Panic = t.policy.panic
		}
	}
	if out.Passive == nil && out.Active == nil {
		return nil
	}
	if p.healths[key] == nil {
		out.Policy = strings.Join(names, "+")
		p.healths[key] = &out
	}
	return p.healths[key]
}

// settings returns those of a frontend of the listener.
func (e *effective) settings(key lb.Key, port gwv1.PortNumber) lb.Settings {
	s := e.Settings
	if e.ports != nil && int32(key.Port) == port && e.inRange[key.Addr] {
		s.Ports = e.ports
	}
	return s
}

// usedSources returns the lists that restrictions name.
func (p *policies) usedSources() []lb.SourceSet {
	if p == nil || len(p.sources) == 0 {
		return nil
	}
	all := make([]lb.SourceSet, 0, len(p.sources))
	for _, s := range p.sources {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b lb.SourceSet) int { return cmp.Compare(a.Policy, b.Policy) })
	return all
}

// overlap reports whether two sorted lists have an address in common.
func overlap(a, b []netip.Prefix) bool {
	for len(a) > 0 && len(b) > 0 {
		switch x, y := a[0], b[0]; {
		case x.Overlaps(y):
			return true
		case x.Compare(y) < 0: // it ends before y begins
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}
