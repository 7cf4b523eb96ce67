// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// serving are labels of nodes that selectors of generated data planes match.
var serving = map[string]string{"serve": "yes"}

// generateCluster adds nodes, what was assigned to Services, and BlixtConfigs.
func (c *testCase) generateCluster(from *choices) {
	cluster := &gateway.Cluster{Assigned: map[types.NamespacedName]gateway.Assigned{}}
	addr := func() netip.Addr {
		return netip.MustParseAddr(pick(from, "192.0.2.1", "192.0.2.8", "2001:db8::1", "fd01::1", "127.0.0.1"))
	}
	for _, name := range []string{"n1", "n2"} {
		node := gateway.Node{Name: name, Labels: pick(from, serving, serving, serving, nil)}
		for range 1 + from.n(3) {
			node.Addresses = append(node.Addresses, addr())
		}
		cluster.Nodes = append(cluster.Nodes, node)
	}
	for range 6 {
		name := types.NamespacedName{Namespace: pick(from, "default", "prod"), Name: pick(from, "a", "b")}
		a := gateway.Assigned{Problem: pick(from, "", "", "no."), NodePorts: map[gateway.Port]uint16{
			{Protocol: lb.TCP, Port: 80}: 30080, {Protocol: lb.TCP, Port: 81}: pick[uint16](from, 30081, 30081, 82, 0)}}
		for range from.n(3) {
			a.Addresses = append(a.Addresses, addr())
		}
		if from.n(2) == 0 {
			a.Hostnames = []string{"lb.example.com"}
		}
		cluster.Assigned[name] = a
	}
	if from.n(2) == 0 {
		cluster.ReservedPorts = []gateway.ReservedRange{{First: 82, Last: 82}}
	}
	if from.n(3) == 0 {
		cluster.Capacity = lb.Capacity{Addresses: 6 + from.n(4), Frontends: 1 + from.n(12)}
	}
	for range from.n(3) {
		cluster.HostPorts = append(cluster.HostPorts, gateway.HostPort{Pod: pick(from, "a/b", "a/c"), Node: pick(from, "n1", "n2", "gone"),
			Address: pick(from, netip.Addr{}, netip.IPv6Unspecified(), addr()), Protocol: pick(from, lb.TCP, lb.UDP), Port: pick[uint16](from, 80, 81)})
	}
	c.Options.Cluster = cluster
	c.Objects.GatewayClasses[0].Spec.ParametersRef = maybe(from, gwv1.ParametersReference{
		Group: "blixt.x-k8s.io", Kind: "BlixtConfig", Name: pick(from, "x", "x", "x", "x", "x", "y", "absent")})
	for range 3 {
		c.Objects.Configs = append(c.Objects.Configs, from.config())
	}
}

func (c *choices) config() v1alpha1.BlixtConfig {
	config := v1alpha1.BlixtConfig{ObjectMeta: metav1.ObjectMeta{Name: pick(c, "x", "y")}}
	sources := []v1alpha1.AddressSource{v1alpha1.SourceNode, v1alpha1.SourcePool, v1alpha1.SourceLoadBalancer, ""}
	config.Spec.Addresses = v1alpha1.Addresses{
		Source: pick(c, sources...), AlsoSources: sources[:c.n(4)],
		AllowedPorts: [][]v1alpha1.ProtocolPorts{{{First: 1, Last: 65535}}, {{First: 1, Last: 65535}}, {{First: 80, Last: 80, Protocol: "TCP"}}, nil}[c.n(4)],
		Pool:         [][]string{{"192.0.2.8/30", "2001:db8::8-2001:db8::9"}, {"192.0.2.8"}, {"2001:db8::/64"}, {"192.0.2.1", "2001:db8::1"}, nil}[c.n(5)],
	}
	if c.n(2) == 0 {
		config.Spec.Addresses.Allowed = []v1alpha1.AllowedAddresses{{Addresses: []string{"192.0.2.0/29"},
			Namespaces: *orEmpty(c.selector())}}
	}
	config.Spec.Addresses.Shared = [][]string{{"192.0.2.1"}, {"192.0.2.8-192.0.2.9"}, nil, nil}[c.n(4)]
	for range c.n(3) {
		config.Spec.Quotas = append(config.Spec.Quotas, v1alpha1.Quota{
			Namespaces: *orEmpty(c.selector()), Frontends: maybe[int32](c, 0, 1, 2, 5), Addresses: maybe[int32](c, 0, 1, 2)})
	}
	config.Spec.Dataplane = rarely(c, v1alpha1.Dataplane{
		Nodes: metav1.LabelSelector{MatchLabels: pick(c, serving, nil)}, SNATPorts: v1alpha1.PortRange{First: 11000, Last: int32(12000 + c.n(2))}})
	return config
}

func orEmpty(s *metav1.LabelSelector) *metav1.LabelSelector {
	if s == nil {
		return &metav1.LabelSelector{}
	}
	return s
}

func (c *choices) gatewayConfig() v1alpha1.BlixtGatewayConfig {
	config := v1alpha1.BlixtGatewayConfig{ObjectMeta: c.meta("x", "y")}
	config.Spec = v1alpha1.BlixtGatewayConfigSpec{
		ExternalTrafficPolicy: pick(c, v1alpha1.TrafficPolicyLocal, v1alpha1.TrafficPolicyLocal, v1alpha1.TrafficPolicyCluster, ""),
		IdleTimeouts:          v1alpha1.IdleTimeouts{TCP: maybe(c, metav1.Duration{Duration: time.Minute}, metav1.Duration{Duration: -time.Minute})},
		AddressSource:         pick(c, "", "", v1alpha1.SourceNode, v1alpha1.SourcePool),
	}
	return config
}

func (c *choices) listenerSet() gwv1.ListenerSet {
	set := gwv1.ListenerSet{ObjectMeta: c.meta("a", "b")}
	set.Spec.ParentRef = gwv1.ParentGatewayReference{
		Kind: rarely[gwv1.Kind](c, "Gateway", "Service"),
		Name: pick[gwv1.ObjectName](c, "a", "a", "b", "b", "absent"), Namespace: rarely[gwv1.Namespace](c, "default", "prod"),
	}
	for i := range c.n(4) {
		set.Spec.Listeners = append(set.Spec.Listeners, gwv1.ListenerEntry(c.listener(i)))
	}
	return set
}

// stored is a stored Programmed condition.
func (c *choices) stored() []metav1.Condition {
	one := maybe(c, metav1.Condition{Type: "Programmed", Status: pick(c, metav1.ConditionTrue, metav1.ConditionFalse, metav1.ConditionUnknown),
		Reason: pick(c, "Programmed", "Pending", "NoResources", "AddressNotUsable"), ObservedGeneration: int64(c.n(5)), Message: "of before"})
	if one == nil {
		return nil
	}
	return []metav1.Condition{*one}
}

func (c *choices) progress() gateway.Progress {
	p := gateway.Progress{Nodes: c.n(4), Why: pick(c, "", "why")}
	for i := range p.Nodes {
		switch name := string(rune('a' + i)); c.n(3) {
		case 0:
			p.Missing = append(p.Missing, name)
		case 1:
			p.Unheard = append(p.Unheard, name)
		}
	}
	return p
}

// unique drops objects that the API server could not have: further ones of the
// same kind and name.
func (c *testCase) unique() {
	o := &c.Objects
	o.GatewayClasses = firsts(o.GatewayClasses)
	o.Gateways = firsts(o.Gateways)
	o.ListenerSets = firsts(o.ListenerSets)
	o.TCPRoutes = firsts(o.TCPRoutes)
	o.UDPRoutes = firsts(o.UDPRoutes)
	o.Services = firsts(o.Services)
	o.Configs = firsts(o.Configs)
	o.GatewayConfigs = firsts(o.GatewayConfigs)
	o.Policies = firsts(o.Policies)
}

func firsts[T any, P interface {
	*T
	metav1.Object
}](objects []T) []T {
	seen := map[types.NamespacedName]bool{}
	return slices.DeleteFunc(objects, func(object T) bool {
		name := types.NamespacedName{Namespace: P(&object).GetNamespace(), Name: P(&object).GetName()}
		again := seen[name]
		seen[name] = true
		return again
	})
}
