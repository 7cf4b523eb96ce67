// SPDX-License-Identifier: Apache-2.0

package hostpage

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/page"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// longestProblem is how many bytes of a problem are shown: the log has all of it.
const longestProblem = 600

// list is the Gateways of files, and of what is served: the two differ by mistakes, for
// which what was good last goes on.
type list struct {
	gateways map[string]*page.Declared
	// routes are where the routes of a name are attached, and services where a Service is
	// used, by kind and name as messages have them.
	routes, services map[string][]place
	classes          map[string][]string // Gateways by GatewayClass
	serves           map[place]bool      // has a backend that new connections go to
}

// place is a listener of a Gateway.
type place struct{ gateway, listener string }

// newList returns the Gateways in the order of their names.
func newList(from *standalone.Declared) []page.Declared {
	l := &list{
		gateways: map[string]*page.Declared{}, routes: map[string][]place{}, services: map[string][]place{},
		classes: map[string][]string{}, serves: map[place]bool{},
	}
	l.addFrontends(from.State.Frontends)
	for _, objects := range []*gateway.Objects{&from.Review.Objects.Objects, &from.Files().Objects} {
		l.addGateways(objects.Gateways)
		l.addSets(objects.ListenerSets)
		l.addRoutes(objects.Routes())
	}
	mistakes, states := from.Problems()
	l.addProblems(mistakes, finding.Failed, from.Review)
	l.addProblems(states, finding.Warning, from.Review)
	l.addRefusing(from.State.Frontends)
	all := make([]page.Declared, 0, len(l.gateways))
	for _, name := range slices.Sorted(maps.Keys(l.gateways)) {
		g := l.gateways[name]
		slices.SortStableFunc(g.Listeners, func(a, b page.DeclaredListener) int { return strings.Compare(a.Name, b.Name) })
		all = append(all, *g)
	}
	return all
}

// gateway returns the Gateway of a name, which is made if necessary.
func (l *list) gateway(name string) *page.Declared {
	g := l.gateways[name]
	if g == nil {
		g = &page.Declared{Name: name, Verdict: finding.OK}
		l.gateways[name] = g
	}
	return g
}

// listener returns a listener of a Gateway, which is made if necessary.
func listener(g *page.Declared, name, protocol string, port uint16) *page.DeclaredListener {
	for i := range g.Listeners {
		if g.Listeners[i].Name == name {
			return &g.Listeners[i]
		}
	}
	g.Listeners = append(g.Listeners, page.DeclaredListener{Name: name, Protocol: protocol, Port: port})
	return &g.Listeners[len(g.Listeners)-1]
}

func addTo[T comparable](all []T, one T) []T {
	if slices.Contains(all, one) {
		return all
	}
	return append(all, one)
}

// addFrontends adds what is served.
func (l *list) addFrontends(frontends []lb.Frontend) {
	for i := range frontends {
		f := &frontends[i]
		g, at := l.gateway(f.Gateway), place{f.Gateway, f.Listener}
		g.Addresses = addTo(g.Addresses, f.Addr.String())
		to := listener(g, f.Listener, f.Protocol.String(), f.Port)
		if f.Route != "" {
			to.Routes = addTo(to.Routes, f.Route)
			l.routes[messageName(f.Route)] = addTo(l.routes[messageName(f.Route)], at)
		}
		for _, ref := range f.Refs {
			name := "Service " + ref.Service
			l.services[name] = addTo(l.services[name], at)
		}
		if slices.ContainsFunc(f.Backends, func(b lb.Backend) bool { return b.Weight > 0 }) {
			l.serves[at] = true
		}
	}
}

// messageName returns kind and namespace/name of kind/namespace/name.
func messageName(route string) string { return strings.Replace(route, "/", " ", 1) }

func (l *list) addGateways(all []gwv1.Gateway) {
	for i := range all {
		spec := &all[i].Spec
		g := l.gateway(all[i].Namespace + "/" + all[i].Name)
		class := "GatewayClass " + string(spec.GatewayClassName)
		g.Class, l.classes[class] = string(spec.GatewayClassName), addTo(l.classes[class], g.Name)
		for _, a := range spec.Addresses {
			if a.Value != "" {
				g.Addresses = addTo(g.Addresses, a.Value)
			}
		}
		for _, s := range spec.Listeners {
			listener(g, string(s.Name), string(s.Protocol), uint16(s.Port))
		}
	}
}

func (l *list) addSets(all []gwv1.ListenerSet) {
	for i := range all {
		set := &all[i]
		parent := set.Spec.ParentRef
		namespace := set.Namespace
		if parent.Namespace != nil {
			namespace = string(*parent.Namespace)
		}
		g := l.gateways[namespace+"/"+string(parent.Name)]
		if g == nil { // a finding says so
			continue
		}
		for _, s := range set.Spec.Listeners {
			listener(g, set.Namespace+"/"+set.Name+"/"+string(s.Name), string(s.Protocol), uint16(s.Port))
		}
	}
}

// addRoutes adds routes to the listeners that they name.
func (l *list) addRoutes(routes []gateway.Route) {
	for _, r := range routes {
		name := string(r.Kind) + "/" + r.Meta.Namespace + "/" + r.Meta.Name
		for _, ref := range r.Spec.ParentRefs {
			namespace := r.Meta.Namespace
			if ref.Namespace != nil {
				namespace = string(*ref.Namespace)
			}
			g := l.gateways[namespace+"/"+string(ref.Name)]
			if g == nil || ref.Kind != nil && *ref.Kind != "Gateway" {
				continue
			}
			for i := range g.Listeners {
				to := &g.Listeners[i]
				if ref.SectionName != nil && string(*ref.SectionName) != to.Name || ref.Port != nil && uint16(*ref.Port) != to.Port || to.Protocol != r.Protocol.String() {
					continue
				}
				to.Routes = addTo(to.Routes, name)
				l.routes[messageName(name)] = addTo(l.routes[messageName(name)], place{g.Name, to.Name})
			}
		}
	}
}

// addProblems adds messages to the Gateways that they concern. Those of others are
// findings alone.
func (l *list) addProblems(messages []admission.Message, verdict finding.Level, review *admission.Review) {
	for i := range messages {
		m := &messages[i]
		object, name, _ := strings.Cut(m.Object, " listener ")
		kind, rest, _ := strings.Cut(object, " ")
		switch kind {
		case "Gateway":
			l.addProblem(place{rest, name}, m, verdict)
		case "ListenerSet":
			l.addToSet(rest, name, m, verdict)
		case "GatewayClass":
			for _, g := range l.classes[object] {
				l.addProblem(place{g, ""}, m, verdict)
			}
		case "TCPRoute", "UDPRoute":
			l.addToAll(l.routes[object], m, verdict)
		case "Service":
			l.addToAll(l.services[object], m, verdict)
		case "EndpointSlice":
			l.addToAll(l.services["Service "+serviceOf(rest, review.Objects.EndpointSlices)], m, verdict)
		}
	}
}

// serviceOf returns the Service of an EndpointSlice.
func serviceOf(name string, all []discoveryv1.EndpointSlice) string {
	for i := range all {
		if all[i].Namespace+"/"+all[i].Name == name {
			return all[i].Namespace + "/" + all[i].Labels[discoveryv1.LabelServiceName]
		}
	}
	return ""
}

// addToSet adds a message about a listener of a ListenerSet, or all of them.
func (l *list) addToSet(set, name string, m *admission.Message, verdict finding.Level) {
	for _, g := range l.gateways {
		for i := range g.Listeners {
			if of, is := strings.CutPrefix(g.Listeners[i].Name, set+"/"); is && (name == "" || name == of) {
				l.addProblem(place{g.Name, g.Listeners[i].Name}, m, verdict)
			}
		}
	}
}

func (l *list) addToAll(places []place, m *admission.Message, verdict finding.Level) {
	for _, at := range places {
		if verdict == finding.Warning && !l.serves[at] {
			l.addProblem(at, m, finding.Failed) // the state costs connections
			continue
		}
		l.addProblem(at, m, verdict)
	}
}

// addRefusing has listeners say that they refuse connections, if nothing says why.
func (l *list) addRefusing(frontends []lb.Frontend) {
	for i := range frontends {
		f := &frontends[i]
		text := "no backend serves: new connections are refused"
		if f.Route == "" {
			text = "no route is attached: new connections are refused"
		}
		if at := (place{f.Gateway, f.Listener}); !l.serves[at] {
			l.add(at, text, finding.Failed)
		}
	}
}

func (l *list) addProblem(at place, m *admission.Message, verdict finding.Level) {
	l.add(at, phrase.Clip(m.String(), longestProblem), verdict)
}

// add has a Gateway and its listener say what is wrong, the worst alone.
func (l *list) add(at place, text string, verdict finding.Level) {
	g := l.gateways[at.gateway]
	if g == nil {
		return
	}
	if rank := func(v finding.Level) int { return slices.Index(finding.Levels, v) }; rank(verdict) < rank(g.Verdict) {
		g.Problem, g.Verdict = text, verdict
	}
	if i := slices.IndexFunc(g.Listeners, func(l page.DeclaredListener) bool { return l.Name == at.listener }); i >= 0 {
		g.Listeners[i].Problem = cmp.Or(g.Listeners[i].Problem, text)
	}
}
