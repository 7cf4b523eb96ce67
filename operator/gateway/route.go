// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// route is a TCPRoute or a UDPRoute: they differ in nothing but the protocol.
type route struct {
	kind     gwv1.Kind
	protocol lb.Protocol
	meta     *metav1.ObjectMeta
	parents  []gwv1.ParentReference
	rules    [][]gwv1.BackendRef
	backends backends
	// useDefaults says that it wants default Gateways, which Blixt has not.
	useDefaults bool
	attached    []attachment
}

// parent is what a route can attach to: a Gateway of Blixt's, or a ListenerSet
// of one.
type parent struct {
	name      string
	gateway   *gateway
	listeners []*listener
	refused   *fault // why nothing can attach to it
}

// attachment is what became of one parentRef.
type attachment struct {
	parent
	ref     gwv1.ParentReference
	taken   []*listener
	refused *fault
}

// routes returns all routes in order of precedence.
func routes(objs *Objects) []*route {
	var all []*route
	for i := range objs.TCPRoutes {
		obj := &objs.TCPRoutes[i]
		r := &route{kind: "TCPRoute", protocol: lb.TCP, meta: &obj.ObjectMeta, parents: obj.Spec.ParentRefs,
			useDefaults: usesDefaults(obj.Spec.UseDefaultGateways)}
		for _, rule := range obj.Spec.Rules {
			r.rules = append(r.rules, rule.BackendRefs)
		}
		all = append(all, r)
	}
	for i := range objs.UDPRoutes {
		obj := &objs.UDPRoutes[i]
		r := &route{kind: "UDPRoute", protocol: lb.UDP, meta: &obj.ObjectMeta, parents: obj.Spec.ParentRefs,
			useDefaults: usesDefaults(obj.Spec.UseDefaultGateways)}
		for _, rule := range obj.Spec.Rules {
			r.rules = append(r.rules, rule.BackendRefs)
		}
		all = append(all, r)
	}
	slices.SortStableFunc(all, func(a, b *route) int { return byAge(a.meta, b.meta) })
	return all
}

func usesDefaults(scope gwv1.GatewayDefaultScope) bool {
	return scope != "" && scope != gwv1.GatewayDefaultScopeNone
}

func (r *route) name() string { return named(string(r.kind), r.meta.Namespace, r.meta.Name) }

// attach offers the route to the listeners that a parentRef selects.
func (r *route) attach(ref gwv1.ParentReference, p parent, namespaces namespaceLabels) {
	a := attachment{ref: ref, parent: p, refused: p.refused}
	if len(r.rules) != 1 {
		a.refused = faultf(gwv1.RouteReasonUnsupportedValue, "The route has %d rules: a %s has exactly one.", len(r.rules), r.kind)
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
		a.refused = faultf(gwv1.RouteReasonNoMatchingParent, "%s has no listener %s.", p.name, wanted(ref))
	case len(a.taken) == 0:
		a.refused = faultf(gwv1.RouteReasonNotAllowedByListeners, "No listener of %s takes this route: %s.",
			p.name, strings.Join(refusals, "; "))
	}
	r.attached = append(r.attached, a)
}

// wanted describes the listeners that a parentRef selects.
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

// outcome tells for an accepted parentRef which listeners serve the route, and
// what is in the way at the others.
func (a *attachment) outcome(r *route) string {
	var serving, rest []string
	for _, l := range a.taken {
		switch name, winner := string(l.spec.Name), l.attached[0]; {
		case a.gateway.refused != nil || l.set != nil && !a.gateway.isAccepted():
			rest = append(rest, fmt.Sprintf("Listener %s does not serve it: the Gateway is not accepted.", name))
		case l.fault() != nil:
			rest = append(rest, fmt.Sprintf("Listener %s does not serve it, because the listener is not accepted itself (%s).",
				name, l.fault().reason))
		case winner != r:
			rest = append(rest, fmt.Sprintf("Listener %s serves %s instead, %s: delete that route or attach this one elsewhere.",
				name, winner.name(), precedence(winner.meta, r.meta)))
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
	status := RouteStatus{Kind: r.kind, NamespacedName: types.NamespacedName{Namespace: r.meta.Namespace, Name: r.meta.Name}}
	for _, a := range r.attached {
		var outcome string
		if a.refused == nil {
			outcome = a.outcome(r)
		}
		status.Status.Parents = append(status.Status.Parents, gwv1.RouteParentStatus{
			ParentRef: a.ref, ControllerName: ControllerName,
			Conditions: []metav1.Condition{
				conditionOf(gwv1.RouteConditionAccepted, a.refused, gwv1.RouteReasonAccepted, r.meta.Generation, outcome),
				conditionOf(gwv1.RouteConditionResolvedRefs, r.backends.fault, gwv1.RouteReasonResolvedRefs, r.meta.Generation,
					"Every backendRef leads to a Service."),
			},
		})
	}
	return status
}
