// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"iter"
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Snapshot is the part of the desired state that all nodes share. Its frontends
// have different keys. Once published, neither it nor what it refers to may
// change any more.
type Snapshot struct {
	gateway.Unresolved
	// Endpoints may contain more Services than frontends name. Agents do not get
	// those.
	Endpoints gateway.Endpoints
}

// indexedSnapshot is a Snapshot, indexed by the keys of frontends and the names
// of Services and policies.
type indexedSnapshot struct {
	addresses []lb.Address
	frontends map[lb.Key]gateway.Frontend
	services  *services
	sources   map[string]*lb.SourceSet
}

func indexSnapshot(s Snapshot) *indexedSnapshot {
	n := &indexedSnapshot{
		addresses: s.Addresses,
		frontends: make(map[lb.Key]gateway.Frontend, len(s.Frontends)),
		sources:   make(map[string]*lb.SourceSet, len(s.Sources)),
	}
	for i := range s.Sources {
		n.sources[s.Sources[i].Policy] = &s.Sources[i]
	}
	found := map[types.NamespacedName][]gateway.EndpointPort{}
	for _, f := range s.Frontends {
		n.frontends[f.Key] = f
		for _, ref := range f.Refs {
			if e, ok := s.Endpoints[ref.Service]; ok {
				found[ref.Service] = e.Ports
			}
		}
	}
	n.services = newServices(found)
	return n
}

// change names what differs between two versions.
type change struct {
	addresses bool
	frontends map[lb.Key]bool
	services  map[types.NamespacedName]bool
	sources   map[string]bool
}

func newChange() change {
	return change{frontends: map[lb.Key]bool{}, services: map[types.NamespacedName]bool{}, sources: map[string]bool{}}
}

func (c *change) empty() bool {
	return !c.addresses && len(c.frontends)+len(c.services)+len(c.sources) == 0
}

func (c *change) add(o change) {
	c.addresses = c.addresses || o.addresses
	for key := range o.frontends {
		c.frontends[key] = true
	}
	for name := range o.services {
		c.services[name] = true
	}
	maps.Copy(c.sources, o.sources)
}

// differences returns what differs. Comparing is cheap where both share memory.
func differences(old, now *indexedSnapshot) change {
	c := newChange()
	c.addresses = !slices.Equal(old.addresses, now.addresses)
	differ(maps.All(old.frontends), maps.All(now.frontends), c.frontends, deepEqual)
	differ(old.services.all(), now.services.all(), c.services, deepEqual)
	differ(maps.All(old.sources), maps.All(now.sources), c.sources, (*lb.SourceSet).Equal)
	return c
}

func deepEqual[V any](a, b V) bool { return reflect.DeepEqual(a, b) }

func differ[K comparable, V any](old, now iter.Seq2[K, V], changed map[K]bool, equal func(a, b V) bool) {
	before := maps.Collect(old)
	for key, value := range now {
		if had, ok := before[key]; !ok || !equal(had, value) {
			changed[key] = true
		}
		delete(before, key)
	}
	for key := range before {
		changed[key] = true
	}
}

// everything returns the change from nothing.
func (s *indexedSnapshot) everything() change {
	c := differences(&indexedSnapshot{}, s)
	c.addresses = true
	return c
}

// newSum returns the sum of a state, given that of another and what differs.
func newSum(sum lb.Sum, old, now *indexedSnapshot, c change) lb.Sum {
	if c.addresses {
		for _, a := range old.addresses {
			sum.Remove(wire.SumAddress(a))
		}
		for _, a := range now.addresses {
			sum.Add(wire.SumAddress(a))
		}
	}
	for key := range c.frontends {
		if f, ok := old.frontends[key]; ok {
			sum.Remove(wire.SumFrontend(f))
		}
		if f, ok := now.frontends[key]; ok {
			sum.Add(wire.SumFrontend(f))
		}
	}
	for name := range c.services {
		if ports, ok := old.services.get(name); ok {
			sum.Remove(wire.SumService(name, ports))
		}
		if ports, ok := now.services.get(name); ok {
			sum.Add(wire.SumService(name, ports))
		}
	}
	for policy := range c.sources {
		if set, ok := old.sources[policy]; ok {
			sum.Remove(wire.SumSourceSet(set))
		}
		if set, ok := now.sources[policy]; ok {
			sum.Add(wire.SumSourceSet(set))
		}
	}
	return sum
}
