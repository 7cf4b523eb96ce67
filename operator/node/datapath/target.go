// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// Target is the state that tables are to hold, and what of it they may lack: so
// a plan costs what has changed, not what there is.
type Target struct {
	addresses map[netip.Addr]lb.Address
	frontends map[lb.Key]wanted
	sum       lb.Sum

	// What all frontends need.
	backends, tcp int
	rings         rings
	keys          uint64 // counts changes of addresses, and of which frontends there are

	// What has changed since the tables held it, or did not fit into them.
	staleAddresses map[netip.Addr]bool
	staleFrontends map[lb.Key]bool
	hears          Hears
	staleFlags     bool

	// ranged are the frontends with Ports, by address and protocol: the port is 0.
	ranged map[lb.Key]map[lb.Key]bool

	policies wantedPolicies
}

// wanted is a frontend of a target. It is never modified, but replaced.
type wanted struct {
	*lb.Frontend
	sum lb.Sum
}

// NewTarget returns the empty state.
func NewTarget() *Target {
	return &Target{
		addresses: map[netip.Addr]lb.Address{}, frontends: map[lb.Key]wanted{}, rings: rings{}, keys: 1, policies: newWantedPolicies(),
		ranged:         map[lb.Key]map[lb.Key]bool{},
		staleAddresses: map[netip.Addr]bool{}, staleFrontends: map[lb.Key]bool{},
	}
}

// Replace replaces the whole state. It keeps what s refers to, which must not be
// modified any more. It returns an error, and changes nothing, if s is not
// normalized.
func (t *Target) Replace(s lb.State) error {
	if err := cmp.Or(checkFrontends(s.Frontends), checkSources(s.Sources)); err != nil {
		return err
	}
	addresses := make(map[netip.Addr]bool, len(s.Addresses))
	for _, a := range s.Addresses {
		addresses[a.IP] = true
		t.setAddress(a.IP, &a)
	}
	for ip := range t.addresses {
		if !addresses[ip] {
			t.setAddress(ip, nil)
		}
	}
	frontends := make(map[lb.Key]bool, len(s.Frontends))
	for i := range s.Frontends {
		frontends[s.Frontends[i].Key()] = true
		t.setFrontend(s.Frontends[i].Key(), &s.Frontends[i])
	}
	for key := range t.frontends {
		if !frontends[key] {
			t.setFrontend(key, nil)
		}
	}
	t.replaceSources(s.Sources)
	return nil
}

// Change replaces some frontends and some sets of sources, and removes the sets of
// the policies that are gone. Otherwise it is as Replace.
func (t *Target) Change(frontends []lb.Frontend, sources []lb.SourceSet, gone []string) error {
	if err := cmp.Or(checkFrontends(frontends), checkSources(sources)); err != nil {
		return err
	}
	for i := range frontends {
		t.setFrontend(frontends[i].Key(), &frontends[i])
	}
	for i := range sources {
		t.setSources(sources[i].Policy, &sources[i])
	}
	for _, policy := range gone {
		t.setSources(policy, nil)
	}
	return nil
}

func (t *Target) setAddress(ip netip.Addr, now *lb.Address) {
	old, known := t.addresses[ip]
	if known && now != nil && old == *now {
		return
	}
	if known {
		t.sum.Remove(old.Sum())
		delete(t.addresses, ip)
	}
	if now != nil {
		t.sum.Add(now.Sum())
		t.addresses[ip] = *now
	}
	t.staleAddresses[ip] = true
	t.keys++
}

func (t *Target) setFrontend(key lb.Key, now *lb.Frontend) {
	old, known := t.frontends[key]
	if known && now != nil && reflect.DeepEqual(old.Frontend, now) {
		return
	}
	if known {
		t.count(old, -1)
		t.sum.Remove(old.sum)
		delete(t.frontends, key)
	}
	if now != nil {
		next := wanted{now, now.Sum()}
		t.count(next, 1)
		t.sum.Add(next.sum)
		t.frontends[key] = next
	}
	t.staleFrontends[key] = true
	t.setRange(key, old.Frontend, now)
	if known != (now != nil) {
		t.keys++
	}
}

// count adds what a frontend needs, n times.
func (t *Target) count(f wanted, n int) {
	t.backends += n * len(f.Backends)
	t.rings.add(ring.Size(ring.Listed(f.Frontend)), n)
	if f.Protocol == lb.TCP {
		t.tcp += n
	}
	t.policies.count(f.Frontend, n)
}

// Hash returns the hash of the state.
func (t *Target) Hash() uint64 { return t.sum.Short() }

// Frontend returns a frontend of the state, which must not be modified; nil: there is
// none.
func (t *Target) Frontend(key lb.Key) *lb.Frontend { return t.frontends[key].Frontend }

// TCPFrontends returns the number of TCP frontends.
func (t *Target) TCPFrontends() int { return t.tcp }

// Keys returns a number that is another one whenever addresses, or the keys of
// frontends, have changed. It is never 0.
func (t *Target) Keys() uint64 { return t.keys }

// SharedUDPPorts yields the ports of UDP frontends, those of ranges too, at addresses
// that the host shares.
func (t *Target) SharedUDPPorts() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for key, f := range t.frontends {
			a, ok := t.addresses[key.Addr]
			if key.Protocol != lb.UDP || !ok || a.Exclusive {
				continue
			}
			if !yield(key.Port) {
				return
			}
			if f.Ports == nil {
				continue
			}
			r := portRange(key, f.Ports)
			for port := int(r.First); port <= int(r.Last); port++ {
				if !yield(uint16(port)) {
					return
				}
			}
		}
	}
}

// Frontends returns the frontends, in no order. They must not be modified.
func (t *Target) Frontends() []*lb.Frontend {
	all := make([]*lb.Frontend, 0, len(t.frontends))
	for _, f := range t.frontends {
		all = append(all, f.Frontend)
	}
	return all
}

// State returns the state, normalized. It refers to the target's frontends,
// which must not be modified.
func (t *Target) State() lb.State {
	s := lb.State{Addresses: slices.Collect(maps.Values(t.addresses))}
	for _, f := range t.frontends {
		s.Frontends = append(s.Frontends, *f.Frontend)
	}
	for _, set := range t.policies.sets {
		s.Sources = append(s.Sources, *set.SourceSet)
	}
	slices.SortFunc(s.Sources, func(a, b lb.SourceSet) int { return cmp.Compare(a.Policy, b.Policy) })
	slices.SortFunc(s.Addresses, func(a, b lb.Address) int { return a.IP.Compare(b.IP) })
	slices.SortFunc(s.Frontends, func(a, b lb.Frontend) int { return a.Key().Compare(b.Key()) })
	return s
}

// checkFrontends returns an error if frontends are not normalized.
func checkFrontends(frontends []lb.Frontend) error {
	keys := make(map[lb.Key]bool, len(frontends))
	for i := range frontends {
		f := &frontends[i]
		if keys[f.Key()] {
			return fmt.Errorf("state: frontend %s twice", f.Key())
		}
		keys[f.Key()] = true
		for i := 1; i < len(f.Backends); i++ {
			if f.Backends[i-1].Addr.Compare(f.Backends[i].Addr) >= 0 {
				return fmt.Errorf("state: backends of %s are not in order, or %s is there twice", f.Key(), f.Backends[i].Addr)
			}
		}
	}
	return nil
}
