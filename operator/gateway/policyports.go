// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// maxRanges is how many frontends of an address and protocol may have further ports: the size of
// an element of the data plane's table.
const maxRanges = 16

// rangeClaim is a listener that is to serve further ports.
type rangeClaim struct {
	*listener
	by    *policyTarget
	ports lb.Ports
	first uint16
}

// overlaps reports whether two listeners want the same ports. One that takes what nobody else
// serves gives way to each range, but not to another one like itself.
func (c *rangeClaim) overlaps(o *rangeClaim) bool {
	if c.takesAll() != o.takesAll() {
		return false
	}
	return c.first <= o.ports.Last && o.first <= c.ports.Last
}

// compare orders by precedence.
func (c *rangeClaim) compare(o *rangeClaim) int {
	return cmp.Or(byAge(&c.by.policy.obj.ObjectMeta, &o.by.policy.obj.ObjectMeta), cmp.Compare(c.name(), o.name()))
}

func (c *rangeClaim) takesAll() bool { return c.by.policy.ports.All != nil }

func (c *rangeClaim) String() string {
	if c.takesAll() {
		return "all ports"
	}
	return fmt.Sprintf("ports %d-%d", c.first, c.ports.Last)
}

// rangePlace is an address and protocol. The unspecified address stands for those of all nodes.
type rangePlace struct {
	netip.Addr
	lb.Protocol
}

// claimRanges gives listeners further ports, by the precedence of the policies that say so: on
// each address of theirs or on none. Each listener keeps its own port, whoever has a range there.
func (p *policies) claimRanges(gateways []*gateway) {
	var all []*rangeClaim
	for _, g := range gateways {
		for _, l := range g.all() {
			if c := p.newRangeClaim(l); c != nil {
				all = append(all, c)
			}
		}
	}
	slices.SortStableFunc(all, (*rangeClaim).compare)
	taken := map[rangePlace][]*rangeClaim{}
	for _, c := range all {
		if c.by.fault != nil {
			continue
		}
		if c.by.fault = p.refusesRange(c, taken); c.by.fault != nil {
			c.by.fault.message += " Everything else of the policy holds."
			continue
		}
		e := c.effective
		e.ports, e.portsBy, e.inRange = &c.ports, c.by, map[netip.Addr]bool{}
		for _, key := range c.ownKeys() {
			at := rangePlace{key.Addr, key.Protocol}
			taken[at] = append(taken[at], c)
			e.inRange[key.Addr] = true
		}
		a := c.by.ancestor(c.gateway)
		a.holds = true
		if c.gateway.source == v1alpha1.SourceLoadBalancer {
			a.remark("ports: Services of type LoadBalancer have no ranges: %s has port %d alone, so it depends on who announces the address whether packets to the other ports get to the nodes (MetalLB's do, those of most clouds do not); use address source Pool or Node for that.",
				c.gateway.name(), c.spec.Port)
		}
	}
}

// newRangeClaim returns what a listener is to serve by the policy of its own; nil: its port alone.
func (p *policies) newRangeClaim(l *listener) *rangeClaim {
	if l.policies == nil || l.policies.ports == nil || l.protocol == 0 || l.effective == nil {
		return nil
	}
	t := l.policies.ports
	port := uint16(l.spec.Port)
	c := &rangeClaim{listener: l, by: t, first: port, ports: lb.Ports{Shift: t.policy.ports.Target == v1alpha1.TargetShift}}
	if t.policy.ports.EndPort == nil {
		c.first, c.ports.First, c.ports.Last = 1, 1, 65535
		return c
	}
	if c.ports.Last = uint16(*t.policy.ports.EndPort); c.ports.Last <= port {
		t.fault = faultf(gwv1.PolicyReasonInvalid, "spec.ports.endPort %d is not above port %d of %s, where the range begins. Everything else of the policy holds.", c.ports.Last, port, l.name())
		return nil
	}
	return c
}

// ownKeys are the frontends at the listener's own port. Others are at node ports.
func (l *listener) ownKeys() []lb.Key {
	if !l.gateway.isServed() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(l.keys), func(key lb.Key) bool { return int32(key.Port) != l.spec.Port })
}

// refusesRange returns why a listener cannot have the ports at one of its addresses, or nil.
func (p *policies) refusesRange(c *rangeClaim, taken map[rangePlace][]*rangeClaim) *fault {
	for _, key := range c.ownKeys() {
		if why := p.hostNeeds(key, c); why != "" {
			return faultf(gwv1.PolicyReasonConflicted, "%s: %s of %s cannot be served at %s: %s; use other ports, or an address that no host has.", c.by.name(), c, key.Protocol, where(key.Addr), why)
		}
		at := taken[rangePlace{key.Addr, key.Protocol}]
		rivals := at
		if every := everyAddress(key).Addr; every != key.Addr && p.hosts[key.Addr] {
			rivals = append(slices.Clone(at), taken[rangePlace{every, key.Protocol}]...)
		} else if every == key.Addr {
			for place, others := range taken {
				if place.Protocol == key.Protocol && p.hosts[place.Addr] && place.Addr.Is6() == every.Is6() {
					rivals = append(slices.Clone(rivals), others...)
				}
			}
		}
		rivals = slices.DeleteFunc(slices.Clone(rivals), func(o *rangeClaim) bool { return !c.overlaps(o) })
		if len(rivals) > 0 {
			o := slices.MinFunc(rivals, (*rangeClaim).compare)
			return faultf(gwv1.PolicyReasonConflicted, "%s: %s of %s overlap with %s of %s at %s, which BlixtPolicy %s gives it, %s.",
				c.by.name(), c, key.Protocol, o, o.name(), where(key.Addr), o.by.policy.name(), precedence(&o.by.policy.obj.ObjectMeta, &c.by.policy.obj.ObjectMeta))
		}
		if len(at) >= maxRanges {
			return faultf(gwv1.PolicyReasonConflicted, "%s: %s has %d ranges of %s already, which is the most.", c.by.name(), where(key.Addr), maxRanges, key.Protocol)
		}
	}
	return nil
}

func where(addr netip.Addr) string {
	if addr.IsUnspecified() {
		return "the nodes' " + family(addr.Is6()) + " addresses"
	}
	return addr.String()
}

// hostNeeds returns why a host needs one of the ports itself, or "". At its own addresses a range
// may have no port that an exact listener would not get, nor those from which hosts connect.
func (p *policies) hostNeeds(key lb.Key, c *rangeClaim) string {
	if !p.isHost(key.Addr) {
		return ""
	}
	within := func(r *ReservedRange) bool {
		return (r.Protocol == 0 || r.Protocol == key.Protocol) && r.First <= c.ports.Last && c.first <= r.Last
	}
	for _, list := range [][]ReservedRange{p.reserved, p.ephemeral()} {
		for i := range list {
			if within(&list[i]) {
				return fmt.Sprintf("%s is reserved for %s", &list[i], list[i].use())
			}
		}
	}
	if p.Cluster == nil {
		return ""
	}
	ports := &c.gateway.class.config.ports
	for i := range ports.reserved {
		if within(&ports.reserved[i]) {
			return fmt.Sprintf("%s is reserved by %s", &ports.reserved[i], c.gateway.class.config.addressesField("reservedPorts"))
		}
	}
	for i := range infrastructure {
		if r := &infrastructure[i]; within(r) && !ports.namesAll(key.Protocol, max(r.First, c.first), min(r.Last, c.ports.Last)) {
			return fmt.Sprintf("%s is reserved for %s, unless entries of their own in %s allow these ports", r, r.use(), c.gateway.class.config.addressesField("allowedPorts"))
		}
	}
	var pod *HostPort
	for port := range p.hostPorts {
		if within(&ReservedRange{Protocol: port.Protocol, First: port.Port, Last: port.Port}) && (pod == nil || port.Port < pod.Port) {
			pod = cmp.Or(p.hostPort(lb.Key{Addr: key.Addr, Protocol: port.Protocol, Port: port.Port}), pod)
		}
	}
	if pod != nil {
		return fmt.Sprintf("%s is a hostPort of Pod %s", Port{pod.Protocol, pod.Port}, pod.Pod)
	}
	if gap := firstGap(ports.allowed, key.Protocol, c.first, c.ports.Last); gap > 0 {
		return fmt.Sprintf("port %d is not allowed by %s", gap, c.gateway.class.config.addressesField("allowedPorts"))
	}
	return ""
}

// firstGap returns the first port that none of the ranges has; 0: there is none.
func firstGap(ranges []ReservedRange, protocol lb.Protocol, first, last uint16) uint16 {
	next := uint32(first)
	for moved := true; moved; {
		moved = false
		for i := range ranges {
			if r := &ranges[i]; (r.Protocol == 0 || r.Protocol == protocol) && uint32(r.First) <= next && next <= uint32(r.Last) {
				next, moved = uint32(r.Last)+1, true
			}
		}
	}
	if next > uint32(last) {
		return 0
	}
	return uint16(next)
}

// defaultEphemeral are the ports from which Linux connects unless net.ipv4.ip_local_port_range says
// otherwise.
var defaultEphemeral = []ReservedRange{{First: 32768, Last: 60999, Use: "connections that the host begins"}}

// ephemeral are the ports from which a host without a cluster connects. Those of nodes are reserved.
func (p *policies) ephemeral() []ReservedRange {
	if p.Cluster != nil {
		return nil
	}
	if p.EphemeralPorts == nil {
		return defaultEphemeral
	}
	return p.EphemeralPorts
}
