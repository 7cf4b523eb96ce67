// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// Memory remembers what the host has lost a moment ago. What is added counts at once,
// what is lost counts for Grace longer: DHCP, a restart of the network's manager or a
// pulled cable take an address or a route away for seconds, and connections outlive
// that. The zero Memory has no grace. It is pure: it takes the time as an argument.
type Memory struct {
	// Grace is how long what is lost still counts.
	Grace time.Duration

	addresses map[addressKey]remembered
	defaults  map[int]time.Time // since when it is gone; zero: it is there
}

// remembered is an address of the host, and since when it is gone; zero: it is there.
type remembered struct {
	Address
	gone time.Time
}

// Gone is an address that is away.
type Gone struct {
	Address
	Since time.Time
}

// Network is a network in which an interface reaches neighbours.
type Network struct {
	Interface
	Prefix netip.Prefix
}

// View is the network as decisions should see it: what is there now, and what has been
// away for less than the grace.
type View struct {
	*Snapshot
	// Gone are the addresses of the host that are away, and count still.
	Gone []Gone
	// Until is when the first thing that is away stops counting, zero: nothing is away.
	Until time.Time

	own      []netip.Addr
	primary  []netip.Addr
	networks []Network
}

// See returns the view of what is there now. ours reports whether the load balancer
// has added an address itself: such a one is not the host's, and is not remembered. now
// must have a monotonic reading, as time.Now has: steps of the wall clock do not count
// then, nor does the time in suspend.
func (m *Memory) See(s *Snapshot, now time.Time, ours func(Address) bool) *View {
	v := &View{Snapshot: s}
	m.remember(s, now, ours)
	for key, r := range m.addresses {
		if !v.counts(r.gone, m.Grace, now) {
			delete(m.addresses, key)
			continue
		}
		if !r.gone.IsZero() {
			v.Gone = append(v.Gone, Gone{r.Address, r.gone})
		}
	}
	for index, gone := range m.defaults {
		if !v.counts(gone, m.Grace, now) {
			delete(m.defaults, index)
		}
	}
	for _, r := range m.addresses {
		if !r.ofHost() {
			continue
		}
		v.own = append(v.own, r.IP)
		if _, is := m.defaults[r.Index]; is {
			v.primary = append(v.primary, r.IP)
		}
		if i, there := s.ByIndex(r.Index); there && r.Network.Bits() < r.IP.BitLen() {
			v.networks = append(v.networks, Network{i, r.Network})
		}
	}
	v.sort()
	return v
}

// remember notes what is there, and when it was first missed.
func (m *Memory) remember(s *Snapshot, now time.Time, ours func(Address) bool) {
	if m.addresses == nil {
		m.addresses, m.defaults = map[addressKey]remembered{}, map[int]time.Time{}
	}
	there := map[addressKey]bool{}
	for _, a := range s.Addresses {
		if ours(a) {
			delete(m.addresses, a.key())
			continue
		}
		there[a.key()] = true
		m.addresses[a.key()] = remembered{Address: a}
	}
	for key, r := range m.addresses {
		if !there[key] && r.gone.IsZero() {
			r.gone = now
			m.addresses[key] = r
		}
	}
	for _, index := range s.Defaults {
		m.defaults[index] = time.Time{}
	}
	for index, gone := range m.defaults {
		if gone.IsZero() && !slices.Contains(s.Defaults, index) {
			m.defaults[index] = now
		}
	}
}

// counts reports whether what is gone since then still counts, and notes until when.
func (v *View) counts(gone time.Time, grace time.Duration, now time.Time) bool {
	if gone.IsZero() {
		return true
	}
	until := gone.Add(grace)
	if !now.Before(until) {
		return false
	}
	if v.Until.IsZero() || until.Before(v.Until) {
		v.Until = until
	}
	return true
}

func (v *View) sort() {
	slices.SortFunc(v.Gone, func(a, b Gone) int { return cmp.Or(cmp.Compare(a.Index, b.Index), a.IP.Compare(b.IP)) })
	slices.SortFunc(v.networks, func(a, b Network) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), a.Prefix.Addr().Compare(b.Prefix.Addr()), cmp.Compare(a.Prefix.Bits(), b.Prefix.Bits()))
	})
	v.networks = slices.CompactFunc(v.networks, func(a, b Network) bool { return a.Index == b.Index && a.Prefix == b.Prefix })
	for _, list := range []*[]netip.Addr{&v.own, &v.primary} {
		slices.SortFunc(*list, netip.Addr.Compare)
		*list = slices.Compact(*list)
	}
}

// HostAddresses returns the addresses of the host, without those that the load balancer
// has added, and without loopback and link-local ones.
func (v *View) HostAddresses() []netip.Addr { return v.own }

// DefaultAddresses returns those of HostAddresses that are on an interface with a
// default route.
func (v *View) DefaultAddresses() []netip.Addr { return v.primary }

// Networks returns the networks in which the interfaces that there are reach
// neighbours.
func (v *View) Networks() []Network { return v.networks }

// SameAddresses reports whether nothing differs that decides which addresses are
// served, and where. w may be nil.
func (v *View) SameAddresses(w *View) bool {
	return w != nil && slices.Equal(v.own, w.own) && slices.Equal(v.primary, w.primary) &&
		slices.EqualFunc(v.networks, w.networks, func(a, b Network) bool { return a.equal(b.Interface) && a.Prefix == b.Prefix }) &&
		slices.Equal(ofHost(v.Addresses), ofHost(w.Addresses)) &&
		slices.EqualFunc(v.Gone, w.Gone, func(a, b Gone) bool { return a.Address == b.Address })
}

// ofHost returns the addresses without loopback and link-local ones.
func ofHost(all []Address) []Address {
	return slices.DeleteFunc(slices.Clone(all), func(a Address) bool { return !a.ofHost() })
}
