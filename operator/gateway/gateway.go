// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// waiting is the message of Programmed until the data plane has reported.
const waiting = "Waiting for the data plane to report what it serves."

// gateway is a Gateway of one of Blixt's classes.
type gateway struct {
	obj       *gwv1.Gateway
	class     *class
	policy    policy
	source    v1alpha1.AddressSource // empty without a cluster
	addresses addresses
	// held are the addresses that it holds, in a cluster, which may be more than
	// it can be served on. pooled are those of a pool that it did not name, by
	// whether they are IPv6.
	held      []netip.Addr
	pooled    map[bool]netip.Addr
	listeners []*listener
	sets      []*listenerSet // in order of precedence
	// ports are those of valid listeners, before any port is claimed.
	ports []ServicePort
	// refused is why the Gateway as a whole is not served, or nil.
	refused *fault
}

func newGateway(obj *gwv1.Gateway, c *class, s *environment, configs []v1alpha1.BlixtGatewayConfig) *gateway {
	g := &gateway{obj: obj, class: c, addresses: newAddresses(obj), pooled: map[bool]netip.Addr{}}
	for i := range obj.Spec.Listeners {
		g.listeners = append(g.listeners, newListener(g, nil, &obj.Spec.Listeners[i]))
	}
	findConflicts(g.listeners)
	g.policy, g.refused = findPolicy(obj, configs)
	if g.refused == nil && s.Cluster != nil {
		g.source, g.refused = g.policy.choose(c.config)
	} else if g.refused == nil && g.policy.source != "" {
		g.refused = faultf(gwv1.GatewayReasonInvalidParameters,
			"The addressSource %s of the BlixtGatewayConfig needs a cluster: remove it.", g.policy.source)
	}
	switch {
	case c.refused != nil:
		g.refused = faultf(gwv1.GatewayReasonInvalid, "GatewayClass %s is not accepted: %s", c.obj.Name, c.refused.message)
	case g.refused == nil:
		g.refused = g.addresses.unsupported
	}
	return g
}

func (g *gateway) key() types.NamespacedName {
	return types.NamespacedName{Namespace: g.obj.Namespace, Name: g.obj.Name}
}

func (g *gateway) name() string { return named("Gateway", g.obj.Namespace, g.obj.Name) }

// mayNotUse returns why the Gateway may not name the address, or "".
func (g *gateway) mayNotUse(addr netip.Addr, s *environment) string {
	c := g.class.config
	pool := g.source == v1alpha1.SourcePool
	switch {
	case pool && c.pool.contains(addr), c.allows(addr, s.namespaces.of(g.obj.Namespace)):
		return ""
	case pool:
		return fmt.Sprintf("it is not in the pool of %s, nor allowed for namespace %s (spec.addresses.allowed)", c.name(), g.obj.Namespace)
	}
	return fmt.Sprintf("%s does not allow it for namespace %s (spec.addresses.allowed)", c.name(), g.obj.Namespace)
}

// isGiven reports whether the Gateway's Service has the address, and the Gateway
// wants it.
func (g *gateway) isGiven(addr netip.Addr, given Assigned) bool {
	return (g.addresses.any || slices.Contains(g.addresses.named, addr)) &&
		slices.ContainsFunc(given.Addresses, func(a netip.Addr) bool { return a.Unmap() == addr })
}

// all returns the listeners of the Gateway and of its ListenerSets, in order
// of precedence.
func (g *gateway) all() []*listener {
	all := slices.Clone(g.listeners)
	for _, set := range g.sets {
		all = append(all, set.listeners...)
	}
	return all
}

func (g *gateway) accepted() metav1.Condition {
	return accepted(g.refused, g.listeners, g.obj.Generation, "The Gateway is valid.")
}

func (g *gateway) isAccepted() bool { return g.accepted().Status == metav1.ConditionTrue }

func (g *gateway) programmed(accepted metav1.Condition) metav1.Condition {
	generation := g.obj.Generation
	if accepted.Status == metav1.ConditionFalse {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, gwv1.GatewayReasonInvalid,
			generation, "The Gateway is not accepted: "+accepted.Message)
	}
	if f := g.addresses.fault(); f != nil {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, f.reason, generation, f.message)
	}
	return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionUnknown, gwv1.GatewayReasonPending,
		generation, waiting)
}

func (g *gateway) status(s *environment) GatewayStatus {
	status := GatewayStatus{NamespacedName: g.key(), Service: g.serviceSpec(s)}
	accepted := g.accepted()
	switch {
	// Addresses of a pool stay assigned while a listener, or anything else, is
	// invalid: clients and DNS know them.
	case accepted.Status == metav1.ConditionTrue, g.refused == nil && g.source == v1alpha1.SourcePool:
		var remark string
		status.Status.Addresses, remark = g.addresses.status(s)
		accepted.Message += remark
	case g.refused != nil && s.Cluster != nil:
		status.Status.Addresses = slices.Clone(g.obj.Status.Addresses)
	}
	status.Status.Conditions = []metav1.Condition{accepted, g.programmed(accepted)}
	for _, l := range g.listeners {
		status.Status.Listeners = append(status.Status.Listeners, l.status())
	}
	var attached int32
	for _, set := range g.sets {
		if set.accepted().Status == metav1.ConditionTrue {
			attached++
		}
	}
	status.Status.AttachedListenerSets = &attached
	return status
}
