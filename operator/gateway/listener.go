// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// listener is a port of a Gateway or of one of its ListenerSets, with the
// routes that attach to it.
type listener struct {
	gateway *gateway
	set     *listenerSet // nil: the Gateway's own
	spec    *gwv1.Listener
	// protocol is zero if Blixt does not support it; kinds is then empty.
	protocol lb.Protocol
	kinds    []gwv1.RouteGroupKind
	selector labels.Selector // of namespaces, where from is Selector
	// Each of these is reported in a condition. With refused or conflicted set,
	// the listener is not served.
	refused, conflicted, badKinds *fault
	// unserved is why the listener, although it is valid, is served nowhere, or
	// only where it was before.
	unserved *fault
	// warning is why it would not get its port if it did not have it already.
	warning  *fault
	attached []*route // in order of precedence
	// incumbent is true if the first of attached has served the listener before.
	incumbent bool
	// keys are the frontends that it has.
	keys []lb.Key
	// policies are those of the listener itself, and effective is what all make of it; nil: there
	// are none.
	policies  *policyLevel
	effective *effective
}

func newListener(g *gateway, set *listenerSet, spec *gwv1.Listener) *listener {
	l := &listener{gateway: g, set: set, spec: spec, kinds: []gwv1.RouteGroupKind{}}
	switch spec.Protocol {
	case gwv1.TCPProtocolType:
		l.protocol = lb.TCP
	case gwv1.UDPProtocolType:
		l.protocol = lb.UDP
	default:
		l.refused = faultf(gwv1.ListenerReasonUnsupportedProtocol,
			"Protocol %s is not supported: Blixt serves TCP and UDP.", spec.Protocol)
		if upper := strings.ToUpper(string(spec.Protocol)); upper == "TCP" || upper == "UDP" {
			l.refused.message = fmt.Sprintf("Protocol %s is not supported: did you mean %s?", spec.Protocol, upper)
		}
	}
	l.findKinds()
	bad := l.findSelector() // also if something else is wrong: routes are told why they do not attach
	if l.refused == nil {
		l.refused = l.check()
	}
	if l.refused == nil {
		l.refused = bad
	}
	return l
}

// owner returns the object that the listener is part of, and its kind.
func (l *listener) owner() (*metav1.ObjectMeta, string) {
	if l.set != nil {
		return &l.set.obj.ObjectMeta, "ListenerSet"
	}
	return &l.gateway.obj.ObjectMeta, "Gateway"
}

// ownerID identifies the owner.
func (l *listener) ownerID() owner {
	meta, kind := l.owner()
	return ownerOf(kind, meta)
}

// id identifies the listener among those of its Gateway, ListenerSets included.
func (l *listener) id() string {
	if l.set != nil {
		return l.set.obj.Namespace + "/" + l.set.obj.Name + "/" + string(l.spec.Name)
	}
	return string(l.spec.Name)
}

// name returns the name by which messages of other objects refer to the
// listener.
func (l *listener) name() string {
	meta, kind := l.owner()
	return fmt.Sprintf("listener %s of %s", l.spec.Name, named(kind, meta.Namespace, meta.Name))
}

// findKinds sets the kinds of routes that may attach, and badKinds.
func (l *listener) findKinds() {
	group := gwv1.Group(gwv1.GroupName)
	own := gwv1.RouteGroupKind{Group: &group, Kind: routeKind(l.protocol)}
	allowed := l.spec.AllowedRoutes
	if allowed == nil || len(allowed.Kinds) == 0 {
		if l.protocol != 0 {
			l.kinds = append(l.kinds, own)
		}
		return
	}
	var invalid []string
	for _, kind := range allowed.Kinds {
		switch {
		case l.protocol == 0 || deref(kind.Group, group) != group || kind.Kind != own.Kind:
			invalid = append(invalid, groupKind(deref(kind.Group, ""), kind.Kind))
		case len(l.kinds) == 0:
			l.kinds = append(l.kinds, own)
		}
	}
	if len(invalid) == 0 {
		return
	}
	if l.protocol == 0 {
		l.badKinds = faultf(gwv1.ListenerReasonInvalidRouteKinds,
			"allowedRoutes.kinds names %s, but Blixt has no routes for protocol %s.",
			phrase.Join(invalid), l.spec.Protocol)
		return
	}
	l.badKinds = faultf(gwv1.ListenerReasonInvalidRouteKinds,
		"allowedRoutes.kinds names %s, but a %s listener takes only %s: remove the others.",
		phrase.Join(invalid), l.protocol, own.Kind)
}

// invalidValue is the reason of what CRD validation checks as well, as files do not pass
// through it.
func (l *listener) invalidValue() gwv1.ListenerConditionReason {
	if l.set != nil { // whose listeners have no such reason
		return gwv1.ListenerConditionReason(gwv1.ListenerEntryReasonInvalid)
	}
	return gwv1.ListenerReasonUnsupportedValue
}

// check validates all but kinds and namespaces of routes.
func (l *listener) check() *fault {
	switch {
	case l.spec.Port < 1 || l.spec.Port > 65535:
		return faultf(l.invalidValue(), "Port %d is not a port: use 1 to 65535.", l.spec.Port)
	case l.spec.TLS != nil || deref(l.spec.Hostname, "") != "":
		return faultf(l.invalidValue(), "A %s listener can have neither tls nor hostname: remove them.", l.protocol)
	}
	return nil
}

// findSelector sets the selector of namespaces, which CRD validation does not check.
func (l *listener) findSelector() *fault {
	switch l.from() {
	case gwv1.NamespacesFromAll, gwv1.NamespacesFromSame:
		return nil
	case gwv1.NamespacesFromSelector:
		if l.spec.AllowedRoutes.Namespaces.Selector == nil {
			return faultf(l.invalidValue(), "allowedRoutes.namespaces.from is Selector, but there is no selector: add one.")
		}
		selector, err := metav1.LabelSelectorAsSelector(l.spec.AllowedRoutes.Namespaces.Selector)
		if err != nil {
			return faultf(l.invalidValue(), "allowedRoutes.namespaces.selector is invalid: %s.", err)
		}
		l.selector = selector
		return nil
	}
	return faultf(l.invalidValue(), "allowedRoutes.namespaces.from %s is not supported: use Same, All or Selector.", l.from())
}

func (l *listener) from() gwv1.FromNamespaces {
	if a := l.spec.AllowedRoutes; a != nil && a.Namespaces != nil && a.Namespaces.From != nil {
		return *a.Namespaces.From
	}
	return gwv1.NamespacesFromSame
}

// refuses returns why the route cannot attach, or "".
func (l *listener) refuses(r *route, namespaces namespaceLabels) string {
	if !slices.ContainsFunc(l.kinds, func(k gwv1.RouteGroupKind) bool { return k.Kind == r.Kind }) {
		return fmt.Sprintf("listener %s (%s) does not take a %s", l.spec.Name, l.spec.Protocol, r.Kind)
	}
	switch owner, _ := l.owner(); l.from() {
	case gwv1.NamespacesFromAll:
		return ""
	case gwv1.NamespacesFromSame:
		if r.Meta.Namespace == owner.Namespace {
			return ""
		}
		return fmt.Sprintf("listener %s takes routes of its own namespace %s only (allowedRoutes.namespaces.from is Same)",
			l.spec.Name, owner.Namespace)
	}
	if l.selector != nil && l.selector.Matches(namespaces.of(r.Meta.Namespace)) {
		return ""
	}
	return fmt.Sprintf("listener %s takes routes of selected namespaces only, and the labels of namespace %s do not match its selector",
		l.spec.Name, r.Meta.Namespace)
}

// fault returns why the listener is not served, or nil.
func (l *listener) fault() *fault {
	if l.conflicted != nil {
		return l.conflicted
	}
	return l.refused
}

// unservedFault returns why none of the listeners is served although one is valid,
// or nil.
func unservedFault(listeners []*listener) *fault {
	var f *fault
	for _, l := range listeners {
		if len(l.keys) > 0 {
			return nil
		}
		f = cmp.Or(f, l.unserved)
	}
	return f
}

// unservedRemark names the valid listeners that are not served, or not everywhere.
func unservedRemark(listeners []*listener) string {
	var names []string
	for _, l := range listeners {
		if l.unserved != nil {
			names = append(names, string(l.spec.Name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf(" Not served, or not everywhere: %s; see the conditions of each listener.", listenersNamed(names))
}

// invalid returns the names of the listeners that are not served.
func invalid(listeners []*listener) []string {
	var names []string
	for _, l := range listeners {
		if l.fault() != nil {
			names = append(names, string(l.spec.Name))
		}
	}
	return names
}

// accepted returns the Accepted condition of a Gateway or ListenerSet of these
// listeners: both kinds have the same reasons. f, if not nil, is why it is not
// accepted. Otherwise it is False only if no listener is valid.
func accepted(f *fault, listeners []*listener, generation int64, message string) metav1.Condition {
	bad := invalid(listeners)
	switch {
	case f != nil:
	case len(bad) == len(listeners):
		f = faultf(gwv1.GatewayReasonListenersNotValid, "No listener is valid: see the conditions of each.")
	case len(bad) > 0:
		return condition(gwv1.GatewayConditionAccepted, metav1.ConditionTrue, gwv1.GatewayReasonListenersNotValid,
			generation, fmt.Sprintf("Invalid: %s; see the conditions of each listener. The other listeners are valid.", listenersNamed(bad)))
	}
	return conditionOf(gwv1.GatewayConditionAccepted, f, gwv1.GatewayReasonAccepted, generation, message)
}

func (l *listener) status() gwv1.ListenerStatus {
	owner, _ := l.owner()
	generation := owner.Generation
	status := gwv1.ListenerStatus{
		Name: l.spec.Name, SupportedKinds: l.kinds, AttachedRoutes: int32(len(l.attached)),
		Conditions: []metav1.Condition{conditionOf(gwv1.ListenerConditionAccepted, l.fault(),
			gwv1.ListenerReasonAccepted, generation, "The listener is valid.")},
	}
	conflict := condition(gwv1.ListenerConditionConflicted, metav1.ConditionFalse,
		gwv1.ListenerReasonNoConflicts, generation, "No other listener of the Gateway conflicts with it.")
	if l.conflicted != nil {
		conflict = condition(gwv1.ListenerConditionConflicted, metav1.ConditionTrue,
			l.conflicted.reason, generation, l.conflicted.message)
	}
	status.Conditions = append(status.Conditions, conflict,
		conditionOf(gwv1.ListenerConditionResolvedRefs, l.badKinds,
			gwv1.ListenerReasonResolvedRefs, generation, "Every reference of the listener is resolved."),
		l.programmed(generation))
	if l.warning != nil {
		status.Conditions = append(status.Conditions, condition(
			v1alpha1.ListenerPortWarning, metav1.ConditionTrue, l.warning.reason, generation, l.warning.message))
	}
	var ofSet *policyLevel
	if l.set != nil {
		ofSet = l.set.policies
	}
	status.Conditions = append(status.Conditions, affected(generation, l.gateway.policies, ofSet, l.policies)...)
	return status
}

func (l *listener) programmed(generation int64) metav1.Condition {
	no := func(reason gwv1.ListenerConditionReason, message string) metav1.Condition {
		return condition(gwv1.ListenerConditionProgrammed, metav1.ConditionFalse, reason, generation, message)
	}
	switch g := l.gateway; {
	case l.conflicted != nil:
		return no(gwv1.ListenerConditionReason(l.conflicted.reason), l.conflicted.message)
	case l.refused != nil && l.set != nil && l.refused.reason == string(gwv1.ListenerEntryReasonPortUnavailable):
		return no(gwv1.ListenerReasonPortUnavailable, "Not served: "+l.refused.message)
	case l.refused != nil:
		return no(gwv1.ListenerReasonInvalid, "Not served: "+l.refused.message)
	case !g.isServed():
		return no(gwv1.ListenerReasonInvalid, "The Gateway is not accepted: "+g.accepted().Message)
	case l.unserved != nil && len(l.keys) > 0:
		return no(gwv1.ListenerConditionReason(l.unserved.reason), "Served only where it was before: "+l.unserved.message)
	case l.unserved != nil:
		return no(gwv1.ListenerConditionReason(l.unserved.reason), "Not served: "+l.unserved.message)
	case len(l.keys) == 0 && g.addresses.fault() != nil:
		return no(gwv1.ListenerReasonPending, "The Gateway has no address: "+g.addresses.fault().message)
	case len(l.keys) == 0:
		return no(gwv1.ListenerReasonPending, "The load balancer has a name only, and delivers to no address or node port that can be served yet.")
	}
	return condition(gwv1.ListenerConditionProgrammed, metav1.ConditionUnknown,
		gwv1.ListenerReasonPending, generation, waiting)
}

func routeKind(p lb.Protocol) gwv1.Kind {
	if p == lb.UDP {
		return "UDPRoute"
	}
	return "TCPRoute"
}
