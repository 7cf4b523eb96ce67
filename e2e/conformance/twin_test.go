// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/kubernetes"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

func infra(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: suite.InfrastructureNamespace, Name: name}
}

// is returns a condition. The reason "" stands for any.
func is[R ~string](kind string, status metav1.ConditionStatus, reason R) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: string(reason)}
}

// listener returns the status of a listener. kinds are the routes that it accepts.
func listener(name gwv1.SectionName, kinds []gwv1.Kind, attached int32, conditions ...metav1.Condition) gwv1.ListenerStatus {
	group := gwv1.Group(gwv1.GroupName)
	status := gwv1.ListenerStatus{Name: name, SupportedKinds: []gwv1.RouteGroupKind{}, AttachedRoutes: attached, Conditions: conditions}
	for _, kind := range kinds {
		status.SupportedKinds = append(status.SupportedKinds, gwv1.RouteGroupKind{Group: &group, Kind: kind})
	}
	return status
}

// valid returns the status of a valid listener.
func (p protocol) valid(name gwv1.SectionName, attached int32) gwv1.ListenerStatus {
	return listener(name, []gwv1.Kind{p.route}, attached, is("Accepted", metav1.ConditionTrue, ""), is("ResolvedRefs", metav1.ConditionTrue, ""))
}

// change patches a Gateway, and waits until its conditions are about the new
// generation.
func change(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName, f func(*gwv1.GatewaySpec)) {
	t.Helper()
	before := &gwv1.Gateway{}
	if err := s.Client.Get(t.Context(), name, before); err != nil {
		t.Fatal(err)
	}
	after := before.DeepCopy()
	f(&after.Spec)
	if err := s.Client.Patch(t.Context(), after, client.MergeFrom(before)); err != nil {
		t.Fatal(err)
	}
	if after.Generation == before.Generation {
		t.Errorf("Gateway %s has generation %d still", name, after.Generation)
	}
	kubernetes.GatewayMustHaveLatestConditions(t, s.Client, s.TimeoutConfig, name)
}

func (p protocol) invalidRouteKind(t *testing.T, s *suite.ConformanceTestSuite) {
	invalid := is("ResolvedRefs", metav1.ConditionFalse, gwv1.ListenerReasonInvalidRouteKinds)
	kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, infra("twin-only-invalid-kind"),
		[]gwv1.ListenerStatus{listener("l4", nil, 0, invalid)})
	kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, infra("twin-valid-and-invalid-kind"),
		[]gwv1.ListenerStatus{listener("l4", []gwv1.Kind{p.route}, 0, invalid)})
}

func (p protocol) unsupportedProtocol(t *testing.T, s *suite.ConformanceTestSuite) {
	refused := listener("invalid", nil, 0, is("Accepted", metav1.ConditionFalse, gwv1.ListenerReasonUnsupportedProtocol))
	for name, want := range map[string]struct {
		accepted  metav1.ConditionStatus
		listeners []gwv1.ListenerStatus
	}{
		"twin-only-unsupported":          {metav1.ConditionFalse, []gwv1.ListenerStatus{refused}},
		"twin-supported-and-unsupported": {metav1.ConditionTrue, []gwv1.ListenerStatus{p.valid("l4", 0), refused}},
	} {
		kubernetes.GatewayMustHaveLatestConditions(t, s.Client, s.TimeoutConfig, infra(name))
		kubernetes.GatewayMustHaveCondition(t, s.Client, s.TimeoutConfig, infra(name), is("Accepted", want.accepted, gwv1.GatewayReasonListenersNotValid))
		kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, infra(name), want.listeners)
	}
}

// modifyListeners also sends to the listeners, which the suite's test does not.
func (p protocol) modifyListeners(t *testing.T, s *suite.ConformanceTestSuite) {
	gw := infra("twin-modify-listeners")
	first := p.accepted(t, s, gw, "first")
	p.serves(t, s, first)
	change(t, s, gw, func(spec *gwv1.GatewaySpec) {
		second := spec.Listeners[0]
		second.Name, second.Port = "second", 9401
		spec.Listeners = append(spec.Listeners, second)
	})
	kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, gw, []gwv1.ListenerStatus{p.valid("first", 1), p.valid("second", 1)})
	second := p.accepted(t, s, gw, "second")
	p.serves(t, s, second)
	change(t, s, gw, func(spec *gwv1.GatewaySpec) { spec.Listeners = spec.Listeners[1:] })
	kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, gw, []gwv1.ListenerStatus{p.valid("second", 1)})
	p.refuses(t, s, first)
	p.serves(t, s, second)
}

func (p protocol) observedGeneration(t *testing.T, s *suite.ConformanceTestSuite) {
	gw := infra("twin-observed-generation")
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{gw.Namespace})
	kubernetes.GatewayMustHaveLatestConditions(t, s.Client, s.TimeoutConfig, gw)
	change(t, s, gw, func(spec *gwv1.GatewaySpec) {
		alternate := spec.Listeners[0]
		alternate.Name, alternate.Port = "alternate", 9401
		spec.Listeners = append(spec.Listeners, alternate)
	})
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{gw.Namespace})
}

func (p protocol) staticAddresses(t *testing.T, s *suite.ConformanceTestSuite) {
	gw := infra("twin-static-addresses")
	must := func(kind string, status metav1.ConditionStatus, reason gwv1.GatewayConditionReason) {
		t.Helper()
		kubernetes.GatewayMustHaveCondition(t, s.Client, s.TimeoutConfig, gw, is(kind, status, reason))
	}
	kubernetes.GatewayMustHaveLatestConditions(t, s.Client, s.TimeoutConfig, gw)
	must("Accepted", metav1.ConditionFalse, gwv1.GatewayReasonUnsupportedAddress)
	removeFirst := func(spec *gwv1.GatewaySpec) { spec.Addresses = spec.Addresses[1:] }
	change(t, s, gw, removeFirst) // which is of no type
	must("Accepted", metav1.ConditionTrue, gwv1.GatewayReasonAccepted)
	must("Programmed", metav1.ConditionFalse, gwv1.GatewayReasonAddressNotUsable)
	change(t, s, gw, removeFirst) // which is not usable
	must("Accepted", metav1.ConditionTrue, gwv1.GatewayReasonAccepted)
	must("Programmed", metav1.ConditionTrue, gwv1.GatewayReasonProgrammed)
	kubernetes.GatewayStatusMustHaveListeners(t, s.Client, s.TimeoutConfig, gw, []gwv1.ListenerStatus{p.valid("l4", 0)})
	var got gwv1.Gateway
	if err := s.Client.Get(t.Context(), gw, &got); err != nil {
		t.Fatal(err)
	}
	kind := gwv1.IPAddressType
	if diff := cmp.Diff([]gwv1.GatewayStatusAddress{{Type: &kind, Value: usable}}, got.Status.Addresses); diff != "" {
		t.Errorf("addresses of the Gateway (-want +got):\n%s", diff)
	}
}

func (p protocol) notAllowed(t *testing.T, s *suite.ConformanceTestSuite) {
	gw := infra("twin-other-protocol")
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{gw.Namespace})
	p.routeHas(t, s, gw.Name, gw, is("Accepted", metav1.ConditionFalse, gwv1.RouteReasonNotAllowedByListeners))
	kubernetes.GatewayMustHaveZeroRoutes(t, s.Client, s.TimeoutConfig, gw)
}

// referenceGrants tests with backends what the suite tests with certificates.
func (p protocol) referenceGrants(t *testing.T, s *suite.ConformanceTestSuite) {
	gw := infra("twin-reference-grants")
	kubernetes.NamespacesMustBeReady(t, s.Client, s.TimeoutConfig, []string{gw.Namespace})
	for route, resolved := range map[string]metav1.Condition{
		"twin-granted-by-name":      is("ResolvedRefs", metav1.ConditionTrue, gwv1.RouteReasonResolvedRefs),
		"twin-granted-by-namespace": is("ResolvedRefs", metav1.ConditionTrue, gwv1.RouteReasonResolvedRefs),
		"twin-not-granted":          is("ResolvedRefs", metav1.ConditionFalse, gwv1.RouteReasonRefNotPermitted),
	} {
		p.routeHas(t, s, route, gw, is("Accepted", metav1.ConditionTrue, gwv1.RouteReasonAccepted))
		p.routeHas(t, s, route, gw, resolved)
	}
}

func (p protocol) routeHas(t *testing.T, s *suite.ConformanceTestSuite, route string, gw types.NamespacedName, condition metav1.Condition) {
	t.Helper()
	wait := kubernetes.TCPRouteMustHaveCondition
	if p.name == gwv1.UDPProtocolType {
		wait = kubernetes.UDPRouteMustHaveCondition
	}
	wait(t, s.Client, s.TimeoutConfig, infra(route), gw, condition)
}
