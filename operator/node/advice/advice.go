// SPDX-License-Identifier: Apache-2.0

// Package advice finds settings of a host that keep packets from backends, forwarding
// that is off and firewall rules, with the command that mends each; and rules that are
// believed to restrict a frontend. It changes nothing itself, as others rely on those
// settings as well.
package advice

import (
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Backend is where packets are sent.
type Backend struct {
	Addr     netip.AddrPort
	Protocol lb.Protocol
	// Stack says that the host's own network stack forwards the packets, and not the
	// program: rules of the host's firewall hold for them.
	Stack bool
}

// Backends returns the backends of a state to which packets are forwarded, each once:
// all but those at the host's own addresses.
func Backends(s lb.State, host []netip.Addr) (list []Backend) {
	own := map[netip.Addr]bool{}
	for _, ip := range host {
		own[ip] = true
	}
	seen := map[Backend]bool{}
	for _, f := range s.Frontends {
		for _, b := range f.Backends {
			x := Backend{b.Addr, f.Protocol, b.Local || b.ThroughStack}
			if !own[b.Addr.Addr()] && !seen[x] {
				seen[x] = true
				list = append(list, x)
			}
		}
	}
	slices.SortFunc(list, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	return list
}

// some reports whether there is a backend for which f is true.
func some(backends []Backend, f func(netip.Addr) bool) bool {
	return slices.ContainsFunc(backends, func(b Backend) bool { return f(b.Addr.Addr()) })
}
