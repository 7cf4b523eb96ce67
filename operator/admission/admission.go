// SPDX-License-Identifier: Apache-2.0

// Package admission refuses mistakes in files, object by object, so that no mistake ends
// what is served. It is pure.
//
// In go the objects of the files and the Memory of the last time; out come the objects to
// serve: those of the files, except that for each mistake which is new, what was good last
// goes on for the objects concerned. Nothing else waits for a mistake to be mended. What
// has no past is served as far as it is valid, so that equal files give the same on every
// start.
//
// An object that is deleted is meant to go, with one exception: a GatewayClass, a Service
// or a config that another object still names goes on, with its endpoints. A Gateway that
// is deleted takes what it serves along, even if routes still name it.
package admission

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// Memory is what the next review has to know of this one.
type Memory struct {
	// good are the objects that are served, by name.
	good map[string]good
	// Incumbents are who holds which address and frontend; nil: nothing is known.
	Incumbents *gateway.Incumbents
}

// good is an object as it is served.
type good struct {
	named
	// at is the file and line that it came from.
	at string
	// known are the keys of mistakes that it has: they are no reason to refuse another
	// version that has them, too.
	known []string
}

// Refusal is a mistake that does not take effect.
type Refusal struct {
	gateway.Mistake
	// Kept are the objects that go on as they were, Dropped the new ones that would hurt
	// others, both with file and line.
	Kept, Dropped []string
}

// Review is the result of Memory.Review.
type Review struct {
	Objects     Objects
	Translation gateway.Translation
	Endpoints   gateway.Endpoints
	// Refusals are the mistakes for which something older goes on, Mistakes those for
	// which nothing does.
	Refusals []Refusal
	Mistakes []gateway.Mistake
	Memory   *Memory

	at func(name string) string
}

// review is one in progress.
type review struct {
	*Memory
	options gateway.Options
	at      func(name string) string
	now     map[string]named
	// useless are the keys of mistakes that nothing cures.
	useless map[string]bool
	out     Review
}

// Review returns what to serve of the objects. at returns file and line of an object of
// the files, by its name. The memory stays as it is.
func (m *Memory) Review(objects Objects, o gateway.Options, at func(name string) string) Review {
	o.Incumbents = m.Incumbents
	r := &review{Memory: m, options: o, at: at, useless: map[string]bool{}}
	for {
		mistakes := r.run(&objects)
		again := false
		for _, m := range mistakes {
			key := m.Key()
			if !r.useless[key] && slices.ContainsFunc(r.out.Refusals, func(r Refusal) bool { return r.Key() == key }) {
				r.useless[key], again = true, true
			}
		}
		if !again {
			return r.finish(mistakes)
		}
	}
}

// run keeps what is good, except for useless mistakes. It returns the mistakes that are
// left.
func (r *review) run(objects *Objects) []gateway.Mistake {
	r.now, r.out = index(objects), Review{}
	mistakes := r.translate()
	// Each round keeps or drops an object for which none before did, so they end.
	for r.keepWhatIsGood(mistakes) {
		mistakes = r.translate()
	}
	return mistakes
}

// finish returns the review, with the mistakes that are left.
func (r *review) finish(mistakes []gateway.Mistake) Review {
	r.out.Mistakes = mistakes
	r.out.Memory = r.remember(mistakes)
	r.out.at = func(name string) string {
		if at := r.at(name); at != "" {
			return at
		}
		return r.out.Memory.good[name].at
	}
	return r.out
}

// translate returns the mistakes of what is to be served by now.
func (r *review) translate() []gateway.Mistake {
	out := &r.out
	out.Objects = collect(r.now)
	out.Translation = gateway.Translate(out.Objects.Objects, r.options)
	out.Endpoints = gateway.IndexEndpoints(out.Objects.EndpointSlices, nil)
	return append(slices.Clone(out.Translation.Mistakes),
		out.Translation.EndpointMistakes(out.Objects.Services, out.Objects.EndpointSlices, out.Endpoints)...)
}

// keepWhatIsGood keeps objects as they were, where that may cure a mistake. It reports
// whether it found any.
func (r *review) keepWhatIsGood(mistakes []gateway.Mistake) bool {
	found := false
	for _, m := range mistakes {
		key := m.Key()
		if r.useless[key] || slices.Contains(r.good[m.Subject].known, key) {
			continue
		}
		remedies := r.remedies(m)
		if remedies == nil {
			continue
		}
		found = true
		refusal := Refusal{Mistake: m}
		for _, g := range remedies {
			if g.drop {
				delete(r.now, g.key)
				refusal.Dropped = append(refusal.Dropped, g.key+located(r.at(g.key)))
				continue
			}
			r.now[g.key] = g.named
			refusal.Kept = append(refusal.Kept, g.name()+located(g.at))
		}
		if i := slices.IndexFunc(r.out.Refusals, func(r Refusal) bool { return r.Key() == key }); i >= 0 {
			r.out.Refusals[i].Kept = append(r.out.Refusals[i].Kept, refusal.Kept...)
			r.out.Refusals[i].Dropped = append(r.out.Refusals[i].Dropped, refusal.Dropped...)
		} else {
			r.out.Refusals = append(r.out.Refusals, refusal)
		}
	}
	return found
}

// remedy is an object that may go on. Its key differs from its name if both versions of
// an EndpointSlice are needed.
type remedy struct {
	good
	key string
	// drop is true if the object has no past and has to go.
	drop bool
}

func located(at string) string {
	if at == "" {
		return ""
	}
	return " (" + at + ")"
}

// remedies returns what may go on to cure a mistake: what is missing, or else the previous
// version of the object itself or, if there is none, of one that may have caused it.
func (r *review) remedies(m gateway.Mistake) []remedy {
	for _, cause := range m.Causes {
		g, was := r.good[cause]
		if _, is := r.now[cause]; is || !was {
			continue
		}
		switch g.kind {
		case "Service":
			return append([]remedy{{good: g, key: cause}}, r.endpoints(g)...)
		case "GatewayClass", "BlixtConfig", "BlixtGatewayConfig":
			return []remedy{{good: g, key: cause}}
		}
	}
	if g, was := r.good[m.Subject]; !was {
		return r.replaced(m)
	} else if r.differs(m.Subject) {
		return []remedy{{good: g, key: m.Subject}}
	}
	for _, cause := range m.Causes {
		g, was := r.good[cause]
		_, is := r.now[cause]
		switch {
		case was && r.differs(cause) && !(m.Reason != gateway.ReasonLoop && r.withdraws(g)):
			return []remedy{{good: g, key: cause}}
		case !was && is && m.Reason == gateway.ReasonLoop: // what has no past must not hurt what has
			return []remedy{{key: cause, drop: true}}
		}
	}
	return r.renamed(m)
}

// differs reports whether there is a version that is not the good one.
func (r *review) differs(name string) bool {
	now, is := r.now[name]
	return is && !equality.Semantic.DeepEqual(now.Object, r.good[name].Object)
}

// endpoints returns the EndpointSlices of a Service that are gone with it.
func (r *review) endpoints(service good) []remedy {
	var all []remedy
	for key, g := range r.good {
		slice, is := g.Object.(*discoveryv1.EndpointSlice)
		if !is || slice.Namespace != service.GetNamespace() || slice.Labels[discoveryv1.LabelServiceName] != service.GetName() {
			continue
		}
		switch now, is := r.now[key]; {
		case !is:
			all = append(all, remedy{good: g, key: key})
		case now.Object.GetLabels()[discoveryv1.LabelServiceName] != service.GetName(): // it has gone to another Service
			all = append(all, remedy{good: g, key: key + " of " + service.GetName()})
		}
	}
	return all
}

// withdraws reports whether a Gateway offers less than its good version, and nothing
// else: whoever loses by that was meant to.
func (r *review) withdraws(g good) bool {
	before, is := g.Object.(*gwv1.Gateway)
	if !is {
		return false
	}
	now := r.now[g.name()].Object.(*gwv1.Gateway)
	return !slices.ContainsFunc(now.Spec.Listeners, func(l gwv1.Listener) bool {
		return !slices.ContainsFunc(before.Spec.Listeners, func(b gwv1.Listener) bool {
			return b.Name == l.Name && b.Port == l.Port && b.Protocol == l.Protocol
		})
	})
}

// replaced returns the objects that are gone and that a new one with a mistake seems to
// replace.
func (r *review) replaced(m gateway.Mistake) []remedy {
	var all []remedy
	if m.Mild {
		return nil
	}
	for key, g := range r.good {
		if _, is := r.now[key]; !is && replaces(r.now[m.Subject], g.named) {
			all = append(all, remedy{good: g, key: key})
		}
	}
	return all
}

// renamed returns the Gateway that a route misses, if another one that is new has taken
// its place, and the route is not attached to that.
func (r *review) renamed(m gateway.Mistake) []remedy {
	for _, cause := range m.Causes {
		g, was := r.good[cause]
		if _, is := r.now[cause]; is || !was || g.kind != "Gateway" {
			continue
		}
		for name, now := range r.now {
			if _, old := r.good[name]; !old && replaces(now, g.named) {
				return []remedy{{good: g, key: cause}}
			}
		}
	}
	return nil
}

// replaces reports whether one object can stand for another: Gateways that have a port in
// common, routes that have a parent in common.
func replaces(now, before named) bool {
	if a, is := now.Object.(*gwv1.Gateway); is {
		b, is := before.Object.(*gwv1.Gateway)
		return is && slices.ContainsFunc(a.Spec.Listeners, func(l gwv1.Listener) bool {
			return slices.ContainsFunc(b.Spec.Listeners, func(o gwv1.Listener) bool { return o.Port == l.Port })
		})
	}
	a, b := parents(now), parents(before)
	return slices.ContainsFunc(a, func(p string) bool { return slices.Contains(b, p) })
}

// parents returns the names of a route's parents.
func parents(n named) []string {
	var spec *gwv1.CommonRouteSpec
	switch route := n.Object.(type) {
	case *gwv1.TCPRoute:
		spec = &route.Spec.CommonRouteSpec
	case *gwv1.UDPRoute:
		spec = &route.Spec.CommonRouteSpec
	default:
		return nil
	}
	var names []string
	for _, ref := range spec.ParentRefs {
		names = append(names, string(ref.Name))
	}
	return names
}

// remember returns the memory for the next review.
func (r *review) remember(mistakes []gateway.Mistake) *Memory {
	m := &Memory{good: make(map[string]good, len(r.now)), Incumbents: &r.out.Translation.Incumbents}
	for key, n := range r.now {
		g := good{named: n, at: r.at(n.name())}
		if g.at == "" {
			g.at = r.good[key].at
		}
		m.good[key] = g
	}
	for _, mistake := range mistakes {
		if g, is := m.good[mistake.Subject]; is {
			g.known = append(g.known, mistake.Key())
			m.good[mistake.Subject] = g
		}
	}
	return m
}

// String returns the mistake in one line, with what goes on instead.
func (r Refusal) String() string {
	text := r.Object + ": " + r.Message + " Refused:"
	if r.Kept != nil {
		text += " what was good last goes on serving: " + phrase.Sample(r.Kept) + "."
	}
	if r.Dropped != nil {
		text += " not used: " + phrase.Sample(r.Dropped) + "."
	}
	return text
}
