// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
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
// from a listener with precedence: one of the Gateway, one whose set has had the
// port, or one of a set before. Only the later one is marked. Within a set, all
// are.
func findSetConflicts(g *gateway, incumbents *incumbency) {
	before := map[gwv1.PortNumber][]*listener{}
	enter := func(l *listener) { before[l.spec.Port] = append(before[l.spec.Port], l) }
	for _, l := range g.listeners {
		enter(l)
	}
	for _, incumbent := range []bool{true, false} {
		for _, set := range g.sets {
			var rest []*listener
			for _, l := range set.listeners {
				if incumbent != (len(incumbents.heldFor(l)) > 0) {
					continue
				}
				of := before[l.spec.Port]
				i := slices.IndexFunc(of, func(other *listener) bool { return indistinct(l.spec, other.spec) })
				if i < 0 {
					rest = append(rest, l)
					continue
				}
				reason := gwv1.ListenerEntryReasonProtocolConflict
				if of[i].spec.Protocol == l.spec.Protocol {
					reason = gwv1.ListenerEntryReasonListenerConflict
				}
				l.conflicted = faultf(reason, "%s port %d is asked for by %s, which comes first: use another port.",
					l.spec.Protocol, l.spec.Port, of[i].name())
			}
			findConflicts(rest)
			for _, l := range rest {
				if l.conflicted == nil {
					enter(l)
				}
			}
		}
	}
}

// claims are the frontends that listeners have claimed.
type claims struct {
	*environment
	taken map[lb.Key]*listener
	// onNodes are the listeners that claimed a port of some node's address, by
	// the unspecified address, which stands for all nodes.
	onNodes map[lb.Key]*listener
}

// claimAll claims ports for listeners. Each first keeps what it has. Then those
// claim that want more, by the precedence of their Gateways: ports that Gateways
// ask for before those that the cluster chose.
func claimAll(gateways []*gateway, s *environment) claims {
	c := claims{s, map[lb.Key]*listener{}, map[lb.Key]*listener{}}
	for _, g := range gateways {
		for _, l := range g.all() {
			c.keep(l)
		}
	}
	if s.Cluster == nil {
		gateways = c.modestFirst(gateways)
	}
	for _, g := range gateways {
		for _, l := range g.listeners {
			c.claim(l)
		}
		if g.isServed() {
			for _, l := range g.all()[len(g.listeners):] {
				c.claim(l)
			}
		}
	}
	for _, g := range gateways {
		if g.isServed() {
			for _, l := range g.all() {
				c.claimNodePorts(l)
			}
		}
	}
	for _, l := range c.taken {
		c.warn(l)
	}
	return c
}

// modestFirst returns the Gateways in another order: those first that want no more
// frontends than they have had, as when a port changes. Otherwise others would take the
// room.
func (c claims) modestFirst(gateways []*gateway) []*gateway {
	modest := map[*gateway]bool{}
	for _, g := range gateways {
		wanted, held := 0, 0
		for _, l := range g.all() {
			wanted += len(c.wanted(l))
		}
		for _, who := range append([]owner{g.owner()}, setOwners(g)...) {
			held += len(c.incumbents.frontends[who])
		}
		modest[g] = wanted <= held
	}
	sorted := slices.Clone(gateways)
	slices.SortStableFunc(sorted, func(a, b *gateway) int {
		switch {
		case modest[a] && !modest[b]:
			return -1
		case modest[b] && !modest[a]:
			return 1
		}
		return 0
	})
	return sorted
}

func setOwners(g *gateway) []owner {
	var all []owner
	for _, set := range g.sets {
		all = append(all, ownerOf("ListenerSet", &set.obj.ObjectMeta))
	}
	return all
}

// refuses returns why the listener may not have the key, or nil. Some ports a
// listener keeps if it had them before.
func (c claims) refuses(key lb.Key, l *listener) *refusal {
	r := c.environment.refuses(key, l.gateway.class.config)
	if r != nil && r.reason != "" && c.incumbents.holds(l, key) && (c.incumbents.known || !r.seen) {
		return nil
	}
	return r
}

// warn sets the warning of a listener that keeps a port which it would not get.
func (c claims) warn(l *listener) {
	for _, addr := range l.gateway.addresses.usable {
		key := l.key(addr)
		if r := c.environment.refuses(key, l.gateway.class.config); r != nil && !r.passing && l.isValid() && c.taken[key] == l {
			l.warning = faultf(r.reason, "%s %s The listener keeps it because it was served before.", describeKey(key), r.why)
			return
		}
	}
}

// rival returns the listener that keeps this one from having the key, on this
// address or on all, or nil. A port that is kept for an invalid listener is free
// for others of its Gateway.
func (c claims) rival(key lb.Key, l *listener) *listener {
	other := c.taken[key]
	if every := everyAddress(key); other == nil && every == key {
		other = c.onNodes[key]
	} else if other == nil && c.hosts[key.Addr] {
		other = c.taken[every]
	}
	if other == l || other != nil && other.gateway == l.gateway && !other.isValid() {
		return nil
	}
	return other
}

func (c claims) take(key lb.Key, l *listener) {
	if other := c.taken[key]; other != nil {
		c.capacity.leave(key, other)
	}
	c.capacity.enter(key, l)
	c.taken[key] = l
	if c.hosts[key.Addr] {
		c.onNodes[everyAddress(key)] = l
	}
	if l.isValid() {
		l.keys = append(l.keys, key)
	}
}

func everyAddress(key lb.Key) lb.Key {
	every := netip.IPv4Unspecified()
	if key.Addr.Is6() {
		every = netip.IPv6Unspecified()
	}
	return lb.Key{Addr: every, Protocol: key.Protocol, Port: key.Port}
}

// isValid reports whether the listener can have frontends.
func (l *listener) isValid() bool { return l.fault() == nil && l.gateway.refused == nil }

// keep lets the listener have the frontends that it has had, as far as it still
// wants them. For one that is invalid, they are kept until it is valid again.
func (c claims) keep(l *listener) {
	keys := c.incumbents.heldFor(l)
	if l.isValid() {
		keys = slices.DeleteFunc(c.wanted(l), func(key lb.Key) bool {
			return !c.incumbents.holds(l, key) || c.refuses(key, l) != nil
		})
	}
	for _, key := range keys {
		// Without a cluster, tables may be smaller than those of the last start.
		if c.rival(key, l) == nil && (c.incumbents.known && c.Cluster != nil || c.capacity.fits(key)) {
			c.take(key, l)
		}
	}
}

// wanted returns the frontends that the listener asks for, and those that its
// load balancer needs.
func (c claims) wanted(l *listener) []lb.Key {
	var keys []lb.Key
	for _, addr := range l.gateway.addresses.usable {
		keys = append(keys, l.key(addr))
	}
	return append(keys, l.nodePortKeys(c.environment)...)
}

// claim claims the listener's port on every address of its Gateway, or on none:
// half a listener would look like a working one. But what it has had, it keeps.
func (c claims) claim(l *listener) {
	if !l.isValid() {
		return
	}
	unavailable := func(format string, args ...any) {
		switch f := faultf(gwv1.ListenerReasonPortUnavailable, format, args...); {
		case len(l.keys) == 0:
			l.refused = f
		case l.set == nil: // whose Programmed has no such reason
			f.reason = string(gwv1.ListenerReasonInvalid)
			fallthrough
		default:
			l.unserved = f
		}
	}
	var missing []lb.Key
	for _, addr := range l.gateway.addresses.usable {
		key := l.key(addr)
		if r := c.refuses(key, l); r != nil {
			unavailable("%s %s", describeKey(key), r.why)
			return
		}
		if winner := c.rival(key, l); winner != nil {
			of := winner.name()
			if winner.set != nil {
				of += " of " + winner.gateway.name()
			}
			unavailable("%s is taken by %s, %s: use another port or address.", describeKey(key), of, c.because(winner, l))
			return
		}
		if c.taken[key] != l {
			missing = append(missing, key)
		}
	}
	if l.unserved = c.capacity.lacks(l, missing); l.unserved != nil {
		return
	}
	for _, key := range missing {
		c.take(key, l)
	}
}

// because returns why the winner has a frontend, as a relative clause.
func (c claims) because(winner, l *listener) string {
	if len(c.incumbents.heldFor(winner)) > 0 {
		return "which has had it before"
	}
	return precedence(&winner.gateway.obj.ObjectMeta, &l.gateway.obj.ObjectMeta)
}

// claimNodePorts claims the listener's node ports. It skips a port that another
// listener has: the cluster assigns each port once, so one of the two is
// outdated.
func (c claims) claimNodePorts(l *listener) {
	if !l.isValid() {
		return
	}
	for _, key := range l.nodePortKeys(c.environment) {
		if c.taken[key] == l || c.rival(key, l) != nil {
			continue
		}
		if f := c.capacity.lacks(l, []lb.Key{key}); f != nil {
			l.unserved = f
			return
		}
		c.take(key, l)
	}
}

// describeKey returns the words for a frontend in a message.
func describeKey(key lb.Key) string {
	of := key.Addr.String()
	if key.Addr.IsUnspecified() {
		of = "the nodes' " + family(key.Addr.Is6()) + " addresses"
	}
	return fmt.Sprintf("%s port %d of %s", key.Protocol, key.Port, of)
}
