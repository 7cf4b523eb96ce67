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
	// Ports are those of all valid listeners, ListenerSets' included, sorted. With
	// source LoadBalancer, listeners whose port the address lacks are among them.
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
	if g.source != v1alpha1.SourceLoadBalancer {
		p.Ports = g.findPorts()
	}
	if g.source == v1alpha1.SourceNode {
		p.Ports = slices.DeleteFunc(p.Ports, func(port ServicePort) bool { return slices.Contains(s.Cluster.HostListens, port.Port) })
	}
	if infra := g.obj.Spec.Infrastructure; infra != nil {
		p.Labels, p.Annotations = stringMap(infra.Labels), stringMap(infra.Annotations)
	}
	return p
}

// findPorts returns the ports of the valid listeners. What claims refuse is among
// them if a load balancer assigns the addresses: these are not known before. If
// ports came and went with addresses, a Service and its address could change each
// other forever. At addresses of nodes, kube-proxy would take from a node a port that
// is refused, and one at which the node listens.
func (g *gateway) findPorts() (ports []ServicePort) {
	for _, l := range g.all() {
		if l.fault() == nil {
			port := Port{l.protocol, uint16(l.spec.Port)}
			name := strings.ToLower(fmt.Sprintf("%s-%d", port.Protocol, port.Port))
			ports = append(ports, ServicePort{name, port})
		}
	}
	slices.SortFunc(ports, func(a, b ServicePort) int {
		return cmp.Or(cmp.Compare(a.Port.Port, b.Port.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return ports
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
