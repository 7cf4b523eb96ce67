// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// shares are the references of a frontend with their endpoints. The weight of
// each reference is divided among its endpoints.
type shares struct {
	of       []share
	problems []Problem
	// local is true if this node has an endpoint of some reference.
	local bool
	// served is true if some reference gets new flows.
	served bool
	// behind is true if a group behind the first one serves: invalid references are of the first.
	behind bool
}

// share is one reference with the endpoints that this node may use for it.
type share struct {
	ref       Ref
	endpoints []lb.Backend
	// best are the indices of the endpoints that get new flows, one at a time if they are on trial.
	best []int
	// elsewhere is true if other nodes have endpoints that this node may not
	// use.
	elsewhere bool
	// drained is true if one would get new flows, had nobody drained it by hand, and
	// ejected if all of them are.
	drained, ejected bool
	// standby is true if another group of references serves.
	standby bool
	// Of all endpoints, those that are ready, and of these those that are healthy, or on trial.
	total, ready, healthy, trial int
}

// newShares asks for the health of endpoints first, then which group serves. Health is not asked
// if too few endpoints of the group are healthy, or this node would have none.
func newShares(f *Frontend, key lb.Key, e Endpoints, o ResolveOptions) shares {
	s := collectShares(f, key, e, o, true)
	serving := s.chooseGroup(f, key, o)
	if s.panics(f, serving) || !s.served && s.anyEjected() {
		s = collectShares(f, key, e, o, false)
		s.serveGroup(f, serving)
	}
	return s
}

func collectShares(f *Frontend, key lb.Key, e Endpoints, o ResolveOptions, obey bool) shares {
	var s shares
	for _, ref := range f.Refs {
		service := e[ref.Service]
		s.problems = append(s.problems, service.Problems...)
		one := newShare(ref, service.of(ref.PortName, key), f.LocalOnly && o.isNode(), f.PreserveClient && o.isNode(), o, o.judgement(f, key, obey))
		s.of = append(s.of, one)
	}
	return s
}

// judgement says which endpoints are ejected. Its zero value has none.
type judgement struct {
	set      lb.EjectedSet
	policy   string
	protocol lb.Protocol
	obey     bool
}

func (o ResolveOptions) judgement(f *Frontend, key lb.Key, obey bool) judgement {
	if f.Health == nil || len(o.Ejected) == 0 {
		return judgement{}
	}
	return judgement{o.Ejected, f.Health.Policy, key.Protocol, obey}
}

// of returns why an endpoint is not healthy; nil: it is.
func (j judgement) of(ep *Endpoint) *lb.Ejected {
	if j.set == nil {
		return nil
	}
	e := j.set[lb.EjectedKey{Policy: j.policy, Protocol: j.protocol, Backend: ep.Addr}]
	if e != nil && !j.obey {
		serves := *e
		serves.Panic = true
		return &serves
	}
	return e
}

// bars reports whether the endpoint gets no new flows.
func (j judgement) bars(ep *Endpoint) bool {
	e := j.of(ep)
	return e != nil && !e.Panic && !e.OnTrial()
}

func newShare(ref Ref, found []Endpoint, localOnly, preserveClient bool, o ResolveOptions, health judgement) share {
	s := share{ref: ref, total: len(found), drained: slices.ContainsFunc(found, func(ep Endpoint) bool {
		return ep.State > Draining && o.Drained.Of(ep.Addr) != nil
	})}
	found = o.drain(found)
	for i := range found {
		if found[i].State == Ready {
			s.ready++
			if e := health.of(&found[i]); e == nil {
				s.healthy++
			} else if e.OnTrial() {
				s.trial++
			}
		}
	}
	if localOnly {
		all := found
		found = nil
		for _, ep := range all {
			if o.isLocal(&ep) {
				found = append(found, ep)
			} else {
				s.elsewhere = s.elsewhere || ep.State > Draining
			}
		}
	}
	best := Leaving
	usable := found
	if health.set != nil {
		usable = slices.DeleteFunc(slices.Clone(found), func(ep Endpoint) bool { return health.bars(&ep) })
	}
	for _, ep := range usable {
		best = max(best, ep.State)
	}
	near := func(*Endpoint) bool { return true }
	if best == Ready && !localOnly {
		near = nearness(usable, o)
	}
	for i := range found {
		ep := &found[i]
		local := o.isLocal(ep)
		stack := o.ThroughStack && !local
		b := lb.Backend{
			Addr: ep.Addr, Local: local, NotServing: ep.State == NotServing, Service: ref.Service.String(), ServicePort: ref.Port,
			ThroughStack: stack, Protected: stack,
			Drained: o.Drained.Of(ep.Addr),
		}
		if preserveClient && !local {
			b.Node = ep.Node
		}
		barred := health.bars(ep)
		if ep.State > Draining {
			b.Ejected = health.of(ep)
			s.ejected = s.ejected || barred
		}
		s.endpoints = append(s.endpoints, b)
		if ep.State == best && !barred && near(ep) {
			s.best = append(s.best, i)
		}
	}
	return s
}

// drain returns the endpoints with the readiness that they have for who has drained some
// of them.
func (o ResolveOptions) drain(found []Endpoint) []Endpoint {
	own := false
	for i := range found {
		if o.Drained.Of(found[i].Addr) == nil || found[i].State <= Draining {
			continue
		}
		if !own {
			found, own = slices.Clone(found), true
		}
		found[i].State = Draining
	}
	return found
}

// nearness returns which endpoints are near by their topology hints, applied as
// kube-proxy does: only if every ready endpoint has hints, so that none is
// forgotten, and one is meant for this node or zone. Endpoints that are not
// near keep their flows, as hints come and go.
func nearness(found []Endpoint, o ResolveOptions) func(*Endpoint) bool {
	forNode := func(ep *Endpoint) []string { return ep.Nodes }
	forZone := func(ep *Endpoint) []string { return ep.Zones }
	for _, by := range []struct {
		place string
		hints func(*Endpoint) []string
	}{{o.NodeName, forNode}, {o.Zone, forZone}} {
		all, some := true, false
		for i := range found {
			if found[i].State == Ready {
				hints := by.hints(&found[i])
				all = all && len(hints) > 0
				some = some || slices.Contains(hints, by.place)
			}
		}
		if by.place != "" && all && some {
			return func(ep *Endpoint) bool { return slices.Contains(by.hints(ep), by.place) }
		}
	}
	return func(*Endpoint) bool { return true }
}

// fill sets the backends of the frontend, and returns the problems. The weight
// of a reference without endpoints is refused, as Gateway API requires. But if
// only other nodes have its endpoints, or somebody has drained them by hand, this
// node's connections go to the references that it can serve.
func (s *shares) fill(out *lb.Frontend, loops func(lb.Key) bool) []Problem {
	problems := s.problems
	if s.behind {
		out.Reject = 0
	}
	tried := s.mostTried()
	for _, one := range s.of {
		total := uint64(one.ref.Weight) * lb.WeightUnit
		if one.standby {
			total = min(total, tried)
		}
		if len(one.best) == 0 && !one.standby && (!one.elsewhere || !s.local) && (!(one.drained || one.ejected) || !s.served) {
			out.Reject += total
		}
		for _, i := range one.best {
			one.endpoints[i].Weight = total / uint64(len(one.best))
		}
		for _, b := range one.endpoints {
			key := keyOf(b.Addr, out.Protocol)
			if !loops(key) {
				out.Backends = append(out.Backends, b)
				continue
			}
			out.Reject += b.Weight
			problems = append(problems, loopProblem(one.ref.Service, key))
		}
	}
	return problems
}

// mostTried returns the most weight for a reference that stands by and of which endpoints are on
// trial: no more than that of the group that serves for all of them. A flow that may not be their
// trial looks for another backend in some slots of the ring, and has to find one.
func (s *shares) mostTried() uint64 {
	var serving, tried uint64
	for _, one := range s.of {
		switch {
		case len(one.best) == 0:
		case one.standby:
			tried++
		default:
			serving += uint64(one.ref.Weight) * lb.WeightUnit
		}
	}
	return serving / max(tried, 1)
}
