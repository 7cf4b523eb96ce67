// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// holders are the Gateways that hold addresses, in a cluster.
type holders struct {
	*environment
	of map[netip.Addr][]holder
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
	h := holders{s, map[netip.Addr][]holder{}}
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
		case g.source != v1alpha1.SourcePool || !a.any || !g.class.config.pool.contains(addr) || invalidReason(addr) != "" || g.pooled[addr.Is6()].IsValid():
			continue
		}
		// Statuses may be forged, or of a restored backup.
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
		shared := other.gateway.obj.Namespace == g.obj.Namespace || h.isHost(addr)
		if other.gateway != g && !(shared && asked && other.asked) {
			return other.gateway
		}
	}
	return nil
}

func (h holders) take(addr netip.Addr, g *gateway, asked bool) {
	if !slices.Contains(g.held, addr) {
		h.of[addr] = append(h.of[addr], holder{g, asked})
		g.held = append(g.held, addr)
	}
}

// takeNamed takes an address that a Gateway asks for, or records why it cannot
// be used.
func (h holders) takeNamed(addr netip.Addr, g *gateway) {
	switch winner := h.rival(addr, g, true); {
	case slices.Contains(g.held, addr):
	case winner == nil && invalidReason(addr) == "":
		h.take(addr, g, true)
	case winner != nil:
		g.addresses.refuse(addr.String(), winner.name()+" has it"+h.because(addr, winner, g))
		return
	}
	g.addresses.add(addr)
}

// because returns why the winner has an address, as the end of a clause.
func (h holders) because(addr netip.Addr, winner, g *gateway) string {
	if slices.Contains(h.incumbents.addresses[winner.owner()], addr) {
		return " already"
	}
	return ", " + precedence(&winner.obj.ObjectMeta, &g.obj.ObjectMeta)
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
			var ok bool
			addr, ok = c.pool.lowest(v6, func(addr netip.Addr) bool { return len(h.of[addr]) == 0 })
			if !ok {
				g.addresses.miss(fmt.Sprintf("The pool of %s has no free %s address: %s.", c.name(), family(v6), h.holding(c, v6)))
				continue
			}
			h.take(addr, g, false)
		}
		g.addresses.usable = append(g.addresses.usable, addr)
	}
}

// holding returns who holds the addresses of a pool.
func (h holders) holding(c *config, v6 bool) string {
	var names []string
	for addr, all := range h.of {
		for _, holder := range all {
			if name := holder.gateway.obj.Namespace + "/" + holder.gateway.obj.Name; addr.Is6() == v6 && c.pool.contains(addr) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
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
