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

// ServiceSpec is what a Gateway of a cluster needs besides its status: the Service
// that stands for it is made from it.
type ServiceSpec struct {
	Source v1alpha1.AddressSource
	// WantAddresses are those that spec.addresses names. Empty: any will do.
	WantAddresses []netip.Addr
	// Ports are those of all valid listeners, ListenerSets' included, sorted.
	// Without any, no Service can be made, but one that is there should stay:
	// it has the address.
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
	// stays the same as long as protocol and port do.
	Name string
	Port
}

// serviceSpec returns nil for a Gateway that is refused as a whole.
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

// findPorts is called before addresses are known: if a port came and went with
// who has which address, a Service and its address could chase each other.
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
