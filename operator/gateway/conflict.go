// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// findConflicts marks the listeners of one Gateway that cannot be told apart.
// None of them wins. TCP and UDP are distinct; HTTP, HTTPS and TLS run over
// TCP, so they conflict with a TCP listener although Blixt serves none of them.
func findConflicts(listeners []*listener) {
	for _, l := range listeners {
		var others []string
		for _, other := range listeners {
			if other != l && indistinct(l.spec, other.spec) {
				others = append(others, string(other.spec.Name))
			}
		}
		if len(others) > 0 {
			l.conflicted = faultf(gwv1.ListenerReasonProtocolConflict,
				"%s port %d is also asked for by %s: give each a port of its own.",
				l.spec.Protocol, l.spec.Port, plural("listener", others))
		}
	}
}

func indistinct(a, b *gwv1.Listener) bool {
	if a.Port != b.Port {
		return false
	}
	if a.Protocol == gwv1.UDPProtocolType || b.Protocol == gwv1.UDPProtocolType {
		return a.Protocol == b.Protocol
	}
	overTCP := []gwv1.ProtocolType{gwv1.TCPProtocolType, gwv1.HTTPProtocolType, gwv1.HTTPSProtocolType, gwv1.TLSProtocolType}
	return slices.Contains(overTCP, a.Protocol) && slices.Contains(overTCP, b.Protocol) &&
		(a.Protocol == gwv1.TCPProtocolType || b.Protocol == gwv1.TCPProtocolType)
}

// claims knows who serves what, and is asked in the Gateways' order of
// precedence.
type claims map[lb.Key]*listener

// claim gives the listener its port on every address of its Gateway, or on
// none: half a listener would look like one that works.
func (c claims) claim(l *listener, o *Options) {
	g := l.gateway
	if l.fault() != nil || g.refused != nil {
		return
	}
	for _, addr := range g.addresses.usable {
		key := l.key(addr)
		if o.reserved(key) {
			l.refused = faultf(gwv1.ListenerReasonPortUnavailable,
				"%s port %d of %s is reserved for the host: use another port or address.", key.Protocol, key.Port, key.Addr)
			return
		}
		if winner := c[key]; winner != nil {
			l.refused = faultf(gwv1.ListenerReasonPortUnavailable,
				"%s port %d of %s is taken by listener %s of %s, %s: use another port or address.",
				key.Protocol, key.Port, key.Addr, winner.spec.Name, winner.gateway.name(),
				precedence(&winner.gateway.obj.ObjectMeta, &g.obj.ObjectMeta))
			return
		}
	}
	for _, addr := range g.addresses.usable {
		c[l.key(addr)] = l
	}
}
