// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"errors"
	"fmt"
	"maps"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// Sizes of tables, 0: as compiled. bpfman takes them from the object, without a way to
// change them, so they are chosen when an image is built.
type Sizes struct {
	// Flows is the number of established TCP flows, see bpf.FlowTables for others.
	Flows uint32
	// RingSlots is the number of slots of all rings.
	RingSlots uint32
	// Addresses, Frontends and Backends can be more than compiled, not fewer.
	Addresses, Frontends, Backends uint32
}

// The limits of Sizes; those of flows and slots are the loader's. A reference to a ring
// has 24 bits for its first slot. Half of them leave room for a new ring beside the one
// that it replaces.
const (
	MinFlows     = bpf.MinFlows
	MaxFlows     = bpf.MaxFlows
	MinRingSlots = bpf.MinRingSlots
	MaxRingSlots = bpf.MaxRingSlots
	MaxFrontends = 1 << 16
	MaxBackends  = 1 << 20
)

// Resize returns an object with other table sizes: the same object if it has these sizes.
func (o *Object) Resize(s Sizes) (*Object, error) {
	want, err := o.entries(s)
	if err != nil || len(want) == 0 {
		return o, err
	}
	object, err := setMaxEntries(o.Bytes, want)
	if err != nil {
		return nil, err
	}
	resized, err := ParseObject(object)
	if err != nil {
		return nil, fmt.Errorf("resized object: %w", err)
	}
	// Read the result back: nothing but sizes may differ.
	for i, m := range resized.Maps {
		expected := o.Maps[i]
		if n, ok := want[m.Name]; ok {
			expected.MaxEntries = n
		}
		if m != expected {
			return nil, fmt.Errorf("resized object: map %s is %+v, want %+v", m.Name, m, expected)
		}
	}
	return resized, nil
}

// entries returns max_entries of the maps that sizes change.
func (o *Object) entries(s Sizes) (map[string]uint32, error) {
	have := map[string]uint32{}
	for _, m := range o.Maps {
		have[m.Name] = m.MaxEntries
	}
	want := map[string]uint32{}
	var errs []error
	choose := func(what string, n, least, most uint32, tables map[string]uint32) {
		if n == 0 {
			return
		}
		if n < least || n > most {
			errs = append(errs, fmt.Errorf("%d %s: want %d to %d", n, what, least, most))
			return
		}
		maps.Copy(want, tables)
	}
	choose("flows", s.Flows, MinFlows, MaxFlows, bpf.FlowTables(s.Flows))
	if s.RingSlots%2 != 0 {
		errs = append(errs, fmt.Errorf("%d ring slots: want an even number", s.RingSlots))
	}
	choose("ring slots", s.RingSlots, MinRingSlots, MaxRingSlots, map[string]uint32{bpf.BlixtMapRings: s.RingSlots / 2})
	choose("addresses", s.Addresses, have[bpf.BlixtMapAddresses], MaxFrontends, map[string]uint32{bpf.BlixtMapAddresses: s.Addresses})
	choose("frontends", s.Frontends, have[bpf.BlixtMapFrontends], MaxFrontends, map[string]uint32{
		bpf.BlixtMapFrontends: s.Frontends, bpf.BlixtMapPublished: s.Frontends, bpf.BlixtMapFrontendStats: s.Frontends, bpf.BlixtMapClientRtt: s.Frontends, bpf.BlixtMapFrontendPolicies: s.Frontends, bpf.BlixtMapSynCounts: s.Frontends,
		bpf.BlixtMapEstablished: 1 + s.Frontends,
		// Besides those of frontends there are others: the shares of ratelimit.h.
		bpf.BlixtMapAnswerBuckets: have[bpf.BlixtMapAnswerBuckets] - have[bpf.BlixtMapFrontends] + s.Frontends,
	})
	choose("backends", s.Backends, have[bpf.BlixtMapBackends], MaxBackends, map[string]uint32{
		bpf.BlixtMapBackends: s.Backends, bpf.BlixtMapBackendFlows: s.Backends, bpf.BlixtMapPortSearches: 2 * s.Backends, bpf.BlixtMapAffinityBackends: s.Backends, bpf.BlixtMapBackendHealth: s.Backends,
	})
	for name, n := range want {
		if _, ok := have[name]; !ok {
			errs = append(errs, fmt.Errorf("map %s, which is to have %d entries, is not in the object", name, n))
		}
		if have[name] == n {
			delete(want, name)
		}
	}
	return want, errors.Join(errs...)
}
