// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"maps"
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
	// ThroughStack has backends on other nodes reached by the node's network stack
	// alone.
	ThroughStack bool `json:"throughStack,omitempty"`
	// Drained are endpoints that somebody has drained by hand: they count as not ready. If
	// a reference has no others, its connections go to the other references of its route.
	Drained lb.DrainedSet `json:"drained,omitempty"`
	// Ejected are endpoints that are not healthy.
	Ejected lb.EjectedSet `json:"-"`
	// Failovers remembers which groups of backends serve; nil: nothing is remembered.
	Failovers *Failovers `json:"-"`
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
	sources []int
	keys    map[lb.Key]bool
	// ranges are the further ports of frontends.
	ranges map[rangePlace][]lb.PortRange
	// uses are the indices of the state's frontends that name a Service.
	uses     map[types.NamespacedName][]int
	problems [][]Problem // of each unresolved frontend
}

// Resolve replaces the Services that frontends name by their endpoints, and
// unspecified addresses by those of the host.
func Resolve(u *Unresolved, e Endpoints, o ResolveOptions) Resolution {
	r := Resolution{problems: make([][]Problem, len(u.Frontends))}
	r.expand(u, o)
	r.State.Sources = u.Sources
	r.uses = map[types.NamespacedName][]int{}
	o.Failovers.begin()
	defer o.Failovers.end()
	for i := range r.State.Frontends {
		r.resolve(u, i, e, o)
		for _, ref := range u.Frontends[r.sources[i]].Refs {
			if n := r.uses[ref.Service]; len(n) == 0 || n[len(n)-1] != i {
				r.uses[ref.Service] = append(n, i)
			}
		}
	}
	return r
}

// Update resolves again what names a Service whose endpoints have changed. Then
// the resolution equals that of Resolve, at the cost of these frontends only,
// which are returned. The resolution must come from the same u and options. The
// slice State.Frontends changes, but nothing that frontends refer to.
func (r *Resolution) Update(u *Unresolved, e Endpoints, o ResolveOptions, services ...types.NamespacedName) []lb.Frontend {
	stale := map[int]bool{}
	for _, service := range services {
		for _, i := range r.uses[service] {
			stale[i] = true
		}
	}
	changed := make([]lb.Frontend, 0, len(stale))
	for _, i := range slices.Sorted(maps.Keys(stale)) {
		r.resolve(u, i, e, o)
		changed = append(changed, r.State.Frontends[i])
	}
	return changed
}

// Clone returns a resolution of which Update does not modify this one.
func (r Resolution) Clone() Resolution {
	r.State.Frontends, r.problems = slices.Clone(r.State.Frontends), slices.Clone(r.problems)
	return r
}

// loops reports whether packets to a backend would come back: it is a frontend itself, or at a
// port that one serves as well. A frontend that keeps ports leads to any port of a backend.
func (r *Resolution) loops(f *Frontend, key lb.Key) bool {
	if r.keys[key] || len(r.ranges) == 0 {
		return r.keys[key]
	}
	ranges := r.ranges[rangePlace{key.Addr, key.Protocol}]
	if f.Ports != nil && len(ranges) > 0 {
		return true
	}
	return slices.ContainsFunc(ranges, func(p lb.PortRange) bool { return p.First <= key.Port && key.Port <= p.Last })
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
		IdleTimeout: f.IdleTimeout, Reject: f.Reject, PreserveClient: f.PreserveClient, Records: f.Records,
		Settings: f.Settings,
	}
	for _, ref := range f.Refs {
		out.Refs = append(out.Refs, lb.ServicePort{Service: ref.Service.String(), Port: ref.Port})
	}
	slices.SortFunc(out.Refs, lb.ServicePort.Compare)
	out.Refs = slices.Compact(out.Refs)
	s := newShares(f, key, e, o)
	problems := s.fill(&out, func(key lb.Key) bool { return r.loops(f, key) })
	one := lb.State{Frontends: []lb.Frontend{out}}
	one.Normalize()
	r.State.Frontends[i], r.problems[source] = one.Frontends[0], problems
}
