// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// ServiceSpec is what the Service of a Gateway is made from, in a cluster.
type ServiceSpec struct {
	Source v1alpha1.AddressSource
	// WantAddresses are those that spec.addresses names. Empty: any.
	WantAddresses []netip.Addr
	// Ports are those of all valid listeners, ListenerSets' included, sorted.
	// If there are none, no Service can be created, but an existing one should
	// stay: it holds the address.
	Ports []ServicePort
	// Labels and Annotations are those of spec.infrastructure.
	Labels, Annotations map[string]string
	TrafficPolicy       v1alpha1.TrafficPolicy
	PodTraffic          v1alpha1.PodTraffic
	LoadBalancerClass   *string
}

// ServicePort is a port of a Gateway's Service.
type ServicePort struct {
	// Name is unique among the ports, a DNS label of at most 63 characters, and
	// depends on protocol and port alone.
	Name string
	Port
}

// serviceSpec returns nil for a Gateway that is refused as a whole, or without
// a cluster.
func (g *gateway) serviceSpec(s *environment) *ServiceSpec {
	if g.source == "" || g.refused != nil {
		return nil
	}
	p := &ServiceSpec{
		Source: g.source, WantAddresses: g.addresses.named, Ports: g.ports,
		TrafficPolicy: g.policy.traffic, PodTraffic: g.class.config.podTraffic(g.source, g.policy.traffic, s.Cluster.ProxyMode),
		LoadBalancerClass: g.class.config.loadBalancerClass(),
	}
	if infra := g.obj.Spec.Infrastructure; infra != nil {
		p.Labels, p.Annotations = stringMap(infra.Labels), stringMap(infra.Annotations)
	}
	return p
}

// findPorts must not depend on addresses, and is called before they are known:
// if ports came and went with the addresses that a Gateway has, a Service and
// its address could change each other forever.
func (g *gateway) findPorts() {
	for _, l := range g.all() {
		if l.fault() == nil {
			port := Port{l.protocol, uint16(l.spec.Port)}
			name := strings.ToLower(fmt.Sprintf("%s-%d", port.Protocol, port.Port))
			g.ports = append(g.ports, ServicePort{name, port})
		}
	}
	slices.SortFunc(g.ports, func(a, b ServicePort) int {
		return cmp.Or(cmp.Compare(a.Port.Port, b.Port.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
}

func stringMap[K, V ~string](m map[K]V) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k, v := range m {
		out[string(k)] = string(v)
	}
	return out
}
