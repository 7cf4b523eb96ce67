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

// Endpoints holds the EndpointSlices of each Service.
type Endpoints map[types.NamespacedName][]discoveryv1.EndpointSlice

// IndexEndpoints groups EndpointSlices by the Service that their label
// kubernetes.io/service-name names. Those without the label are left out.
func IndexEndpoints(endpointSlices []discoveryv1.EndpointSlice) Endpoints {
	index := Endpoints{}
	for _, s := range endpointSlices {
		if service := s.Labels[discoveryv1.LabelServiceName]; service != "" {
			key := types.NamespacedName{Namespace: s.Namespace, Name: service}
			index[key] = append(index[key], s)
		}
	}
	return index
}

// readiness is what an endpoint can do, from least to most.
type readiness int

const (
	draining readiness = iota // keeps its flows, gets no new ones
	leaving                   // terminating, but still serving: the last resort
	ready
)

// readinessOf follows the meaning of the conditions when absent. An explicit
// ready outweighs not serving: that is what publishNotReadyAddresses gives.
func readinessOf(c discoveryv1.EndpointConditions) readiness {
	serving := deref(c.Serving, true)
	switch {
	case deref(c.Terminating, false) && serving:
		return leaving
	case deref(c.Terminating, false):
		return draining
	case deref(c.Ready, serving):
		return ready
	}
	return draining
}

// endpoint is an address and port of a Service, once however many
// EndpointSlices list it.
type endpoint struct {
	addr  netip.AddrPort
	state readiness
	local bool
}

// find returns the endpoints of the Service's port, sorted, in the family of
// the frontend: an IPv4 frontend has IPv4 backends.
func (e Endpoints) find(ref Ref, key lb.Key, o ResolveOptions) (found []endpoint, problems []Problem) {
	family := discoveryv1.AddressTypeIPv4
	if key.Addr.Is6() {
		family = discoveryv1.AddressTypeIPv6
	}
	for i := range e[ref.Service] {
		s := &e[ref.Service][i]
		if s.AddressType != family {
			continue
		}
		for _, number := range portsOf(s, ref.PortName, key.Protocol) {
			for _, ep := range s.Endpoints {
				addr, why := backendAddr(ep, key.Addr.Is6())
				if why != "" {
					problems = append(problems, Problem{Object: named("EndpointSlice", s.Namespace, s.Name), Message: why})
					continue
				}
				found = append(found, endpoint{
					addr: netip.AddrPortFrom(addr, number), state: readinessOf(ep.Conditions),
					local: o.isLocal(addr, deref(ep.NodeName, "")),
				})
			}
		}
	}
	return unique(found), problems
}

// portsOf returns the numbers of the slice's port of that name. A slice that
// names none means all ports, which is no place to send a connection to.
func portsOf(s *discoveryv1.EndpointSlice, name string, protocol lb.Protocol) (numbers []uint16) {
	for _, p := range s.Ports {
		if deref(p.Name, "") == name && string(deref(p.Protocol, corev1.ProtocolTCP)) == protocol.String() &&
			p.Port != nil && 0 < *p.Port && *p.Port <= 65535 {
			numbers = append(numbers, uint16(*p.Port))
		}
	}
	return numbers
}

// backendAddr returns the endpoint's address, the first of those it lists (all
// mean the same endpoint), or why there can be no backend.
func backendAddr(ep discoveryv1.Endpoint, v6 bool) (netip.Addr, string) {
	if len(ep.Addresses) == 0 {
		return netip.Addr{}, "An endpoint has no address."
	}
	addr, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil || addr.Is6() != v6 {
		return addr, fmt.Sprintf("Endpoint %s is left out: it is not an address of the slice's addressType.", ep.Addresses[0])
	}
	if why := unfit(addr); why != "" {
		return addr, fmt.Sprintf("Endpoint %s is left out: %s.", addr, why)
	}
	return addr, ""
}

// unique sorts, and takes the best that is said of an endpoint: while one
// moves between slices, both list it, and the slices' order means nothing.
func unique(found []endpoint) []endpoint {
	slices.SortFunc(found, func(a, b endpoint) int {
		return cmp.Or(a.addr.Compare(b.addr), cmp.Compare(b.state, a.state))
	})
	var last int
	for i := range found {
		if i > 0 && found[last].addr == found[i].addr {
			found[last].local = found[last].local || found[i].local
			continue
		}
		if i > 0 {
			last++
		}
		found[last] = found[i]
	}
	return found[:min(last+1, len(found))]
}
