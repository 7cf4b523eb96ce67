// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Endpoints are those of all Services. They are plain data: equal
// EndpointSlices in any order give equal Endpoints.
type Endpoints map[types.NamespacedName]ServiceEndpoints

// ServiceEndpoints are the endpoints of one Service.
type ServiceEndpoints struct {
	// Ports are sorted by name and protocol.
	Ports []EndpointPort
	// Problems name endpoints that are left out, and why: the first ones in order.
	Problems []Problem
	// MoreProblems is how many are not among Problems.
	MoreProblems int
}

// maxProblems is how many problems of a Service are kept. A tenant can cause any
// number of them, and every route to the Service reads them.
const maxProblems = 32

// EndpointPort is a port of a Service, by the name that its EndpointSlices
// have, too.
type EndpointPort struct {
	Name     string
	Protocol lb.Protocol
	// Endpoints of both families, sorted by address, without duplicates.
	Endpoints []Endpoint
}

// Endpoint is one address and port behind a Service.
type Endpoint struct {
	Addr  netip.AddrPort
	State Readiness
	// Node is the name of the endpoint's node, if known.
	Node string
	// Zones and Nodes are the topology hints: where the endpoint should get its
	// traffic from.
	Zones, Nodes []string
}

// Readiness is what an endpoint can do, in ascending order.
type Readiness int

// The values of Readiness.
const (
	NotServing Readiness = iota - 1 // as Draining, but its UDP flows move to endpoints that serve
	Draining                        // keeps its flows, gets no new ones: not ready
	Leaving                         // terminating, but serving: gets new flows if no endpoint is Ready
	Ready
)

// IndexEndpoints returns the endpoints of all Services. It ignores
// EndpointSlices without the label kubernetes.io/service-name, which names the
// Service.
func IndexEndpoints(endpointSlices []discoveryv1.EndpointSlice, policy *EndpointPolicy) Endpoints {
	groups := make(map[types.NamespacedName][]*discoveryv1.EndpointSlice, len(endpointSlices))
	for i := range endpointSlices {
		s := &endpointSlices[i]
		if service := s.Labels[discoveryv1.LabelServiceName]; service != "" {
			key := types.NamespacedName{Namespace: s.Namespace, Name: service}
			groups[key] = append(groups[key], s)
		}
	}
	index := make(Endpoints, len(groups))
	for service, group := range groups {
		index[service] = newServiceEndpoints(group, policy)
	}
	return index
}

// NewServiceEndpoints returns the endpoints of one Service from all its
// EndpointSlices. It leaves out those that the policy refuses.
func NewServiceEndpoints(endpointSlices []discoveryv1.EndpointSlice, policy *EndpointPolicy) ServiceEndpoints {
	all := make([]*discoveryv1.EndpointSlice, len(endpointSlices))
	for i := range endpointSlices {
		all[i] = &endpointSlices[i]
	}
	return newServiceEndpoints(all, policy)
}

func newServiceEndpoints(endpointSlices []*discoveryv1.EndpointSlice, policy *EndpointPolicy) ServiceEndpoints {
	type port struct {
		name     string
		protocol lb.Protocol
	}
	var service ServiceEndpoints
	ports := map[port][]Endpoint{}
	for _, s := range endpointSlices {
		if s.AddressType != discoveryv1.AddressTypeIPv4 && s.AddressType != discoveryv1.AddressTypeIPv6 {
			service.Problems = append(service.Problems, Problem{Object: named("EndpointSlice", s.Namespace, s.Name),
				Message: fmt.Sprintf("Its endpoints are left out: addressType %s is not supported. Use IPv4 or IPv6.", s.AddressType)})
			continue
		}
		endpoints, problems := endpointsOf(s, policy)
		service.Problems = append(service.Problems, problems...)
		for _, p := range s.Ports {
			protocol, ok := protocols[deref(p.Protocol, corev1.ProtocolTCP)]
			// A slice without a port number means all ports: nothing to connect
			// to.
			if !ok || p.Port == nil || *p.Port < 1 || *p.Port > 65535 {
				continue
			}
			key := port{deref(p.Name, ""), protocol}
			ports[key] = slices.Grow(ports[key], len(endpoints))
			for _, e := range endpoints {
				e.Addr = netip.AddrPortFrom(e.Addr.Addr(), uint16(*p.Port))
				ports[key] = append(ports[key], e)
			}
		}
	}
	for key, endpoints := range ports {
		service.Ports = append(service.Ports, EndpointPort{key.name, key.protocol, unique(endpoints)})
	}
	slices.SortFunc(service.Ports, func(a, b EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol))
	})
	slices.SortFunc(service.Problems, Problem.compare)
	service.Problems = slices.Compact(service.Problems)
	if more := len(service.Problems) - maxProblems; more > 0 {
		service.Problems, service.MoreProblems = slices.Clone(service.Problems[:maxProblems]), more
	}
	return service
}

var protocols = map[corev1.Protocol]lb.Protocol{corev1.ProtocolTCP: lb.TCP, corev1.ProtocolUDP: lb.UDP}

// endpointsOf returns the endpoints of a slice, with port 0.
func endpointsOf(s *discoveryv1.EndpointSlice, policy *EndpointPolicy) (all []Endpoint, problems []Problem) {
	all = make([]Endpoint, 0, len(s.Endpoints))
	for _, ep := range s.Endpoints {
		addr, why := backendAddr(ep, s.AddressType == discoveryv1.AddressTypeIPv6)
		if why == "" {
			if refused := policy.refuses(s.Namespace, addr); refused != "" {
				why = fmt.Sprintf("Endpoint %s is left out: %s.", addr, refused)
			}
		}
		if why != "" {
			problems = append(problems, Problem{Object: named("EndpointSlice", s.Namespace, s.Name), Message: why})
			continue
		}
		e := Endpoint{Addr: netip.AddrPortFrom(addr, 0), State: readinessOf(ep.Conditions), Node: policy.nodeOf(addr, deref(ep.NodeName, ""))}
		if ep.Hints != nil {
			for _, zone := range ep.Hints.ForZones {
				e.Zones = append(e.Zones, zone.Name)
			}
			for _, node := range ep.Hints.ForNodes {
				e.Nodes = append(e.Nodes, node.Name)
			}
		}
		all = append(all, e)
	}
	return all, problems
}

// readinessOf reads conditions as kube-proxy does. Ready outweighs the others: all
// endpoints of a Service with publishNotReadyAddresses are ready, also those that
// terminate or do not serve.
func readinessOf(c discoveryv1.EndpointConditions) Readiness {
	serving := deref(c.Serving, true)
	switch {
	case deref(c.Ready, true):
		return Ready
	case serving && deref(c.Terminating, false):
		return Leaving
	case serving:
		return Draining
	}
	return NotServing
}

// backendAddr returns the first address of the endpoint (all of them mean the
// same endpoint), or why it cannot be a backend.
func backendAddr(ep discoveryv1.Endpoint, v6 bool) (netip.Addr, string) {
	if len(ep.Addresses) == 0 {
		return netip.Addr{}, "An endpoint has no address."
	}
	addr, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || addr.Is6() != v6 {
		return addr, fmt.Sprintf("Endpoint %s is left out: it is not an address of the slice's addressType.", ep.Addresses[0])
	}
	if why := InvalidAddress(addr); why != "" {
		return addr, fmt.Sprintf("Endpoint %s is left out: %s.", addr, why)
	}
	return addr, ""
}

// unique sorts the endpoints and keeps the best entry of each address: while an
// endpoint moves between slices, both list it, and the order of slices means
// nothing.
func unique(found []Endpoint) []Endpoint {
	slices.SortFunc(found, func(a, b Endpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(b.State, a.State), cmp.Compare(b.Node, a.Node),
			slices.Compare(b.Zones, a.Zones), slices.Compare(b.Nodes, a.Nodes))
	})
	return slices.CompactFunc(found, func(a, b Endpoint) bool { return a.Addr == b.Addr })
}

// of returns the endpoints of a port that are of the frontend's family: an IPv4
// frontend has IPv4 backends.
func (s ServiceEndpoints) of(port string, key lb.Key) []Endpoint {
	for _, p := range s.Ports {
		if p.Name != port || p.Protocol != key.Protocol {
			continue
		}
		// IPv4 addresses come first.
		n, _ := slices.BinarySearchFunc(p.Endpoints, true, func(e Endpoint, _ bool) int {
			if e.Addr.Addr().Is6() {
				return 0
			}
			return -1
		})
		if key.Addr.Is6() {
			return p.Endpoints[n:]
		}
		return p.Endpoints[:n]
	}
	return nil
}
