// SPDX-License-Identifier: Apache-2.0

// Package ipsec tells which addresses the IPsec policies of this host cover (ip
// xfrm policy). What the data plane redirects passes none of them: a packet that
// they want encrypted, or blocked, would leave in clear text.
package ipsec

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Policies are those of one network namespace. Policies of sockets are none of
// them, nor are those of XFRM interfaces, to which a route leads.
type Policies struct {
	list []policy
	// blocks is true if packets that no policy names are not sent, or not forwarded.
	blocks bool
}

// All are policies that cover every address.
var All = Policies{blocks: true}

// policy is one policy. Packets need a mark for it if marked.
type policy struct {
	out      bool
	protects bool // it blocks or encrypts; else it lets packets pass as they are
	marked   bool
	priority uint32 // the smallest number wins

	source, destination         netip.Prefix
	protocol                    lb.Protocol // 0: any
	sourcePort, destinationPort ports
}

// ports are those that equal a number in the bits of a mask.
type ports struct{ number, mask uint16 }

func (p ports) has(port uint16) bool { return (p.number^port)&p.mask == 0 }

// Equal reports whether both are the same policies.
func (p Policies) Equal(o Policies) bool { return reflect.DeepEqual(p, o) }

// CoverBackend reports whether a policy may apply to packets to a backend, or to those
// that come from it.
// Which packets those are, only the host's stack knows: it depends on their source,
// on their marks and on the priorities of all policies.
func (p Policies) CoverBackend(protocol lb.Protocol, backend netip.AddrPort) bool {
	return p.blocks || slices.ContainsFunc(p.list, func(one policy) bool {
		return one.protects && one.of(protocol) &&
			(one.destination.Contains(backend.Addr()) && one.destinationPort.has(backend.Port()) ||
				!one.out && one.source.Contains(backend.Addr()) && one.sourcePort.has(backend.Port()))
	})
}

func (p policy) of(protocol lb.Protocol) bool { return p.protocol == 0 || p.protocol == protocol }

// Clients returns the prefixes of clients to which policies cover what one of the
// frontends sends (true), and prefixes to which they surely let it pass (false). The
// longest prefix of a client decides.
func (p Policies) Clients(frontends []lb.Key) map[netip.Prefix]bool {
	clients := map[netip.Prefix]bool{}
	if p.blocks {
		clients[netip.PrefixFrom(netip.IPv4Unspecified(), 0)] = true
		clients[netip.PrefixFrom(netip.IPv6Unspecified(), 0)] = true
	}
	for _, one := range p.list {
		if one.protects && one.out && !one.marked && slices.ContainsFunc(frontends, one.isFrom) {
			clients[one.destination] = true
		}
	}
	for _, one := range p.list {
		if !one.protects && one.out && one.allowsAllFrom(frontends) && !slices.ContainsFunc(p.list, one.yieldsTo) {
			if _, covered := clients[one.destination]; !covered || p.blocks {
				clients[one.destination] = false
			}
		}
	}
	return clients
}

// isFrom reports whether the policy may apply to what a frontend sends.
func (p policy) isFrom(k lb.Key) bool {
	return p.of(k.Protocol) && p.source.Contains(k.Addr) && p.sourcePort.has(k.Port)
}

// allowsAllFrom reports whether the policy applies to all that frontends of its
// family send to its destination.
func (p policy) allowsAllFrom(frontends []lb.Key) bool {
	return !p.marked && p.destinationPort.mask == 0 && !slices.ContainsFunc(frontends, func(k lb.Key) bool {
		return k.Addr.Is4() == p.source.Addr().Is4() && !p.isFrom(k)
	})
}

// yieldsTo reports whether o protects some of what p lets pass.
func (p policy) yieldsTo(o policy) bool {
	return o.protects && o.out && o.priority <= p.priority && o.destination.Overlaps(p.destination)
}
