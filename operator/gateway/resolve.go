// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// ResolveOptions say which backends are local.
type ResolveOptions struct {
	// NodeName is compared with the nodeName of endpoints, if not empty.
	NodeName string `json:"nodeName,omitempty"`
	// HostAddresses are the host's own: a backend on them is local too.
	HostAddresses []netip.Addr `json:"hostAddresses,omitempty"`
}

func (o ResolveOptions) isLocal(addr netip.Addr, node string) bool {
	return o.NodeName != "" && node == o.NodeName || slices.Contains(o.HostAddresses, addr)
}

// Resolution is a translation with its endpoints: a normalized state, and
// what was wrong with endpoints.
type Resolution struct {
	State    lb.State
	problems [][]Problem // of each frontend
}

// Resolve turns the Services that frontends name into their endpoints.
func Resolve(t *Translation, e Endpoints, o ResolveOptions) Resolution {
	r := Resolution{
		State: lb.State{
			Addresses: slices.Clone(t.Addresses),
			Frontends: make([]lb.Frontend, len(t.Frontends)),
		},
		problems: make([][]Problem, len(t.Frontends)),
	}
	keys := t.keys()
	for i := range t.Frontends {
		r.State.Frontends[i], r.problems[i] = resolve(&t.Frontends[i], keys, e, o)
	}
	return r
}

// Update returns the resolution after endpoints of these Services changed. It
// equals that of Resolve and does only their frontends' share of the work. The
// receiver must come from the same translation and stays as it is.
func (r Resolution) Update(t *Translation, e Endpoints, o ResolveOptions, services ...types.NamespacedName) Resolution {
	r.State.Frontends = slices.Clone(r.State.Frontends)
	r.problems = slices.Clone(r.problems)
	keys := t.keys()
	for _, service := range services {
		for _, i := range t.Using(service) {
			r.State.Frontends[i], r.problems[i] = resolve(&t.Frontends[i], keys, e, o)
		}
	}
	return r
}

// Problems returns what was wrong with endpoints, each once.
func (r Resolution) Problems() []Problem {
	var all []Problem
	for _, problems := range r.problems {
		for _, p := range problems {
			if !slices.Contains(all, p) {
				all = append(all, p)
			}
		}
	}
	return all
}

// keys returns those of all frontends, to find backends that are frontends.
func (t *Translation) keys() map[lb.Key]bool {
	keys := make(map[lb.Key]bool, len(t.Frontends))
	for i := range t.Frontends {
		keys[t.Frontends[i].Key] = true
	}
	return keys
}

func resolve(f *Frontend, keys map[lb.Key]bool, e Endpoints, o ResolveOptions) (lb.Frontend, []Problem) {
	out := lb.Frontend{
		Addr: f.Addr, Protocol: f.Protocol, Port: f.Port,
		Gateway: f.Gateway, Listener: f.Listener, Route: f.Route,
		IdleTimeout: f.IdleTimeout, Reject: f.Reject,
	}
	var all []Problem
	for _, ref := range f.Refs {
		found, problems := e.find(ref, f.Key, o)
		all = append(all, problems...)
		all = append(all, distribute(&out, ref, found, keys)...)
	}
	one := lb.State{Frontends: []lb.Frontend{out}}
	one.Normalize()
	return one.Frontends[0], all
}

// distribute divides the reference's weight among the endpoints that can take
// new flows. Where there is none, its part of the connections is refused, as
// Gateway API wants it.
func distribute(out *lb.Frontend, ref Ref, found []endpoint, keys map[lb.Key]bool) []Problem {
	best := draining
	for _, ep := range found {
		best = max(best, ep.state)
	}
	var n uint64
	for _, ep := range found {
		if ep.state == best && best > draining {
			n++
		}
	}
	total := uint64(ref.Weight) * lb.WeightUnit
	if n == 0 {
		out.Reject += total
	}
	var problems []Problem
	for _, ep := range found {
		b := lb.Backend{Addr: ep.addr, Local: ep.local, Service: ref.Service.String()}
		if ep.state == best && n > 0 {
			b.Weight = total / n
		}
		key := lb.Key{Addr: ep.addr.Addr(), Protocol: out.Protocol, Port: ep.addr.Port()}
		if keys[key] {
			out.Reject += b.Weight
			problems = append(problems, Problem{Object: named("Service", ref.Service.Namespace, ref.Service.Name),
				Message: fmt.Sprintf("Endpoint %s is a frontend of Blixt itself, so its share is refused, lest packets go round in a circle.", key)})
			continue
		}
		out.Backends = append(out.Backends, b)
	}
	return problems
}
