// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"hash/maphash"
	"iter"
	"maps"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// services are the endpoints of all Services, by name. They never change: with makes
// others, which share all but one shard with them. So one Service's endpoints are
// replaced at a cost that does not grow with the number of Services, while updates
// are made of what was there before.
type services struct {
	shards [1024]map[types.NamespacedName][]gateway.EndpointPort
}

var shardSeed = maphash.MakeSeed()

func shardOf(name types.NamespacedName) uint64 {
	return maphash.Comparable(shardSeed, name) % uint64(len(services{}.shards))
}

// newServices returns services that have what a map has.
func newServices(from map[types.NamespacedName][]gateway.EndpointPort) *services {
	s := &services{}
	for name, ports := range from {
		shard := &s.shards[shardOf(name)]
		if *shard == nil {
			*shard = map[types.NamespacedName][]gateway.EndpointPort{}
		}
		(*shard)[name] = ports
	}
	return s
}

// get returns the endpoints of one Service, and whether it is there. A nil *services
// has none.
func (s *services) get(name types.NamespacedName) ([]gateway.EndpointPort, bool) {
	if s == nil {
		return nil, false
	}
	ports, ok := s.shards[shardOf(name)][name]
	return ports, ok
}

// all returns all of them, in no order.
func (s *services) all() iter.Seq2[types.NamespacedName, []gateway.EndpointPort] {
	return func(yield func(types.NamespacedName, []gateway.EndpointPort) bool) {
		if s == nil {
			return
		}
		for _, shard := range s.shards {
			for name, ports := range shard {
				if !yield(name, ports) {
					return
				}
			}
		}
	}
}

// with returns services in which one that is there has other endpoints.
func (s *services) with(name types.NamespacedName, ports []gateway.EndpointPort) *services {
	next, i := *s, shardOf(name)
	next.shards[i] = maps.Clone(s.shards[i])
	next.shards[i][name] = ports
	return &next
}
