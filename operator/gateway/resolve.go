// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// ResolveOptions say on which node a translation is resolved. The zero value
// is no node: no backend is local, and addresses of nodes stay unspecified.
type ResolveOptions struct {
	// NodeName is compared with the nodeName of endpoints, if not empty.
	NodeName string `json:"nodeName,omitempty"`
	// Zone is compared with the zones that endpoints are meant for, if not empty.
	Zone string `json:"zone,omitempty"`
	// HostAddresses are the host's own: a backend on them is local too, and a
	// frontend at the unspecified address is at each of them. What others have
	// put on an interface, as kube-proxy does ClusterIPs, is not the host's.
	HostAddresses []netip.Addr `json:"hostAddresses,omitempty"`
}

func (o ResolveOptions) isLocal(e *Endpoint) bool {
	return o.NodeName != "" && e.Node == o.NodeName || slices.Contains(o.HostAddresses, e.Addr.Addr())
}

// isNode is false for the operator, which is on no node of interest.
func (o ResolveOptions) isNode() bool { return o.NodeName != "" || len(o.HostAddresses) > 0 }

// Resolution is a translation with its endpoints: a normalized state, and
// what was wrong with endpoints.
type Resolution struct {
	State lb.State
	// sources are the indices of the translation's frontends that those of the
	// state come from, and keys those that the state has.
	sources  []int
	keys     map[lb.Key]bool
	problems [][]Problem // of each of the translation's frontends
}

// Resolve turns the Services that frontends name into their endpoints, and
// unspecified addresses into those of the host.
func Resolve(u *Unresolved, e Endpoints, o ResolveOptions) Resolution {
	r := Resolution{problems: make([][]Problem, len(u.Frontends))}
	r.expand(u, o)
	for i := range r.State.Frontends {
		r.resolve(u, i, e, o)
	}
	return r
}

// Update returns the resolution after endpoints of these Services changed. It
// equals that of Resolve and does only their frontends' share of the work. The
// receiver must come from the same translation and options, and stays as it is.
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

// resolve sets the state's frontend i.
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
