// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// findConflicts marks the listeners of one Gateway that are not distinct. None
// of them wins. TCP and UDP are distinct. HTTP, HTTPS and TLS run over TCP:
// they conflict with a TCP listener although Blixt serves none of them.
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
				l.spec.Protocol, l.spec.Port, listenersNamed(others))
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

// findSetConflicts marks the listeners of ListenerSets that are not distinct
// from a listener with precedence: one of the Gateway, or of a set before. Only
// the later one is marked. Within a set, all are.
func findSetConflicts(g *gateway) {
	before := slices.Clone(g.listeners)
	for _, set := range g.sets {
		var rest []*listener
		for _, l := range set.listeners {
			i := slices.IndexFunc(before, func(other *listener) bool { return indistinct(l.spec, other.spec) })
			if i < 0 {
				rest = append(rest, l)
				continue
			}
			reason := gwv1.ListenerEntryReasonProtocolConflict
			if before[i].spec.Protocol == l.spec.Protocol {
				reason = gwv1.ListenerEntryReasonListenerConflict
			}
			l.conflicted = faultf(reason, "%s port %d is asked for by %s, which comes first: use another port.",
				l.spec.Protocol, l.spec.Port, before[i].name())
		}
		findConflicts(rest)
		for _, l := range rest {
			if l.conflicted == nil {
				before = append(before, l)
			}
		}
	}
}

// claims are the frontends that listeners have claimed. Listeners claim in
// their Gateways' order of precedence.
type claims struct {
	*environment
	taken map[lb.Key]*listener
	// onNodes are the listeners that claimed a port of some node's address, by
	// the unspecified address, which stands for all nodes.
	onNodes map[lb.Key]*listener
}

func newClaims(s *environment) claims {
	return claims{s, map[lb.Key]*listener{}, map[lb.Key]*listener{}}
}

// rival returns the listener that has claimed the key already, on this address
// or on all, or nil.
func (c claims) rival(key lb.Key) *listener {
	if l := c.taken[key]; l != nil {
		return l
	}
	switch every := everyAddress(key); {
	case every == key:
		return c.onNodes[key]
	case c.hosts[key.Addr]:
		return c.taken[every]
	}
	return nil
}

func (c claims) take(key lb.Key, l *listener) {
	c.taken[key] = l
	if c.hosts[key.Addr] {
		c.onNodes[everyAddress(key)] = l
	}
	l.keys = append(l.keys, key)
}

func everyAddress(key lb.Key) lb.Key {
	every := netip.IPv4Unspecified()
	if key.Addr.Is6() {
		every = netip.IPv6Unspecified()
	}
	return lb.Key{Addr: every, Protocol: key.Protocol, Port: key.Port}
}

// claim claims the listener's port on every address of its Gateway, or on none:
// half a listener would look like a working one.
func (c claims) claim(l *listener) {
	g := l.gateway
	if l.fault() != nil || g.refused != nil {
		return
	}
	for _, addr := range g.addresses.usable {
		key := l.key(addr)
		if c.isReserved(key, g.class.config) {
			l.refused = faultf(gwv1.ListenerReasonPortUnavailable,
				"%s port %d of %s is reserved for the host: use another port or address.", key.Protocol, key.Port, describeAddress(addr))
			return
		}
		if winner := c.rival(key); winner != nil && winner != l {
			of := winner.name()
			if winner.set != nil {
				of += " of " + winner.gateway.name()
			}
			l.refused = faultf(gwv1.ListenerReasonPortUnavailable,
				"%s port %d of %s is taken by %s, %s: use another port or address.",
				key.Protocol, key.Port, describeAddress(addr), of,
				precedence(&winner.gateway.obj.ObjectMeta, &g.obj.ObjectMeta))
			return
		}
	}
	for _, addr := range g.addresses.usable {
		c.take(l.key(addr), l)
	}
}

// claimNodePorts claims the listener's node ports. It skips a port that another
// listener has: the cluster assigns each port once, so one of the two is
// outdated.
func (c claims) claimNodePorts(l *listener) {
	if l.fault() != nil || l.gateway.refused != nil {
		return
	}
	for _, key := range l.nodePortKeys(c.environment) {
		if c.rival(key) == nil {
			c.take(key, l)
		}
	}
}

// describeAddress returns the words for an address in a message.
func describeAddress(addr netip.Addr) string {
	if addr.IsUnspecified() {
		return "the nodes' " + family(addr.Is6()) + " addresses"
	}
	return addr.String()
}
