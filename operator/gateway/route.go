// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Route is a TCPRoute or a UDPRoute: they differ in their protocol alone. It
// refers to the parts of the object.
type Route struct {
	Kind     gwv1.Kind
	Protocol lb.Protocol
	Meta     *metav1.ObjectMeta
	Spec     *gwv1.CommonRouteSpec
	Rules    [][]gwv1.BackendRef // the backendRefs of each rule
	Status   *gwv1.RouteStatus
	// Object is the route itself.
	Object interface {
		metav1.Object
		runtime.Object
	}
}

// Routes returns all routes, TCPRoutes first.
func (o *Objects) Routes() []Route {
	var all []Route
	for i := range o.TCPRoutes {
		r := &o.TCPRoutes[i]
		rules := backendRefs(r.Spec.Rules, func(rule gwv1.TCPRouteRule) []gwv1.BackendRef { return rule.BackendRefs })
		all = append(all, Route{"TCPRoute", lb.TCP, &r.ObjectMeta, &r.Spec.CommonRouteSpec, rules, &r.Status.RouteStatus, r})
	}
	for i := range o.UDPRoutes {
		r := &o.UDPRoutes[i]
		rules := backendRefs(r.Spec.Rules, func(rule gwv1.UDPRouteRule) []gwv1.BackendRef { return rule.BackendRefs })
		all = append(all, Route{"UDPRoute", lb.UDP, &r.ObjectMeta, &r.Spec.CommonRouteSpec, rules, &r.Status.RouteStatus, r})
	}
	return all
}

func backendRefs[R any](rules []R, of func(R) []gwv1.BackendRef) [][]gwv1.BackendRef {
	var refs [][]gwv1.BackendRef
	for _, rule := range rules {
		refs = append(refs, of(rule))
	}
	return refs
}

// route is a Route with what became of it.
type route struct {
	Route
	backends backends
	attached []attachment
	policies *policyLevel
	failover *lb.Failover
}

// parent is what a route can attach to: one of Blixt's Gateways, or a
// ListenerSet of one.
type parent struct {
	name      string
	gateway   *gateway
	listeners []*listener
	refused   *fault // why nothing can attach to it
}

// causes names the objects that decide what the parent takes.
func (p *parent) causes() []string {
	if own := p.gateway.name(); own != p.name {
		return []string{p.name, own}
	}
	return []string{p.name}
}

// attachment is the result for one parentRef.
type attachment struct {
	parent
	ref     gwv1.ParentReference
	taken   []*listener
	refused *fault
}

// sortedRoutes returns all routes in order of precedence.
func sortedRoutes(objs *Objects) []*route {
	var all []*route
	for _, r := range objs.Routes() {
		all = append(all, &route{Route: r})
	}
	slices.SortStableFunc(all, func(a, b *route) int { return byAge(a.Meta, b.Meta) })
	return all
}

// usesDefaults reports whether the route asks for default Gateways, which Blixt
// does not have.
func (r *route) usesDefaults() bool {
	scope := r.Spec.UseDefaultGateways
	return scope != "" && scope != gwv1.GatewayDefaultScopeNone
}

// frontendName returns the route's name as Frontend.Route has it.
func (r *route) frontendName() string {
	return routeName(r.Kind, types.NamespacedName{Namespace: r.Meta.Namespace, Name: r.Meta.Name})
}

func (r *route) name() string { return named(string(r.Kind), r.Meta.Namespace, r.Meta.Name) }

// attach attaches the route to the listeners that a parentRef selects, unless
// they refuse it.
func (r *route) attach(ref gwv1.ParentReference, p parent, namespaces namespaceLabels) {
	a := attachment{ref: ref, parent: p, refused: p.refused}
	if len(r.Rules) != 1 {
		a.refused = faultf(gwv1.RouteReasonUnsupportedValue, "The route has %d rules: a %s has exactly one.", len(r.Rules), r.Kind)
	}
	if a.refused != nil {
		r.attached = append(r.attached, a)
		return
	}
	var selected bool
	var refusals []string
	for _, l := range p.listeners {
		if ref.SectionName != nil && *ref.SectionName != "" && *ref.SectionName != l.spec.Name ||
			ref.Port != nil && *ref.Port != l.spec.Port {
			continue
		}
		selected = true
		if why := l.refuses(r, namespaces); why != "" {
			refusals = append(refusals, why)
			continue
		}
		a.taken = append(a.taken, l)
		if !slices.Contains(l.attached, r) {
			l.attached = append(l.attached, r)
		}
	}
	switch {
	case !selected:
		a.refused = faultf(gwv1.RouteReasonNoMatchingParent, "%s has no listener %s.", p.name, wanted(ref)).because(p.causes()...)
	case len(a.taken) == 0:
		a.refused = faultf(gwv1.RouteReasonNotAllowedByListeners, "No listener of %s takes this route: %s.",
			p.name, strings.Join(refusals, "; ")).because(p.causes()...)
	}
	r.attached = append(r.attached, a)
}

// wanted returns the words for the listeners that a parentRef selects.
func wanted(ref gwv1.ParentReference) string {
	var words []string
	if ref.SectionName != nil && *ref.SectionName != "" {
		words = append(words, "named "+string(*ref.SectionName))
	}
	if ref.Port != nil {
		words = append(words, fmt.Sprintf("on port %d", *ref.Port))
	}
	if len(words) == 0 {
		return "at all"
	}
	return strings.Join(words, " ")
}

// shadows returns why the listener serves another route than r, or nil.
func (l *listener) shadows(r *route) *fault {
	winner := l.attached[0]
	if winner == r {
		return nil
	}
	because := precedence(winner.Meta, r.Meta)
	if l.incumbent {
		because = "which has served it before"
	}
	return faultf("Shadowed", "Listener %s serves %s instead, %s: delete that route or attach this one elsewhere.",
		l.spec.Name, winner.name(), because)
}

// outcome returns, for an accepted parentRef, which listeners serve the route,
// and what prevents the others.
func (a *attachment) outcome(r *route) string {
	var serving, rest []string
	for _, l := range a.taken {
		switch name := string(l.spec.Name); {
		case a.gateway.refused != nil || l.set != nil && !a.gateway.isServed():
			rest = append(rest, fmt.Sprintf("Listener %s does not serve it: the Gateway is not accepted.", name))
		case l.fault() != nil:
			rest = append(rest, fmt.Sprintf("Listener %s does not serve it, because the listener is not accepted itself (%s).",
				name, l.fault().reason))
		case l.shadows(r) != nil:
			rest = append(rest, l.shadows(r).message)
		case len(l.keys) == 0:
			rest = append(rest, fmt.Sprintf("Listener %s does not serve it: the Gateway has no address.", name))
		default:
			serving = append(serving, name)
		}
	}
	if len(serving) > 0 {
		rest = slices.Insert(rest, 0, fmt.Sprintf("Served by %s of %s.", listenersNamed(serving), a.name))
	}
	return strings.Join(rest, " ")
}

func (r *route) status() RouteStatus {
	status := RouteStatus{Kind: r.Kind, NamespacedName: types.NamespacedName{Namespace: r.Meta.Namespace, Name: r.Meta.Name}}
	for _, a := range r.attached {
		var outcome string
		if a.refused == nil {
			outcome = a.outcome(r)
		}
		status.Status.Parents = append(status.Status.Parents, gwv1.RouteParentStatus{
			ParentRef: a.ref, ControllerName: ControllerName,
			Conditions: append([]metav1.Condition{
				conditionOf(gwv1.RouteConditionAccepted, a.refused, gwv1.RouteReasonAccepted, r.Meta.Generation, outcome),
				conditionOf(gwv1.RouteConditionResolvedRefs, r.backends.fault, gwv1.RouteReasonResolvedRefs, r.Meta.Generation,
					"Every backendRef leads to a Service."),
			}, a.affected(r)...),
		})
	}
	return status
}
