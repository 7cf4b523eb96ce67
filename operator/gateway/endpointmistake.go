// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// ReasonLoop is the reason of the mistake that an endpoint is a frontend.
const ReasonLoop = "Loop"

// ReasonNoEndpointPort is the reason of the mistake that no EndpointSlice of a Service has
// the port that a route names.
const ReasonNoEndpointPort = "NoEndpointPort"

// ReasonNoEndpointSlice is the reason of the mistake that a route names a Service of
// which there is no EndpointSlice, though there may be soon.
const ReasonNoEndpointSlice = "NoEndpointSlice"

// EndpointMistakes returns the mistakes of EndpointSlices, and of the Services that
// frontends name, as far as they are about endpoints. e is the index of the slices.
func (t *Translation) EndpointMistakes(services []corev1.Service, endpointSlices []discoveryv1.EndpointSlice, e Endpoints) []Mistake {
	var all []Mistake
	exists := newServiceIndex(services)
	slicesOf := make(map[types.NamespacedName][]*discoveryv1.EndpointSlice, len(endpointSlices))
	for i := range endpointSlices {
		s := &endpointSlices[i]
		service := types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
		slicesOf[service] = append(slicesOf[service], s)
		if exists.byName[service] == nil {
			m := endpointMistake(named("EndpointSlice", s.Namespace, s.Name), "Orphan", fmt.Sprintf(
				"Nothing uses its endpoints, as Service %s does not exist: create it, or correct the label %s.", service, discoveryv1.LabelServiceName))
			m.Mild = true
			all = append(all, m)
		}
	}
	for _, service := range e {
		for _, p := range service.Problems {
			all = append(all, endpointMistake(p.Object, p.Message, p.Message))
		}
	}
	keys, seen := make(map[lb.Key]string, len(t.Frontends)), make(map[readyKey]bool, len(t.Frontends))
	for i := range t.Frontends {
		keys[t.Frontends[i].Key] = t.Frontends[i].Gateway
	}
	exclusive := map[netip.Addr]bool{}
	for _, a := range t.Addresses {
		exclusive[a.IP] = a.Exclusive
	}
	for i := range t.Frontends {
		f := &t.Frontends[i]
		for _, ref := range f.Refs {
			key := readyKey{ref.Service, ref.PortName, f.Protocol, f.Addr.Is6()}
			if seen[key] {
				continue
			}
			seen[key] = true
			route := func() string { return strings.Replace(f.Route, "/", " ", 1) }
			// causes returns the Service's EndpointSlices, and another object.
			causes := func(other string) (names []string) {
				for _, s := range slicesOf[ref.Service] {
					names = append(names, named("EndpointSlice", s.Namespace, s.Name))
				}
				return append(names, other)
			}
			subject := func() string { return named("Service", ref.Service.Namespace, ref.Service.Name) }
			if slicesOf[ref.Service] == nil {
				m := endpointMistake(route(), ReasonNoEndpointSlice, fmt.Sprintf(
					"Service %s has no EndpointSlice: create one, with the label %s: %s.", ref.Service, discoveryv1.LabelServiceName, ref.Service.Name),
					subject())
				m.Mild = true
				all = append(all, m)
			}
			of := e[ref.Service]
			if !of.has(ref.PortName, f.Protocol) {
				if has := of.ports(); len(has) > 0 {
					all = append(all, endpointMistake(subject(), ReasonNoEndpointPort, fmt.Sprintf(
						"Its %s port %q leads to no endpoint: none of its EndpointSlices has a %s port of that name, they have %s. Its share of new connections is refused.",
						f.Protocol, ref.PortName, f.Protocol, phrase.Sample(has)), causes(route())...))
				}
			}
			for _, endpoint := range of.of(ref.PortName, f.Key) {
				frontend := keyOf(endpoint.Addr, f.Protocol)
				gw, is := keys[frontend]
				if !is && !exclusive[frontend.Addr] {
					continue
				}
				p := loopProblem(ref.Service, frontend)
				if !is {
					gw = f.Gateway
					for key, other := range keys {
						if key.Addr == frontend.Addr && other < gw {
							gw = other
						}
					}
					p.Message = fmt.Sprintf("Endpoint %s is at an address of Gateway %s: no server can be there.", frontend, gw)
				}
				all = append(all, endpointMistake(subject(), ReasonLoop, p.Message, causes("Gateway "+gw)...))
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Mistake) int { return a.compare(b) })
	return slices.CompactFunc(all, func(a, b Mistake) bool { return a.Problem == b.Problem })
}

func endpointMistake(subject, reason, message string, causes ...string) Mistake {
	return Mistake{Problem: Problem{Object: subject, Message: message}, Subject: subject, Causes: causes, Reason: reason}
}

// ports returns the words for the ports at which a Service has endpoints.
func (s ServiceEndpoints) ports() []string {
	var words []string
	for _, p := range s.Ports {
		if len(p.Endpoints) > 0 {
			words = append(words, fmt.Sprintf("%q (%s)", p.Name, p.Protocol))
		}
	}
	return words
}

func (s ServiceEndpoints) has(name string, protocol lb.Protocol) bool {
	return slices.ContainsFunc(s.Ports, func(p EndpointPort) bool {
		return p.Name == name && p.Protocol == protocol && len(p.Endpoints) > 0
	})
}
