// SPDX-License-Identifier: Apache-2.0

package admission

import (
	"maps"
	"reflect"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// WithEndpoints returns what Review returns for the same objects, but for the contents of
// these EndpointSlices, and the Services that have them. It costs what has changed, and
// next to nothing that grows with the number of objects. moved are file and line of objects
// that may be at other ones now. It returns false if a whole review has to decide: if the options are
// others, or something is kept from an earlier version, or a mistake is about endpoints.
func (r *Review) WithEndpoints(changed []discoveryv1.EndpointSlice, moved map[string]string, o gateway.Options, at func(name, value string) string) (Review, []types.NamespacedName, bool) {
	o.Incumbents = r.Memory.Incumbents
	if !r.plain || !reflect.DeepEqual(o, r.options) {
		return Review{}, nil, false
	}
	// The incumbents are equal to those of the memory: next time it is the same pointer.
	next, memory := *r, &Memory{good: maps.Clone(r.Memory.good), Incumbents: r.Memory.Incumbents}
	next.Memory, next.options = memory, o
	next.Objects.EndpointSlices, next.Endpoints = slices.Clone(r.Objects.EndpointSlices), maps.Clone(r.Endpoints)
	var services []types.NamespacedName
	for i := range changed {
		s := &changed[i]
		n := named{"EndpointSlice", s}
		known, is := memory.good[n.name()]
		was := slices.IndexFunc(next.Objects.EndpointSlices, func(o discoveryv1.EndpointSlice) bool {
			return o.Name == s.Name && o.Namespace == s.Namespace
		})
		if !is || was < 0 || serviceOf(s) != serviceOf(&next.Objects.EndpointSlices[was]) {
			return Review{}, nil, false
		}
		next.Objects.EndpointSlices[was] = *s
		known.named = n
		memory.good[n.name()] = known
		if service := serviceOf(s); !slices.Contains(services, service) {
			services = append(services, service)
		}
	}
	for _, service := range services {
		var all []discoveryv1.EndpointSlice
		for i := range next.Objects.EndpointSlices {
			if s := &next.Objects.EndpointSlices[i]; serviceOf(s) == service {
				all = append(all, *s)
			}
		}
		next.Endpoints[service] = gateway.NewServiceEndpoints(all, nil)
	}
	if len(next.endpointMistakes()) > 0 {
		return Review{}, nil, false
	}
	for name, at := range moved {
		if g, is := memory.good[name]; is {
			g.at = at
			memory.good[name] = g
		}
	}
	next.At = memory.locate(at)
	return next, services, true
}

// serviceOf returns the Service that an EndpointSlice belongs to.
func serviceOf(s *discoveryv1.EndpointSlice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Labels[discoveryv1.LabelServiceName]}
}
