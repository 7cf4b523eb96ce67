// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// waiting is what Programmed says until the data plane was heard.
const waiting = "Waiting for the data plane to report what it serves."

// gateway is a Gateway of one of Blixt's classes.
type gateway struct {
	obj       *gwv1.Gateway
	addresses addresses
	listeners []*listener
	// refused keeps the Gateway from being served at all.
	refused *fault
}

func newGateway(obj *gwv1.Gateway, c *class, o *Options) *gateway {
	g := &gateway{obj: obj, addresses: findAddresses(obj, o)}
	for i := range obj.Spec.Listeners {
		g.listeners = append(g.listeners, newListener(g, &obj.Spec.Listeners[i]))
	}
	findConflicts(g.listeners)
	switch infra := obj.Spec.Infrastructure; {
	case c.refused != nil:
		g.refused = faultf(gwv1.GatewayReasonInvalid, "GatewayClass %s is not accepted: %s", c.obj.Name, c.refused.message)
	case infra != nil && infra.ParametersRef != nil:
		g.refused = faultf(gwv1.GatewayReasonInvalidParameters,
			"spec.infrastructure.parametersRef names %s, a kind that Blixt takes no parameters from: remove parametersRef.",
			named(string(infra.ParametersRef.Kind), obj.Namespace, infra.ParametersRef.Name))
	case g.addresses.unsupported != nil:
		g.refused = g.addresses.unsupported
	}
	return g
}

func (g *gateway) name() string { return named("Gateway", g.obj.Namespace, g.obj.Name) }

// invalidListeners returns the names of those that are not accepted.
func (g *gateway) invalidListeners() []string {
	var names []string
	for _, l := range g.listeners {
		if l.fault() != nil {
			names = append(names, string(l.spec.Name))
		}
	}
	return names
}

// accepted is False only if nothing of the Gateway can be served.
func (g *gateway) accepted() metav1.Condition {
	invalid, generation := g.invalidListeners(), g.obj.Generation
	f := g.refused
	switch {
	case f != nil:
	case len(invalid) == len(g.listeners):
		f = faultf(gwv1.GatewayReasonListenersNotValid, "No listener is valid: see the conditions of each.")
	case len(invalid) > 0:
		return condition(gwv1.GatewayConditionAccepted, metav1.ConditionTrue, gwv1.GatewayReasonListenersNotValid,
			generation, fmt.Sprintf("Not valid: %s (see the conditions there). The others are.", plural("listener", invalid)))
	}
	return verdict(gwv1.GatewayConditionAccepted, f, gwv1.GatewayReasonAccepted, generation, "The Gateway is valid.")
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
	return condition(gwv1.GatewayConditionProgrammed, metav1.ConditionUnknown, gwv1.GatewayReasonPending,
		generation, waiting)
}

func (g *gateway) status() GatewayStatus {
	status := GatewayStatus{NamespacedName: types.NamespacedName{Namespace: g.obj.Namespace, Name: g.obj.Name}}
	accepted := g.accepted()
	status.Status.Conditions = []metav1.Condition{accepted, g.programmed(accepted)}
	if accepted.Status == metav1.ConditionTrue {
		for _, addr := range g.addresses.usable {
			kind := gwv1.IPAddressType
			status.Status.Addresses = append(status.Status.Addresses,
				gwv1.GatewayStatusAddress{Type: &kind, Value: addr.String()})
		}
	}
	for _, l := range g.listeners {
		status.Status.Listeners = append(status.Status.Listeners, l.status())
	}
	return status
}
