// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// hostAddresses returns the addresses of this host that addr stands for: all of
// its family if it is unspecified, otherwise addr alone.
func (o ResolveOptions) hostAddresses(addr netip.Addr) []netip.Addr {
	if !addr.IsUnspecified() || !o.isNode() {
		return []netip.Addr{addr}
	}
	var own []netip.Addr
	for _, host := range o.HostAddresses {
		if host.Is6() == addr.Is6() && InvalidAddress(host) == "" {
			own = append(own, host)
		}
	}
	return own
}

// expand sets the addresses of the state and the keys of its frontends. A
// frontend or address that names an IP address wins over one that stands for
// all addresses of the host.
func (r *Resolution) expand(u *Unresolved, o ResolveOptions) {
	addresses := map[netip.Addr]bool{}
	r.keys = map[lb.Key]bool{}
	from := map[lb.Key]int{}
	for _, any := range []bool{false, true} {
		for _, a := range u.Addresses {
			for _, ip := range o.hostAddresses(a.IP) {
				if a.IP.IsUnspecified() == any && !addresses[ip] {
					addresses[ip] = true
					// This node decides, whatever the operator knows: to refuse
					// the unserved ports of the host's own address would cut
					// the host off.
					exclusive := a.Exclusive && !slices.Contains(o.HostAddresses, ip)
					r.State.Addresses = append(r.State.Addresses, lb.Address{IP: ip, Exclusive: exclusive})
				}
			}
		}
		for i, f := range u.Frontends {
			for _, ip := range o.hostAddresses(f.Addr) {
				key := lb.Key{Addr: ip, Protocol: f.Protocol, Port: f.Port}
				if f.Addr.IsUnspecified() == any && !r.keys[key] {
					r.keys[key], from[key] = true, i
					r.addRange(key, f.Ports)
					r.State.Frontends = append(r.State.Frontends, lb.Frontend{Addr: ip, Protocol: f.Protocol, Port: f.Port})
				}
			}
		}
	}
	r.State.Normalize()
	r.sources = make([]int, len(r.State.Frontends))
	for i, f := range r.State.Frontends {
		r.sources[i] = from[f.Key()]
	}
}

// addRange notes the further ports of a frontend.
func (r *Resolution) addRange(key lb.Key, p *lb.Ports) {
	if p == nil {
		return
	}
	if r.ranges == nil {
		r.ranges = map[rangePlace][]lb.PortRange{}
	}
	at := rangePlace{key.Addr, key.Protocol}
	r.ranges[at] = append(r.ranges[at], lb.PortRange{First: cmp.Or(p.First, key.Port), Last: p.Last})
}
