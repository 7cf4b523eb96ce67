// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// kubeProxyReadiness is what kube-proxy makes of conditions: absent ones are good
// ones (endpointSliceCache.addEndpoints). It balances to what is ready, and if
// nothing is, to what serves and terminates (CategorizeEndpoints).
func kubeProxyReadiness(c discoveryv1.EndpointConditions) gateway.Readiness {
	ready := c.Ready == nil || *c.Ready
	serving := c.Serving == nil || *c.Serving
	terminating := c.Terminating != nil && *c.Terminating
	if ready {
		return gateway.Ready
	}
	if serving && terminating {
		return gateway.Leaving
	}
	// Both get no new connections. Whether flows stay is Blixt's own distinction.
	if serving {
		return gateway.Draining
	}
	return gateway.NotServing
}

func TestReadinessIsThatOfKubeProxy(t *testing.T) {
	values := []*bool{nil, new(true), new(false)}
	name := func(b *bool) string {
		if b == nil {
			return "nil"
		}
		return fmt.Sprint(*b)
	}
	for _, ready := range values {
		for _, serving := range values {
			for _, terminating := range values {
				c := discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}
				found := gateway.NewServiceEndpoints([]discoveryv1.EndpointSlice{{
					AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Port: new(int32(80))}},
					Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: c}},
				}}, nil)
				if got, want := found.Ports[0].Endpoints[0].State, kubeProxyReadiness(c); got != want {
					t.Errorf("ready %s, serving %s, terminating %s: got %d, want %d", name(ready), name(serving), name(terminating), got, want)
				}
			}
		}
	}
}
