// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// SetHostListens warns of the listeners at whose frontends nodes listen themselves.
// nodes has their names, sorted, by the address at which each listens.
func (t *Translation) SetHostListens(nodes map[lb.Key][]string) {
	if len(nodes) == 0 {
		return
	}
	everywhere := map[lb.Key][]string{}
	for key, names := range nodes {
		everywhere[everyAddress(key)] = append(everywhere[everyAddress(key)], names...)
	}
	type listenerID struct{ gateway, listener string }
	found, ports := map[listenerID][]string{}, map[listenerID]string{}
	for i := range t.Frontends {
		f := &t.Frontends[i]
		names := nodes[f.Key]
		if f.Addr.IsUnspecified() {
			names = everywhere[f.Key]
		}
		if id := (listenerID{f.Gateway, f.Listener}); len(names) > 0 {
			found[id] = append(found[id], names...)
			ports[id] = fmt.Sprintf("%s port %d", f.Protocol, f.Port)
		}
	}
	warn := func(gateway, listener string, conditions *[]metav1.Condition) {
		id := listenerID{gateway, listener}
		if names := found[id]; len(names) > 0 {
			*conditions = warnOfHost(*conditions, ports[id], names)
		}
	}
	for i := range t.Gateways {
		g := &t.Gateways[i]
		for j := range g.Status.Listeners {
			l := &g.Status.Listeners[j]
			warn(g.String(), string(l.Name), &l.Conditions)
		}
	}
	for i := range t.ListenerSets {
		set := &t.ListenerSets[i]
		for j := range set.Status.Listeners {
			l := &set.Status.Listeners[j]
			warn(set.Gateway.String(), set.String()+"/"+string(l.Name), &l.Conditions)
		}
	}
}

// warnOfHost adds a warning to the conditions of a listener, to the one that there may
// be. It names three nodes at most and counts none, so that nodes which come and go do
// not cost a write each.
func warnOfHost(conditions []metav1.Condition, port string, nodes []string) []metav1.Condition {
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	more := ""
	if len(nodes) > 3 {
		nodes, more = nodes[:3], " and others"
	}
	accepted := meta.FindStatusCondition(conditions, string(gwv1.ListenerConditionAccepted))
	warning := condition(v1alpha1.ListenerPortWarning, metav1.ConditionTrue, v1alpha1.ReasonHostListens, accepted.ObservedGeneration,
		fmt.Sprintf("Something on the node itself listens at %s, and gets what comes there, not the listener: on %s%s. Stop it, or use another port.",
			port, strings.Join(nodes, ", "), more))
	conditions = slices.Clone(conditions)
	if before := meta.FindStatusCondition(conditions, warning.Type); before != nil {
		warning.Message += " " + before.Message
		*before = warning
		return conditions
	}
	return append(conditions, warning)
}
