// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func (l *listener) key(addr netip.Addr) lb.Key {
	return lb.Key{Addr: addr, Protocol: l.protocol, Port: uint16(l.spec.Port)}
}

// nodePortKeys returns where a load balancer delivers packets for the listener.
func (l *listener) nodePortKeys(s *environment) []lb.Key {
	port := l.gateway.addresses.nodePorts[Port{l.protocol, uint16(l.spec.Port)}]
	if port == 0 {
		return nil
	}
	var keys []lb.Key
	for _, addr := range s.everywhere {
		keys = append(keys, lb.Key{Addr: addr, Protocol: l.protocol, Port: port})
	}
	return keys
}

// frontend returns what the listener serves at the key: the first in precedence
// of the routes that attached.
func (l *listener) frontend(key lb.Key) Frontend {
	f := Frontend{
		Key:     key,
		Gateway: l.gateway.key().String(), Listener: l.id(),
		IdleTimeout:    l.gateway.policy.idleTimeouts[key.Protocol],
		LocalOnly:      l.gateway.policy.traffic == v1alpha1.TrafficPolicyLocal,
		PreserveClient: l.gateway.clientAddress() == v1alpha1.ClientAddressPreserve,
		Records:        l.gateway.policy.records == v1alpha1.FlowRecordsEnabled,
	}
	if e := l.effective; e != nil {
		f.Settings = e.settings(key, l.spec.Port)
		f.IdleTimeout = cmp.Or(e.idle, f.IdleTimeout)
	}
	if len(l.attached) > 0 {
		r := l.attached[0]
		f.Route = r.frontendName()
		f.Refs = slices.Clone(r.backends.refs)
		f.Reject = r.backends.reject
	}
	return f
}

// FrontendName returns the route's name as Frontend.Route has it.
func (r *RouteStatus) FrontendName() string { return routeName(r.Kind, r.NamespacedName) }

func routeName(kind gwv1.Kind, name types.NamespacedName) string {
	return string(kind) + "/" + name.String()
}
