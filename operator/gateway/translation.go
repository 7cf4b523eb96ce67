// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Translation is what Translate makes of Objects: frontends that name
// Services, and the status of every object that is Blixt's. Each list is
// sorted, so that equal objects give equal translations.
type Translation struct {
	// Addresses and Frontends are sorted like those of a normalized lb.State.
	Addresses []lb.Address
	Frontends []Frontend
	Classes   []ClassStatus
	Gateways  []GatewayStatus
	Routes    []RouteStatus
	// Notes are problems that no status can tell, such as a Gateway whose
	// GatewayClass does not exist.
	Notes []Problem
}

// Frontend is an address, protocol and port with the Services behind it.
type Frontend struct {
	lb.Key
	// Gateway, Listener and Route are as in lb.Frontend.
	Gateway, Listener, Route string
	IdleTimeout              time.Duration
	Refs                     []Ref
	// Reject is the weight of references that lead nowhere, in lb.WeightUnits.
	Reject uint64
}

// Ref names a port of a Service. Its protocol is the frontend's.
type Ref struct {
	Service types.NamespacedName
	// PortName is the Service port's name, which EndpointSlices repeat.
	PortName string
	Weight   uint32
}

// ClassStatus is the status of a GatewayClass.
type ClassStatus struct {
	Name   string
	Status gwv1.GatewayClassStatus
}

// GatewayStatus is the status of a Gateway. Its Programmed conditions and
// those of its listeners are False where no data plane can change that, and
// otherwise Unknown with reason Pending: whoever knows the data plane
// completes them.
type GatewayStatus struct {
	types.NamespacedName
	Status gwv1.GatewayStatus
}

// RouteStatus is the status of a TCPRoute or UDPRoute, with those parents
// only that are Blixt's. A route that has none is not listed.
type RouteStatus struct {
	Kind gwv1.Kind
	types.NamespacedName
	Status gwv1.RouteStatus
}

// Using returns the indices of the frontends that name the Service.
func (t *Translation) Using(service types.NamespacedName) []int {
	var indices []int
	for i, f := range t.Frontends {
		for _, ref := range f.Refs {
			if ref.Service == service {
				indices = append(indices, i)
				break
			}
		}
	}
	return indices
}
