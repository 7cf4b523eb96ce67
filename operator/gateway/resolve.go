// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// ResolveOptions are the node on which frontends are resolved. The zero value
// is no node: no backend is local, and addresses of nodes stay unspecified.
type ResolveOptions struct {
	// NodeName, unless empty, is compared with the nodeName of endpoints.
	NodeName string `json:"nodeName,omitempty"`
	// Zone, unless empty, is compared with the zones of topology hints.
	Zone string `json:"zone,omitempty"`
	// HostAddresses are the host's own. A backend at one of them is local, and
	// a frontend at the unspecified address is at each of them. Addresses that
	// others put on an interface, as kube-proxy does with ClusterIPs, are not
	// the host's own.
	HostAddresses []netip.Addr `json:"hostAddresses,omitempty"`
}

func (o ResolveOptions) isLocal(e *Endpoint) bool {
	return o.NodeName != "" && e.Node == o.NodeName || slices.Contains(o.HostAddresses, e.Addr.Addr())
}

// isNode reports whether the options are those of a node. The operator's are
// not.
func (o ResolveOptions) isNode() bool { return o.NodeName != "" || len(o.HostAddresses) > 0 }

// Resolution is what frontends resolve to: a normalized state, and the problems
// of endpoints.
type Resolution struct {
	State lb.State
	// sources are, for each frontend of the state, the index of the unresolved
	// frontend that it comes from. keys are the keys of the state's frontends.
	sources  []int
	keys     map[lb.Key]bool
	problems [][]Problem // of each unresolved frontend
}

// Resolve replaces the Services that frontends name by their endpoints, and
// unspecified addresses by those of the host.
func Resolve(u *Unresolved, e Endpoints, o ResolveOptions) Resolution {
	r := Resolution{problems: make([][]Problem, len(u.Frontends))}
	r.expand(u, o)
	for i := range r.State.Frontends {
		r.resolve(u, i, e, o)
	}
	return r
}

// Update returns the resolution after the endpoints of some Services have
// changed. The result equals that of Resolve, at the cost of their frontends
// only. The receiver must come from the same u and options, and is not
// modified.
func (r Resolution) Update(u *Unresolved, e Endpoints, o ResolveOptions, services ...types.NamespacedName) Resolution {
	r.State.Frontends = slices.Clone(r.State.Frontends)
	r.problems = slices.Clone(r.problems)
	for i, source := range r.sources {
		if slices.ContainsFunc(u.Frontends[source].Refs, func(ref Ref) bool { return slices.Contains(services, ref.Service) }) {
			r.resolve(u, i, e, o)
		}
	}
	return r
}

// Problems returns the problems of endpoints, without duplicates.
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

// resolve sets frontend i of the state.
func (r *Resolution) resolve(u *Unresolved, i int, e Endpoints, o ResolveOptions) {
	source, key := r.sources[i], r.State.Frontends[i].Key()
	f := &u.Frontends[source]
	out := lb.Frontend{
		Addr: key.Addr, Protocol: key.Protocol, Port: key.Port,
		Gateway: f.Gateway, Listener: f.Listener, Route: f.Route,
		IdleTimeout: f.IdleTimeout, Reject: f.Reject,
	}
	s := newShares(f, key, e, o)
	problems := s.fill(&out, r.keys)
	one := lb.State{Frontends: []lb.Frontend{out}}
	one.Normalize()
	r.State.Frontends[i], r.problems[source] = one.Frontends[0], problems
}
