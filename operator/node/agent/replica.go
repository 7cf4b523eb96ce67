// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// Replica is an agent's copy of what the operator has published, and what it
// resolves to on this node.
type Replica struct {
	// Version is nil until a complete update has arrived.
	Version *lb.Version
	// Sum identifies what the operator published: see wire.SumFrontend.
	Sum lb.Sum
	// Unresolved and Endpoints are what the operator published.
	Unresolved gateway.Unresolved
	frontends  map[lb.Key]gateway.Frontend // those of Unresolved
	sources    map[string]lb.SourceSet     // the same
	Endpoints  gateway.Endpoints
	// Resolution is the state of this node, and how it was resolved.
	Resolution gateway.Resolution
	// changed are the frontends of the state, and changedSources the policies of its sets,
	// in which it differs from the one that state had returned when taken was called,
	// unless all of it may differ.
	changed        []lb.Frontend
	changedSources map[string]bool
	everything     bool
}

// Apply applies an encoded update. It returns an error if the update is invalid or
// does not follow on what the replica holds; the replica is then empty, and the
// next update has to be complete.
func (r *Replica) Apply(data []byte, o gateway.ResolveOptions) error {
	u := &wire.Update{}
	err := proto.Unmarshal(data, u)
	if err == nil {
		err = r.update(u, o)
	}
	if err != nil {
		*r = Replica{}
		return fmt.Errorf("read update: %w", err)
	}
	return nil
}

func (r *Replica) update(u *wire.Update, o gateway.ResolveOptions) error {
	version, base := wire.DecodeVersion(u.Version), wire.DecodeVersion(u.Base)
	switch {
	case version == nil:
		return fmt.Errorf("the update has no version")
	case base == nil:
		*r = Replica{frontends: map[lb.Key]gateway.Frontend{}, Endpoints: gateway.Endpoints{}, sources: map[string]lb.SourceSet{}}
	case r.Version == nil || *base != *r.Version:
		return fmt.Errorf("state %d is an update of state %d, which is not here", version.Sequence, base.Sequence)
	}
	d := &wire.Decoder{}
	if u.Addresses != nil {
		r.setAddresses(d, u.Addresses.List)
	}
	for _, f := range u.Frontends {
		frontend := d.Frontend(f)
		r.removeFrontend(frontend.Key)
		r.frontends[frontend.Key] = frontend
		r.Sum.Add(wire.SumFrontend(frontend))
	}
	for _, k := range u.GoneFrontends {
		r.removeFrontend(d.Key(k))
	}
	var services []types.NamespacedName
	for _, s := range u.Services {
		name, service := wire.DecodeName(s.Name), d.Service(s)
		services = append(services, name)
		r.removeService(name)
		r.Endpoints[name] = service
		r.Sum.Add(wire.SumService(name, service.Ports))
	}
	for _, n := range u.GoneServices {
		services = append(services, wire.DecodeName(n))
		r.removeService(wire.DecodeName(n))
	}
	r.setSources(d, u)
	if d.Err != nil {
		return d.Err
	}
	r.Version = version
	if base != nil && u.Addresses == nil && len(u.Frontends)+len(u.GoneFrontends) == 0 {
		r.changed = append(r.changed, r.Resolution.Update(&r.Unresolved, r.Endpoints, o, services...)...)
		return nil
	}
	r.Unresolved.Frontends = slices.SortedFunc(maps.Values(r.frontends), func(a, b gateway.Frontend) int { return a.Key.Compare(b.Key) })
	r.resolve(o)
	return nil
}

func (r *Replica) setAddresses(d *wire.Decoder, list []*wire.Address) {
	for _, a := range r.Unresolved.Addresses {
		r.Sum.Remove(wire.SumAddress(a))
	}
	r.Unresolved.Addresses = nil
	for _, a := range list {
		address := lb.Address{IP: d.Addr(a.Ip), Exclusive: a.Exclusive}
		r.Unresolved.Addresses = append(r.Unresolved.Addresses, address)
		r.Sum.Add(wire.SumAddress(address))
	}
}

func (r *Replica) removeFrontend(key lb.Key) {
	if f, ok := r.frontends[key]; ok {
		r.Sum.Remove(wire.SumFrontend(f))
		delete(r.frontends, key)
	}
}

func (r *Replica) removeService(name types.NamespacedName) {
	if s, ok := r.Endpoints[name]; ok {
		r.Sum.Remove(wire.SumService(name, s.Ports))
		delete(r.Endpoints, name)
	}
}

// setSources replaces the sets of sources that the update has.
func (r *Replica) setSources(d *wire.Decoder, u *wire.Update) {
	if len(u.SourceSets)+len(u.GoneSourceSets) == 0 {
		return
	}
	if r.changedSources == nil {
		r.changedSources = map[string]bool{}
	}
	for _, s := range u.SourceSets {
		set := d.SourceSet(s)
		r.removeSources(set.Policy)
		r.sources[set.Policy] = set
		r.Sum.Add(wire.SumSourceSet(&set))
	}
	for _, policy := range u.GoneSourceSets {
		r.removeSources(policy)
	}
	r.Unresolved.Sources = slices.SortedFunc(maps.Values(r.sources), func(a, b lb.SourceSet) int { return cmp.Compare(a.Policy, b.Policy) })
	r.Resolution.State.Sources = r.Unresolved.Sources
}

func (r *Replica) removeSources(policy string) {
	r.changedSources[policy] = true
	if s, ok := r.sources[policy]; ok {
		r.Sum.Remove(wire.SumSourceSet(&s))
		delete(r.sources, policy)
	}
}

// resolve resolves everything again, as after the node has changed.
func (r *Replica) resolve(o gateway.ResolveOptions) {
	r.Resolution = gateway.Resolve(&r.Unresolved, r.Endpoints, o)
	r.changed, r.changedSources, r.everything = nil, nil, true
}

// state returns the state, or what of it has changed since taken was called.
func (r *Replica) state() writer.VersionedState {
	version := *r.Version
	if r.everything {
		s := r.Resolution.State
		s.Frontends = slices.Clone(s.Frontends) // the next update changes elements
		return writer.VersionedState{State: s, Version: &version}
	}
	// A Service that has changed twice has its frontends here twice.
	newest := make(map[lb.Key]lb.Frontend, len(r.changed))
	for _, f := range r.changed {
		newest[f.Key()] = f
	}
	s := writer.VersionedState{Changed: slices.AppendSeq(make([]lb.Frontend, 0, len(newest)), maps.Values(newest)), Version: &version}
	for policy := range r.changedSources {
		if set, ok := r.sources[policy]; ok {
			s.Sources = append(s.Sources, set)
		} else {
			s.GoneSources = append(s.GoneSources, policy)
		}
	}
	return s
}

// taken says that the writer has what state has returned.
func (r *Replica) taken() { r.changed, r.changedSources, r.everything = nil, nil, false }
