// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Plan is what an accepted Gateway of a cluster needs besides its status: the
// Service that stands for it is made from it.
type Plan struct {
	Source v1alpha1.AddressSource
	// WantAddresses are those that spec.addresses names. Empty: any will do.
	WantAddresses []netip.Addr
	// Ports are those of all valid listeners, ListenerSets' included, sorted.
	// It is empty if there is no valid listener: then no Service can be.
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
