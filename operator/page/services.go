// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// serviceSums are the Services of a listener in progress, by name.
type serviceSums map[string]*serviceSum

// serviceSum is a Service in progress.
type serviceSum struct {
	Service
	flows    uint64
	backends map[string]*backendSum
	// ready and draining are the most backends that a node has for an address of IPv4 [0]
	// and of IPv6 [1], if it leaves some of them out of backends.
	ready, draining [2]int
}

type backendSum struct {
	Backend
	flows uint64
}

func (all serviceSums) of(name string) *serviceSum {
	s := all[name]
	if s == nil {
		s = &serviceSum{Service: Service{Name: name}, backends: map[string]*backendSum{}}
		all[name] = s
	}
	return s
}

// add adds a frontend, which counts with a part of its listener.
func (all serviceSums) add(b *build, f served, part float64) {
	known, was := f.was != nil, cmp.Or(f.was, &unknown)
	backends := finder[backendKey, writer.BackendStatus]{all: was.Backends, key: keyOfBackend}
	for i := range f.Backends {
		is := &f.Backends[i]
		before := backends.find(i, keyOfBackend(is))
		all.of(is.Service).addBackend(b, is, before, part)
		if f.Services == nil { // a node of an earlier version
			sum := writer.ServiceStatus{RingShare: is.RingShare, NewFlows: is.NewFlows, ActiveFlows: is.ActiveFlows}
			flows := uint64(0)
			if before != nil {
				flows = before.NewFlows
			}
			all.of(is.Service).addSum(b, &sum, before != nil, flows, part)
		}
	}
	services := finder[serviceKey, writer.ServiceStatus]{all: was.Services, key: keyOfService}
	for i := range f.Services {
		is, flows := &f.Services[i], uint64(0)
		before := services.find(i, keyOfService(is))
		if before != nil {
			flows = before.NewFlows
		}
		all.of(is.Service).addSum(b, is, known && before != nil, flows, part)
	}
	if f.MoreBackends > 0 {
		all.count(f)
	}
}

// count counts the backends of a frontend by its sums.
func (all serviceSums) count(f served) {
	ready, draining := map[string]int{}, map[string]int{}
	for _, is := range f.Services {
		ready[is.Service] += is.Ready
		draining[is.Service] += is.Draining
	}
	family := 0
	if strings.HasPrefix(f.Frontend, "[") {
		family = 1
	}
	for name := range ready {
		s := all[name]
		s.ready[family], s.draining[family] = max(s.ready[family], ready[name]), max(s.draining[family], draining[name])
	}
}

// addSum adds what all backends of a frontend have together.
func (s *serviceSum) addSum(b *build, is *writer.ServiceStatus, known bool, was uint64, part float64) {
	s.Wanted += is.RingShare * part
	s.Active += is.ActiveFlows
	s.flows += is.NewFlows
	b.rate(&s.NewFlows, known, was, is.NewFlows)
}

// addBackend adds a backend of a frontend, and what it was before; nil: that is not known.
func (s *serviceSum) addBackend(b *build, is, was *writer.BackendStatus, part float64) {
	to := s.backends[is.Address]
	if to == nil {
		to = &backendSum{Backend: Backend{Address: is.Address, State: is.State, Drained: is.Drained, Local: is.Local, Weight: is.Weight}}
		s.backends[is.Address] = to
	}
	if is.State == lb.StateServing { // for another address of the Gateway, or another node
		to.State = is.State
	}
	to.Wanted += is.RingShare * part
	to.Active += is.ActiveFlows
	to.flows += is.NewFlows
	if was != nil {
		b.rate(&to.NewFlows, true, was.NewFlows, is.NewFlows)
	}
}

// service returns a Service with its backends; total is how many flows its listener had.
func (b *build) service(s *serviceSum, total uint64, open bool) Service {
	if total > 0 {
		s.Seen = float64(s.flows) / float64(total)
	}
	all := make([]*backendSum, 0, len(s.backends))
	for _, one := range s.backends {
		if one.State == lb.StateServing {
			s.Ready++
		} else {
			s.Draining++
		}
		all = append(all, one)
	}
	s.Ready, s.Draining = max(s.Ready, s.ready[0]+s.ready[1]), max(s.Draining, s.draining[0]+s.draining[1])
	slices.SortFunc(all, func(a, b *backendSum) int {
		return cmp.Or(cmp.Compare(lb.StateRank(a.State), lb.StateRank(b.State)), strings.Compare(a.Address, b.Address))
	})
	most := mostBackends
	if open {
		most = openBackends
	}
	some, _ := limit(all, min(most, b.room))
	b.room -= len(some)
	s.MoreBackends, s.Backends = s.Ready+s.Draining-len(some), make([]Backend, 0, len(some))
	for _, one := range some {
		if total > 0 {
			one.Seen = float64(one.flows) / float64(total)
		}
		s.Backends = append(s.Backends, one.Backend)
	}
	return s.Service
}
