// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// listenerSet is a ListenerSet of one of Blixt's Gateways.
type listenerSet struct {
	obj     *gwv1.ListenerSet
	gateway *gateway
	// listeners is empty for a set that is not allowed.
	listeners []*listener
	refused   *fault
	policies  *policyLevel
}

func newListenerSet(obj *gwv1.ListenerSet, g *gateway, namespaces namespaceLabels) *listenerSet {
	set := &listenerSet{obj: obj, gateway: g}
	if why := refusesSet(g.obj, obj.Namespace, namespaces); why != "" {
		set.refused = faultf(gwv1.ListenerSetReasonNotAllowed, "%s takes %s.", g.name(), why).because(g.name())
		return set
	}
	for i := range obj.Spec.Listeners {
		spec := gwv1.Listener(obj.Spec.Listeners[i])
		set.listeners = append(set.listeners, newListener(g, set, &spec))
	}
	return set
}

// refusesSet returns "" if the Gateway takes ListenerSets of the namespace.
// Otherwise it returns what the Gateway takes instead.
func refusesSet(gw *gwv1.Gateway, namespace string, namespaces namespaceLabels) string {
	const field = "spec.allowedListeners.namespaces"
	from := gwv1.NamespacesFromNone
	allowed := gw.Spec.AllowedListeners
	if allowed != nil && allowed.Namespaces != nil {
		from = deref(allowed.Namespaces.From, from)
	}
	switch from {
	case gwv1.NamespacesFromAll:
		return ""
	case gwv1.NamespacesFromSame:
		if namespace == gw.Namespace {
			return ""
		}
		return fmt.Sprintf("ListenerSets of its own namespace only (%s.from is Same)", field)
	case gwv1.NamespacesFromSelector:
		// A nil selector selects nothing.
		selector, err := metav1.LabelSelectorAsSelector(allowed.Namespaces.Selector)
		if err != nil {
			return fmt.Sprintf("no ListenerSets, because %s.selector is invalid: %s", field, err)
		}
		if selector.Matches(namespaces.of(namespace)) {
			return ""
		}
		return fmt.Sprintf("ListenerSets of selected namespaces only, and the labels of namespace %s do not match its selector", namespace)
	}
	return fmt.Sprintf("no ListenerSets: %s.from is %s", field, from)
}

// attachSets returns the ListenerSets of Blixt's Gateways by name, and adds
// them to their Gateways in order of precedence.
func (t *Translation) attachSets(objs *Objects, gateways gatewayIndex, namespaces namespaceLabels) map[types.NamespacedName]*listenerSet {
	sorted := make([]*gwv1.ListenerSet, len(objs.ListenerSets))
	for i := range objs.ListenerSets {
		sorted[i] = &objs.ListenerSets[i]
	}
	slices.SortStableFunc(sorted, func(a, b *gwv1.ListenerSet) int { return byAge(&a.ObjectMeta, &b.ObjectMeta) })
	sets := map[types.NamespacedName]*listenerSet{}
	for _, obj := range sorted {
		ref := obj.Spec.ParentRef
		if deref(ref.Group, gwv1.GroupName) != gwv1.GroupName || deref(ref.Kind, "Gateway") != "Gateway" {
			continue
		}
		key := types.NamespacedName{Namespace: string(deref(ref.Namespace, "")), Name: string(ref.Name)}
		if key.Namespace == "" {
			key.Namespace = obj.Namespace
		}
		g, exists := gateways[key]
		if !exists {
			message := "Gateway " + key.String() + " in parentRef does not exist."
			t.addNote(named("ListenerSet", obj.Namespace, obj.Name), message)
			t.addMistake(named("ListenerSet", obj.Namespace, obj.Name), string(gwv1.RouteReasonNoMatchingParent), message, named("Gateway", key.Namespace, key.Name))
		}
		if g == nil {
			continue
		}
		set := newListenerSet(obj, g, namespaces)
		g.sets = append(g.sets, set)
		sets[types.NamespacedName{Namespace: obj.Namespace, Name: obj.Name}] = set
	}
	return sets
}

func (set *listenerSet) name() string { return named("ListenerSet", set.obj.Namespace, set.obj.Name) }

func (set *listenerSet) parent() parent {
	p := parent{name: set.name(), gateway: set.gateway, listeners: set.listeners}
	if set.refused != nil {
		p.refused = faultf(gwv1.RouteReasonNoMatchingParent, "%s is not attached: %s", set.name(), set.refused.message)
	}
	return p
}

func (set *listenerSet) accepted() metav1.Condition {
	f := set.refused
	if parent := set.gateway.accepted(); f == nil && !set.gateway.isServed() {
		f = faultf(gwv1.ListenerSetReasonParentNotAccepted, "%s is not accepted: %s", set.gateway.name(), parent.Message)
	}
	return accepted(f, set.listeners, set.obj.Generation, "The ListenerSet is valid.")
}

func (set *listenerSet) programmed(accepted metav1.Condition) metav1.Condition {
	const kind = gwv1.ListenerSetConditionProgrammed
	generation := set.obj.Generation
	served := slices.ContainsFunc(set.listeners, func(l *listener) bool { return len(l.keys) > 0 })
	switch f := set.gateway.addresses.fault(); {
	case accepted.Status != metav1.ConditionTrue:
		return condition(kind, metav1.ConditionFalse, gwv1.ListenerSetConditionReason(accepted.Reason), generation, accepted.Message)
	case !served && unservedFault(set.listeners) != nil:
		f := unservedFault(set.listeners)
		return condition(kind, metav1.ConditionFalse, gwv1.ListenerSetConditionReason(f.reason), generation, "No listener is served. "+f.message)
	case !served && f != nil:
		return condition(kind, metav1.ConditionFalse, listenerSetReasonParentNotProgrammed, generation,
			set.gateway.name()+" has no address: "+f.message)
	}
	return condition(kind, metav1.ConditionUnknown, gwv1.ListenerSetReasonPending, generation, waiting)
}

func (set *listenerSet) status() ListenerSetStatus {
	status := ListenerSetStatus{
		NamespacedName: types.NamespacedName{Namespace: set.obj.Namespace, Name: set.obj.Name},
		Gateway:        set.gateway.key(),
	}
	accepted := set.accepted()
	if accepted.Status == metav1.ConditionTrue {
		accepted.Message += unservedRemark(set.listeners)
	}
	status.Status.Conditions = []metav1.Condition{accepted, set.programmed(accepted)}
	status.Status.Conditions = append(status.Status.Conditions, affected(set.obj.Generation, set.gateway.policies, set.policies)...)
	for _, l := range set.listeners {
		status.Status.Listeners = append(status.Status.Listeners, gwv1.ListenerEntryStatus(l.status()))
	}
	return status
}
