// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// pools are the Gateways that hold addresses of pools. They are rebuilt in each
// translation from the Gateways' status.addresses: there is no other memory.
type pools map[netip.Addr]holder

// holder is a Gateway that holds an address. If asked is true, the Gateway
// named the address in its spec, and may share it with others that name it,
// too, as long as their ports differ.
type holder struct {
	gateway *gateway
	asked   bool
}

// assign assigns addresses of pools. Gateways come in order of precedence. Each
// first keeps the addresses it has; only then do those that lack an address get
// a new one. So no Gateway loses its address to one that would take any.
// Addresses of refused Gateways stay reserved, for when these are valid again.
func (p pools) assign(gateways, refused []*gateway, s *environment) {
	for _, g := range gateways {
		p.assignNamed(g, s)
		p.keepPrevious(g)
	}
	for _, g := range refused {
		for _, had := range g.obj.Status.Addresses {
			if addr, err := netip.ParseAddr(had.Value); err == nil && p[addr].gateway == nil {
				p[addr] = holder{g, false}
			}
		}
	}
	for _, g := range gateways {
		p.allocate(g)
	}
}

// assignNamed assigns the addresses that the Gateway names.
func (p pools) assignNamed(g *gateway, s *environment) {
	for _, addr := range g.addresses.named {
		if !g.class.config.pool.contains(addr) && !g.mayUse(addr, s) {
			continue
		}
		if h, held := p[addr]; held && !h.asked {
			g.addresses.refuse(addr.String(), fmt.Sprintf("%s has it, %s",
				h.gateway.name(), precedence(&h.gateway.obj.ObjectMeta, &g.obj.ObjectMeta)))
			continue
		}
		g.addresses.add(addr)
		if _, held := p[addr]; !held && slices.Contains(g.addresses.usable, addr) {
			p[addr] = holder{g, true}
		}
	}
}

// keepPrevious assigns the addresses that the Gateway has already, one of each
// family.
func (p pools) keepPrevious(g *gateway) {
	a := &g.addresses
	if !a.any {
		return
	}
	g.pooled = map[bool]netip.Addr{}
	for _, had := range g.obj.Status.Addresses {
		addr, err := netip.ParseAddr(had.Value)
		if err != nil || deref(had.Type, gwv1.IPAddressType) != gwv1.IPAddressType || slices.Contains(a.named, addr) ||
			!g.class.config.pool.contains(addr) || invalidReason(addr) != "" || g.pooled[addr.Is6()].IsValid() {
			continue
		}
		if h, held := p[addr]; held {
			a.remark += fmt.Sprintf(" Address %s went to %s, %s.",
				addr, h.gateway.name(), precedence(&h.gateway.obj.ObjectMeta, &g.obj.ObjectMeta))
			continue
		}
		g.pooled[addr.Is6()], p[addr] = addr, holder{g, false}
	}
}

// allocate assigns, for each family that the pool has and the Gateway lacks,
// the lowest free address of the pool.
func (p pools) allocate(g *gateway) {
	c := g.class.config
	for _, v6 := range []bool{false, true} {
		if !g.addresses.any || !c.pool.has(v6) {
			continue
		}
		addr := g.pooled[v6]
		if !addr.IsValid() {
			var ok bool
			addr, ok = c.pool.lowest(v6, func(addr netip.Addr) bool { _, held := p[addr]; return !held })
			if !ok {
				g.addresses.miss(fmt.Sprintf("The pool of %s has no free %s address: %s.", c.name(), family(v6), p.holding(c, v6)))
				continue
			}
			p[addr] = holder{g, false}
		}
		g.addresses.usable = append(g.addresses.usable, addr)
	}
}

// holding returns who holds the addresses of a pool.
func (p pools) holding(c *config, v6 bool) string {
	var names []string
	for addr, h := range p {
		if name := h.gateway.obj.Namespace + "/" + h.gateway.obj.Name; addr.Is6() == v6 && c.pool.contains(addr) && !slices.Contains(names, name) {
			names = append(names, name)
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
