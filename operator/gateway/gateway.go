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
	obj   *gwv1.Gateway
	class *class
	// parameters are what it is served by: the last valid ones if its own are not.
	parameters Parameters
	policy     policy
	source     v1alpha1.AddressSource // empty without a cluster
	addresses  addresses
	// held are the addresses that it holds, in a cluster, which may be more than
	// it can be served on. pooled are those of a pool that it did not name, by
	// whether they are IPv6.
	held      []netip.Addr
	pooled    map[bool]netip.Addr
	listeners []*listener
	sets      []*listenerSet // in order of precedence
	// ports are those of valid listeners, before any port is claimed.
	ports []ServicePort
	// invalid is why the Gateway as a whole is not accepted, or nil. It is served
	// nevertheless, by its last valid parameters, unless refused, which is then the
	// same, says that it has none.
	invalid, refused *fault
	policies         *policyLevel
}

// newGateway returns a Gateway that is served by c. That is not its own class if
// lost, which says why it has none, is not nil.
func newGateway(obj *gwv1.Gateway, c *class, lost *fault, s *environment, configs gatewayConfigs) *gateway {
	g := &gateway{obj: obj, class: c, pooled: map[bool]netip.Addr{}}
	for i := range obj.Spec.Listeners {
		g.listeners = append(g.listeners, newListener(g, nil, &obj.Spec.Listeners[i]))
	}
	findConflicts(g.listeners)
	spec, invalid := findConfig(obj, configs)
	own := Parameters{UID: obj.UID, Class: string(obj.Spec.GatewayClassName), Addresses: obj.Spec.Addresses, Config: spec}
	own.ClientAddress = s.defaultClientAddress(obj, spec)
	if f := g.configure(own, s); invalid == nil {
		invalid = f
	}
	switch {
	case lost != nil:
		invalid = lost
	case !c.isServed():
		g.invalid = faultf(gwv1.GatewayReasonInvalid, "GatewayClass %s is not accepted: %s", c.obj.Name, c.refused.message)
		g.refused = g.invalid
		return g
	}
	if g.invalid = invalid; invalid == nil {
		return g
	}
	good, known := s.LastGood.of(obj)
	good.ClientAddress = own.ClientAddress
	if !known || g.configure(good, s) != nil {
		g.refused = invalid
		return g
	}
	g.invalid.message += goesOn
	return g
}

// configure has the Gateway be served by parameters, or returns why it cannot be.
func (g *gateway) configure(p Parameters, s *environment) *fault {
	g.parameters, g.addresses = p, newAddresses(p.Addresses)
	var err error
	if g.policy, err = newPolicy(p.Config); err != nil {
		return faultf(gwv1.GatewayReasonInvalidParameters, "%s.", err)
	}
	if g.policy.records == "" && s.Cluster == nil {
		g.policy.records = s.FlowRecords
	}
	var f *fault
	if s.Cluster != nil {
		g.source, f = g.policy.choose(g.class.config)
	} else if g.policy.source != "" {
		f = faultf(gwv1.GatewayReasonInvalidParameters,
			"The addressSource %s of the BlixtGatewayConfig needs a cluster: remove it.", g.policy.source)
	}
	if f == nil {
		f = g.addresses.unsupported
	}
	return f
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
	return accepted(g.invalid, g.listeners, g.obj.Generation, "The Gateway is valid.")
}

// isServed reports whether the Gateway is served: if it has a valid listener, and
// was ever valid itself.
func (g *gateway) isServed() bool {
	return g.refused == nil && len(invalid(g.listeners)) < len(g.listeners)
}

func (g *gateway) programmed(accepted metav1.Condition) metav1.Condition {
	generation := g.obj.Generation
	if accepted.Status == metav1.ConditionFalse {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, gwv1.GatewayReasonInvalid,
			generation, "The Gateway is not accepted: "+accepted.Message)
	}
	if f := g.addresses.fault(); f != nil {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, f.reason, generation, f.message)
	}
	if f := unservedFault(g.all()); f != nil {
		return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionFalse, f.reason, generation, "No listener is served. "+f.message)
	}
	return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionUnknown, gwv1.GatewayReasonPending,
		generation, waiting)
}

func (g *gateway) status(s *environment) GatewayStatus {
	status := GatewayStatus{NamespacedName: g.key(), Service: g.serviceSpec(s)}
	accepted := g.accepted()
	switch {
	// In a cluster, addresses stay assigned while listeners, or anything else, are
	// invalid: clients and DNS know them. Those of nodes are assigned to nobody.
	case g.isServed(), g.refused == nil && s.Cluster != nil && (g.source != v1alpha1.SourceNode || len(g.obj.Status.Addresses) > 0):
		var remark string
		status.Status.Addresses, remark = g.addresses.status(s)
		accepted.Message += remark + unservedRemark(g.listeners)
	case g.refused != nil && s.Cluster != nil:
		status.Status.Addresses = slices.Clone(g.obj.Status.Addresses)
	}
	status.Status.Conditions = []metav1.Condition{accepted, g.programmed(accepted)}
	if s.Cluster != nil {
		status.Status.Conditions = append(status.Status.Conditions, g.clientAddressPreserved())
	}
	status.Status.Conditions = append(status.Status.Conditions, affected(g.obj.Generation, g.policies)...)
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
