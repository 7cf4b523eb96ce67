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
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"

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

	// At returns file and line of an object, also of one that goes on without its file: of
	// the field that has the value, if there is one.
	At func(name, value string) string

	// options are those of the translation. plain is true if it is that of the files'
	// objects, and no mistake is about endpoints: see WithEndpoints.
	options gateway.Options
	plain   bool
}

// review is one in progress.
type review struct {
	*Memory
	options gateway.Options
	at      func(name, value string) string
	// files are the objects of the files, now those to serve.
	files, now map[string]named
	attempts   []*attempt
	standIns   []standIn
	out        Review
}

// attempt is a mistake with what may cure it.
type attempt struct {
	gateway.Mistake
	cures []cure
	// tried is how many of the cures have not helped.
	tried int
}

// cure is one set of changes that may cure a mistake.
type cure struct {
	keep []kept
	// drop are new objects that would hurt what serves.
	drop []string
	// replacements are new objects that stand for one that is kept. They have no past
	// until they do.
	replacements []string
	// last is true if nothing else is to be tried, as the mistake is in a replacement.
	last bool
}

// kept is an object that goes on. Its key differs from its name if both versions of an
// EndpointSlice are needed.
type kept struct {
	good
	key string
}

// maxRounds is far above how many rounds mistakes need that refer to each other.
const maxRounds = 64

// Review returns what to serve of the objects. at returns file and line of an object of
// the files, by its name, and of the field that has a value. The memory stays as it is.
func (m *Memory) Review(objects Objects, o gateway.Options, at func(name, value string) string) Review {
	o.Incumbents = m.Incumbents
	r := newReview(m, objects, o, at)
	var mistakes []gateway.Mistake
	for range maxRounds {
		r.apply()
		mistakes = r.translate()
		if !r.judge(mistakes) {
			break
		}
	}
	return r.finish(mistakes)
}

func newReview(m *Memory, objects Objects, o gateway.Options, at func(name, value string) string) *review {
	r := &review{Memory: m, options: o, files: index(&objects)}
	r.closeDoors(objects.LeftOut)
	r.at = r.locateStandIns(at)
	return r
}

// apply changes the objects of the files as the attempts have it.
func (r *review) apply() {
	r.now = maps.Clone(r.files)
	for _, a := range r.attempts {
		for _, k := range a.cure().keep {
			r.now[k.key] = k.named
		}
		for _, name := range a.cure().drop {
			delete(r.now, name)
		}
	}
}

// cure returns the one that is tried; the zero value: there is none any more.
func (a *attempt) cure() cure {
	if a.tried == len(a.cures) {
		return cure{}
	}
	return a.cures[a.tried]
}

// judge adds an attempt for each mistake that is new, and has others go on to the next
// cure if the mistake is still there. It reports whether anything is to be tried.
func (r *review) judge(mistakes []gateway.Mistake) bool {
	byKey := map[string]*attempt{}
	for _, a := range r.attempts {
		byKey[a.Key()] = a
	}
	again := false
	for _, m := range mistakes {
		key := m.Key()
		switch a := byKey[key]; {
		case slices.Contains(r.good[m.Subject].known, key):
		case a == nil:
			a = &attempt{Mistake: m, cures: r.cures(m)}
			byKey[key], r.attempts = a, append(r.attempts, a)
			again = again || len(a.cures) > 0
		case a.tried < len(a.cures) && !a.cure().last:
			a.tried++
			again = true
		}
	}
	return again
}

// Explain returns what BlixtPolicies make of each listener, with who says so.
func (r *Review) Explain() []gateway.Explained { return gateway.Explain(r.Objects.Objects, r.options) }

// finish returns the review, with the mistakes that are left.
func (r *review) finish(mistakes []gateway.Mistake) Review {
	var refused map[string]bool
	for _, a := range r.attempts {
		c := a.cure()
		if c.keep == nil && c.drop == nil {
			continue
		}
		refusal := Refusal{Mistake: a.Mistake}
		for _, k := range c.keep {
			refusal.Kept = append(refusal.Kept, k.name()+located(k.at))
		}
		for _, name := range c.drop {
			refusal.Dropped = append(refusal.Dropped, name+located(r.at(name, "")))
		}
		if refused == nil {
			refused = map[string]bool{}
		}
		refused[a.Key()] = true
		r.out.Refusals = append(r.out.Refusals, refusal)
	}
	r.out.plain = r.out.plain && refused == nil
	r.out.Memory = r.remember(mistakes)
	r.out.Mistakes = slices.DeleteFunc(mistakes, func(m gateway.Mistake) bool { return refused[m.Key()] })
	for i := range r.standIns {
		r.out.Mistakes = append(r.out.Mistakes, r.standIns[i].mistake())
	}
	r.out.At = r.out.Memory.locate(r.at)
	return r.out
}

// locate returns a function that finds also what goes on without its file.
func (m *Memory) locate(at func(name, value string) string) func(name, value string) string {
	return func(name, value string) string { return cmp.Or(at(name, value), m.good[name].at) }
}

func located(at string) string {
	if at == "" {
		return ""
	}
	return " (" + at + ")"
}

// translate returns the mistakes of what is to be served by now.
func (r *review) translate() []gateway.Mistake {
	out := &r.out
	out.Objects = collect(r.now)
	var indexed sync.WaitGroup
	indexed.Go(func() { out.Endpoints = gateway.IndexEndpoints(out.Objects.EndpointSlices, nil) })
	out.Translation = gateway.Translate(out.Objects.Objects, r.options)
	indexed.Wait()
	ofEndpoints := out.endpointMistakes()
	out.options, out.plain = r.options, len(ofEndpoints) == 0
	return append(slices.Clone(out.Translation.Mistakes), ofEndpoints...)
}

func (r *Review) endpointMistakes() []gateway.Mistake {
	return r.Translation.EndpointMistakes(r.Objects.Services, r.Objects.EndpointSlices, r.Endpoints)
}

// cures returns what may cure a mistake, what changes least first.
func (r *review) cures(m gateway.Mistake) []cure {
	own, was := r.good[m.Subject]
	if !was && m.Reason != gateway.ReasonNoEndpointPort { // a new Service may be an old route's
		return r.replaced(m)
	}
	var missing, causes []kept
	for _, cause := range m.Causes {
		g, was := r.good[cause]
		_, is := r.files[cause]
		switch {
		case was && !is && !own.mentions(g): // it was nothing to this one
		case was && !is && g.kind == "Service":
			missing = append(append(missing, kept{g, cause}), r.endpoints(g)...)
		case was && !is && slices.Contains([]string{"GatewayClass", "BlixtConfig", "BlixtGatewayConfig"}, g.kind):
			missing = append(missing, kept{g, cause})
		case was && is && (m.Reason == gateway.ReasonLoop || !r.withdraws(g)):
			causes = append(causes, r.versions(cause)...)
		}
	}
	var all []cure
	if missing != nil {
		all = append(all, cure{keep: missing})
	}
	for _, k := range causes {
		all = append(all, cure{keep: []kept{k}})
	}
	for _, k := range r.versions(m.Subject) {
		all = append(all, cure{keep: []kept{k}})
		causes = append(causes, k)
	}
	if everything := append(missing, causes...); len(everything) > 1 {
		all = append(all, cure{keep: everything})
	}
	all = append(all, r.renamed(m)...)
	if m.Reason == gateway.ReasonLoop {
		all = append(all, cure{drop: r.withoutPast(m.Causes)})
	}
	return all
}

// withoutPast returns those of the objects that are new.
func (r *review) withoutPast(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, was := r.good[name]
		_, is := r.files[name]
		return was || !is
	})
}

// mentions reports whether the object may refer to the other one.
func (n named) mentions(other good) bool {
	text, err := json.Marshal(n.Object)
	return err != nil || bytes.Contains(text, []byte(`"`+other.GetName()+`"`))
}

// versions returns the good versions of an object that differ from the present one. An
// EndpointSlice has several after its Service was kept while it went to another one.
func (r *review) versions(name string) []kept {
	now, is := r.files[name]
	if !is {
		return nil
	}
	var all []kept
	for _, key := range r.keysOf(name) {
		if g := r.good[key]; !equality.Semantic.DeepEqual(now.Object, g.Object) {
			all = append(all, kept{g, name})
		}
	}
	return all
}

// keysOf returns the keys of the good versions of an object, that of the files first.
func (r *review) keysOf(name string) []string {
	var keys []string
	if _, is := r.good[name]; is {
		keys = append(keys, name)
	}
	if !strings.HasPrefix(name, "EndpointSlice ") {
		return keys
	}
	for _, key := range slices.Sorted(maps.Keys(r.good)) {
		if strings.HasPrefix(key, name+" of ") {
			keys = append(keys, key)
		}
	}
	return keys
}

// endpoints returns the EndpointSlices of a Service that are gone with it.
func (r *review) endpoints(service good) []kept {
	var all []kept
	for key, g := range r.good {
		slice, is := g.Object.(*discoveryv1.EndpointSlice)
		if !is || slice.Namespace != service.GetNamespace() || slice.Labels[discoveryv1.LabelServiceName] != service.GetName() {
			continue
		}
		switch now, is := r.files[key]; {
		case !is:
			all = append(all, kept{g, key})
		case now.Object.GetLabels()[discoveryv1.LabelServiceName] != service.GetName(): // it has gone to another Service
			all = append(all, kept{g, key + " of " + service.GetName()})
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
	now := r.files[g.name()].Object.(*gwv1.Gateway)
	return !slices.ContainsFunc(now.Spec.Listeners, func(l gwv1.Listener) bool {
		return !slices.ContainsFunc(before.Spec.Listeners, func(b gwv1.Listener) bool {
			return b.Name == l.Name && b.Port == l.Port && b.Protocol == l.Protocol
		})
	})
}

// replaced keeps what is gone and what a new object with a mistake seems to replace.
func (r *review) replaced(m gateway.Mistake) []cure {
	c := cure{replacements: []string{m.Subject}, last: true}
	if m.Mild {
		return nil
	}
	for key, g := range r.good {
		if _, is := r.files[key]; !is && replaces(r.files[m.Subject], g.named) {
			c.keep = append(c.keep, kept{g, key})
		}
	}
	if c.keep == nil {
		return nil
	}
	return []cure{c}
}

// renamed keeps the Gateway that a route misses, or the target that a policy misses, if
// another one that is new has taken its place, and the route or the policy is not attached
// to that.
func (r *review) renamed(m gateway.Mistake) []cure {
	for _, cause := range m.Causes {
		g, was := r.good[cause]
		if _, is := r.files[cause]; is || !was || !slices.Contains([]string{"Gateway", "ListenerSet", "TCPRoute", "UDPRoute"}, g.kind) {
			continue
		}
		c := cure{keep: []kept{{g, cause}}}
		for name, now := range r.files {
			if _, old := r.good[name]; !old && replaces(now, g.named) {
				c.replacements = append(c.replacements, name)
			}
		}
		if c.replacements != nil {
			return []cure{c}
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
	var replacements []string
	for _, a := range r.attempts {
		replacements = append(replacements, a.cure().replacements...)
	}
	for key, n := range r.now {
		if slices.Contains(replacements, key) {
			continue
		}
		g := good{named: n, at: r.at(n.name(), "")}
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

// Text returns the mistake in one line, with what goes on instead.
func (r Refusal) Text() string {
	text := r.Message + " Refused:"
	if r.Kept != nil {
		text += " what was good last goes on serving: " + phrase.Sample(r.Kept) + "."
	}
	if r.Dropped != nil {
		text += " not used: " + phrase.Sample(r.Dropped) + "."
	}
	return text
}
