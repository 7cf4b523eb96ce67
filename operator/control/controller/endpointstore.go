// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"maps"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// endpointStore has the endpoints of the Services that frontends name. The publisher
// sets them.
type endpointStore struct {
	mu    sync.Mutex
	known gateway.Endpoints
}

// replace sets all of them. The map stays the caller's.
func (s *endpointStore) replace(e gateway.Endpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known = maps.Clone(e)
}

// set sets those of one Service.
func (s *endpointStore) set(service types.NamespacedName, e gateway.ServiceEndpoints) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[service] = e
}

// get returns those of one Service.
func (s *endpointStore) get(service types.NamespacedName) (gateway.ServiceEndpoints, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.known[service]
	return e, ok
}

// all returns those of all Services. The map is the caller's.
func (s *endpointStore) all() gateway.Endpoints {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.known)
}
