// SPDX-License-Identifier: Apache-2.0

package page

import (
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// past is what a node reported for the View before; nil: nothing.
type past struct {
	report    top.Report
	frontends finder[frontendKey, writer.FrontendStatus]
	refs      finder[refKey, top.Ref]
}

// The names of what has counters of its own. An index or an id may be given to another
// frontend or backend.
type (
	frontendKey struct {
		name string
		id   uint32
	}
	backendKey struct {
		address string
		id      uint32
	}
	serviceKey struct {
		name string
		port uint16
	}
	refKey struct {
		gateway, route, service, protocol string
		port                              uint16
	}
)

func keyOfFrontend(f *writer.FrontendStatus) frontendKey { return frontendKey{f.Frontend, f.Index} }
func keyOfBackend(b *writer.BackendStatus) backendKey    { return backendKey{b.Address, b.ID} }
func keyOfService(s *writer.ServiceStatus) serviceKey    { return serviceKey{s.Service, s.Port} }
func keyOfRef(r *top.Ref) refKey {
	return refKey{r.Gateway, r.Route, r.Service, r.Protocol, r.Port}
}

func pasts(reports map[string]top.Report) map[string]*past {
	all := make(map[string]*past, len(reports))
	for node, r := range reports {
		all[node] = &past{
			report:    r,
			frontends: finder[frontendKey, writer.FrontendStatus]{all: r.Frontends, key: keyOfFrontend},
			refs:      finder[refKey, top.Ref]{all: r.Refs, key: keyOfRef},
		}
	}
	return all
}

func (p *past) totals() (t top.Totals, known bool) {
	if p == nil {
		return t, false
	}
	return totalsOf(p.report), true
}

func (p *past) counter(name string) (n uint64, known bool) {
	if p == nil {
		return 0, false
	}
	n, known = p.report.Counters[name]
	return n, known
}

// frontend returns what the frontend at place i was; nil: that is not known.
func (p *past) frontend(i int, f *writer.FrontendStatus) *writer.FrontendStatus {
	if p == nil {
		return nil
	}
	return p.frontends.find(i, keyOfFrontend(f))
}

// ref returns what the backendRef at place i was; nil: that is not known.
func (p *past) ref(i int, r *top.Ref) *top.Ref {
	if p == nil {
		return nil
	}
	return p.refs.find(i, keyOfRef(r))
}

// finder finds elements of a report by what names them. They are at the same place as in
// the report after it, mostly.
type finder[K comparable, V any] struct {
	all   []V
	key   func(*V) K
	byKey map[K]int
}

// find returns the element of a name, which may be at place i; nil: there is none.
func (f *finder[K, V]) find(i int, key K) *V {
	if i < len(f.all) && f.key(&f.all[i]) == key {
		return &f.all[i]
	}
	if f.byKey == nil {
		f.byKey = make(map[K]int, len(f.all))
		for at := range f.all {
			f.byKey[f.key(&f.all[at])] = at
		}
	}
	if at, is := f.byKey[key]; is {
		return &f.all[at]
	}
	return nil
}

// since returns what was counted since the View before.
func since(was, value uint64) uint64 {
	if value < was { // the counter began anew
		return 0
	}
	return value - was
}

// rate adds the rate of a counter to a sum, if it is known what it was.
func (b *build) rate(sum *Rate, known bool, was, value uint64) {
	if !known || b.seconds <= 0 {
		return
	}
	if *sum == nil {
		*sum = new(float64)
	}
	**sum += float64(since(was, value)) / b.seconds
}
