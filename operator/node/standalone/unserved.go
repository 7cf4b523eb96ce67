// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"maps"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// unserved returns a problem for each Service that has no endpoint for new
// connections to a frontend. Its share of them is rejected.
func unserved(frontends []gateway.Frontend, endpoints gateway.Endpoints) []gateway.Problem {
	lacking := map[string][]string{} // the frontends of each Service
	for _, f := range frontends {
		for _, ref := range f.Refs {
			if ref.Weight == 0 || hasEndpoint(f, ref, endpoints) {
				continue
			}
			service, frontend := ref.Service.String(), f.Key.String()
			if !slices.Contains(lacking[service], frontend) {
				lacking[service] = append(lacking[service], frontend)
			}
		}
	}
	var all []gateway.Problem
	for _, service := range slices.Sorted(maps.Keys(lacking)) {
		frontends := lacking[service]
		slices.Sort(frontends)
		all = append(all, gateway.Problem{Object: "Service " + service, Message: "No endpoint is ready for " + strings.Join(frontends, ", ") +
			": its share of new connections is refused until an EndpointSlice has one, of that family, protocol and port name."})
	}
	return all
}

// hasEndpoint reports whether the Service of a reference has an endpoint for new
// connections to the frontend.
func hasEndpoint(f gateway.Frontend, ref gateway.Ref, endpoints gateway.Endpoints) bool {
	for _, p := range endpoints[ref.Service].Ports {
		if p.Name == ref.PortName && p.Protocol == f.Protocol && slices.ContainsFunc(p.Endpoints, func(e gateway.Endpoint) bool {
			return e.State > gateway.Draining && e.Addr.Addr().Is4() == f.Addr.Is4()
		}) {
			return true
		}
	}
	return false
}
