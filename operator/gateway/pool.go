// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// holders are the Gateways that hold addresses, in a cluster.
type holders struct {
	*environment
	of map[netip.Addr][]holder
	// pools is how far each pool has been searched for free addresses.
	pools map[pool]*search
}

// pool is that of a BlixtConfig, of one family.
type pool struct {
	config *config
	v6     bool
}

// search is how far a pool has been searched: no address below next is free. If
// none is free at all, exhausted says so.
type search struct {
	next      netip.Addr
	exhausted string
}

// holder is a Gateway that holds an address. If asked is true, it was not given
// any address, but this one: the Gateway named it, or the load balancer did. Such
// an address may be shared, as long as ports differ.
type holder struct {
	gateway *gateway
	asked   bool
}

// assignAddresses assigns addresses to the Gateways, which come in order of
// precedence. First each keeps what it has and still wants. Then each gets what
// it asks for by name, if that is free. Those that take any address come last. So
// no Gateway loses an address to another one, and none that would take any takes
// one that another one names.
func assignAddresses(gateways []*gateway, s *environment) {
	if s.Cluster == nil {
		for _, g := range gateways {
			g.addresses.assignStandalone(g.obj, s.Options)
			g.held = slices.Clone(g.addresses.usable)
		}
		return
	}
	h := holders{s, map[netip.Addr][]holder{}, map[pool]*search{}}
	for _, g := range gateways {
		h.keep(g)
	}
	for _, g := range gateways {
		switch {
		case g.refused != nil:
		case g.source == v1alpha1.SourceLoadBalancer:
			h.assignFromService(g, s.Cluster.Assigned[g.key()])
		default:
			h.assignNamed(g)
		}
	}
	for _, g := range gateways {
		switch {
		case g.refused != nil || !g.addresses.any:
		case g.source == v1alpha1.SourceNode:
			g.addresses.assignNodes(s)
		case g.source == v1alpha1.SourcePool:
			h.allocate(g)
		}
	}
}

// keep lets a Gateway keep the addresses that it has. One that is refused keeps
// all of them, for when it is valid again.
func (h holders) keep(g *gateway) {
	a := &g.addresses
	for _, addr := range h.incumbents.addresses[g.owner()] {
		asked := slices.Contains(a.named, addr)
		switch {
		case g.refused != nil:
		case g.source == v1alpha1.SourceLoadBalancer:
			asked = true
			if !g.isGiven(addr, h.Cluster.Assigned[g.key()]) {
				continue
			}
		case asked:
			if g.mayNotUse(addr, h.environment) != "" {
				continue
			}
		case g.source != v1alpha1.SourcePool || !a.any || !g.class.config.pool.contains(addr) || InvalidAddress(addr) != "" || g.pooled[addr.Is6()].IsValid():
			continue
		}
		// Statuses may be forged, or of a restored backup.
		if !h.incumbents.known && len(h.of[addr]) == 0 && !h.capacity.fitsAddress() {
			continue
		}
		if winner := h.rival(addr, g, asked); winner != nil && !h.incumbents.known {
			if g.refused == nil && !asked {
				a.remark += fmt.Sprintf(" Address %s went to %s, %s.",
					addr, winner.name(), precedence(&winner.obj.ObjectMeta, &g.obj.ObjectMeta))
			}
			continue
		}
		h.take(addr, g, asked)
		if g.refused == nil && !asked {
			g.pooled[addr.Is6()] = addr
		}
	}
}

// rival returns the Gateway that keeps another one from having an address, or
// nil. An address is shared only by Gateways that asked for it, and only within a
// namespace: who shares an address could serve a port that clients of the other
// one trust. Gateways of all namespaces share what the administrator has said,
// and the addresses of nodes.
func (h holders) rival(addr netip.Addr, g *gateway, asked bool) *gateway {
	for _, other := range h.of[addr] {
		shared := other.gateway.obj.Namespace == g.obj.Namespace || h.isHost(addr) ||
			g.class.config.shared.contains(addr) && other.gateway.class.config.shared.contains(addr)
		if other.gateway != g && !(shared && asked && other.asked) {
			return other.gateway
		}
	}
	return nil
}

func (h holders) take(addr netip.Addr, g *gateway, asked bool) {
	if !slices.Contains(g.held, addr) {
		h.capacity.enterAddress(addr, g, asked, len(h.of[addr]) == 0)
		h.of[addr] = append(h.of[addr], holder{g, asked})
		g.held = append(g.held, addr)
	}
}

// takeNamed takes an address that a Gateway asks for, or records why it cannot
// be used.
func (h holders) takeNamed(addr netip.Addr, g *gateway) {
	if !slices.Contains(g.held, addr) && InvalidAddress(addr) == "" {
		if winner := h.rival(addr, g, true); winner != nil {
			g.addresses.refuse(addr.String(), winner.name()+" has it"+h.because(addr, winner, g))
			return
		}
		if f := h.capacity.lacksAddress(addr, g, true, len(h.of[addr]) == 0); f != nil {
			g.addresses.exhausted = f
			return
		}
		h.take(addr, g, true)
	}
	g.addresses.add(addr)
}

// because returns why the winner has an address, as the end of a clause.
func (h holders) because(addr netip.Addr, winner, g *gateway) string {
	why := " already"
	if !slices.Contains(h.incumbents.addresses[winner.owner()], addr) {
		why = ", " + precedence(&winner.obj.ObjectMeta, &g.obj.ObjectMeta)
	}
	if winner.obj.Namespace != g.obj.Namespace && !slices.Contains(h.of[addr], holder{winner, false}) {
		why += fmt.Sprintf(" (namespaces share only what spec.addresses.shared of %s lists)", g.class.config.name())
	}
	return why
}

// assignNamed assigns the addresses that the Gateway names.
func (h holders) assignNamed(g *gateway) {
	for _, addr := range g.addresses.named {
		if why := g.mayNotUse(addr, h.environment); why != "" {
			g.addresses.refuse(addr.String(), why)
			continue
		}
		h.takeNamed(addr, g)
	}
}

// allocate assigns, for each family that the pool has and the Gateway lacks,
// the lowest free address of the pool.
func (h holders) allocate(g *gateway) {
	c := g.class.config
	for _, v6 := range []bool{false, true} {
		if !c.pool.has(v6) {
			continue
		}
		addr := g.pooled[v6]
		if !addr.IsValid() {
			var none string
			if addr, none = h.lowestFree(c, v6); none != "" {
				g.addresses.miss(none)
				continue
			}
			if f := h.capacity.lacksAddress(addr, g, false, true); f != nil {
				g.addresses.exhausted = f
				continue
			}
			h.take(addr, g, false)
		}
		g.addresses.usable = append(g.addresses.usable, addr)
	}
}

// lowestFree returns the lowest free address of a pool, or that there is none.
func (h holders) lowestFree(c *config, v6 bool) (netip.Addr, string) {
	s := h.pools[pool{c, v6}]
	if s == nil {
		s = &search{}
		h.pools[pool{c, v6}] = s
	}
	if s.exhausted != "" {
		return netip.Addr{}, s.exhausted
	}
	var ok bool
	s.next, ok = c.pool.lowest(v6, s.next, func(addr netip.Addr) bool {
		return len(h.of[addr]) == 0 && !c.shared.contains(addr)
	})
	if !ok {
		s.exhausted = fmt.Sprintf("The pool of %s has no free %s address: %s.", c.name(), family(v6), h.holding(c, v6))
	}
	return s.next, s.exhausted
}

// holding returns who holds the addresses of a pool.
func (h holders) holding(c *config, v6 bool) string {
	found := map[string]bool{}
	for addr, all := range h.of {
		for _, holder := range all {
			if addr.Is6() == v6 && c.pool.contains(addr) {
				found[holder.gateway.key().String()] = true
			}
		}
	}
	names := slices.Collect(maps.Keys(found))
	if len(names) == 0 {
		return "none of it can be served on"
	}
	return "all are taken by Gateways " + phrase.Sample(names) + "; add addresses, or delete a Gateway"
}

func family(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}
