// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Tables are the maps of a data plane. A trace looks up what the program would, one
// element at a time, and writes nothing.
type Tables struct{ maps map[string]*ebpf.Map }

// needed are the maps without which nothing can be said. Others may be missing: an
// earlier program lacks them, or they are not shared with an agent.
var needed = []string{
	bpf.LayoutMap, bpf.BlixtMapAddresses, bpf.BlixtMapFrontends, bpf.BlixtMapPublished, bpf.BlixtMapRings, bpf.BlixtMapBackends,
	bpf.BlixtMapFlows, bpf.BlixtMapNewFlows, bpf.BlixtMapUdpFlows,
}

var wanted = []string{
	bpf.BlixtMapInterest, bpf.BlixtMapLinkPackets, bpf.BlixtMapAnnouncing, bpf.BlixtMapHostPorts, bpf.BlixtMapMasqueradedPorts,
	bpf.BlixtMapFrontendPolicies, bpf.BlixtMapPolicies, bpf.BlixtMapPolicyStates, bpf.BlixtMapSources, bpf.BlixtMapLimitedSources, bpf.BlixtMapProven, bpf.BlixtMapSynCounts,
	bpf.BlixtMapPortSearches, bpf.BlixtMapProtectedClients, bpf.BlixtMapSilentNeighbours, bpf.BlixtMapAnnouncedUdp,
	bpf.BlixtMapPortRanges, bpf.BlixtMapAffinities, bpf.BlixtMapUdpAffinities, bpf.BlixtMapAffinityBackends,
}

// Open opens the maps that are pinned in dir, read-only. It returns the errors of
// datapath.Open where they are of another layout.
func Open(dir string) (*Tables, error) {
	t := &Tables{maps: map[string]*ebpf.Map{}}
	open := func(name string) error {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, name), &ebpf.LoadPinOptions{ReadOnly: true})
		if err == nil {
			t.maps[name] = m
		}
		return err
	}
	for _, name := range needed {
		if err := open(name); err != nil {
			t.Close()
			return nil, openError(dir, name, err)
		}
	}
	for _, name := range wanted {
		if err := open(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Close()
			return nil, fmt.Errorf("open map %s: %w", name, err)
		}
	}
	return t, nil
}

// openError says why a map could not be opened: most likely another layout.
func openError(dir, name string, err error) error {
	if all, other := datapath.Open(dir); other != nil {
		return other
	} else if other := all.Close(); other != nil {
		return other
	}
	return fmt.Errorf("open map %s: %w", name, err)
}

// New returns Tables of maps that are open, by name. The caller closes them.
func New(maps map[string]*ebpf.Map) (*Tables, error) {
	for _, name := range needed {
		if maps[name] == nil {
			return nil, fmt.Errorf("map %s is missing", name)
		}
	}
	return &Tables{maps: maps}, nil
}

// Close closes the maps.
func (t *Tables) Close() {
	for _, m := range t.maps {
		_ = m.Close()
	}
}

// find returns the element of a key. Without the map there is none.
func find[V any](x *tracer, name string, key any) (value V, found bool) {
	m := x.tables.maps[name]
	if m == nil || x.err != nil {
		return value, false
	}
	err := m.Lookup(key, &value)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		x.err = fmt.Errorf("read %s: %w", name, err)
	}
	return value, err == nil
}

// hasProgram is has_program in count.h: whether the program has seen a packet at an
// interface.
func (x *tracer) hasProgram(ifindex int) bool {
	for hook := range uint32(2) {
		packets, _ := find[[]uint64](x, bpf.BlixtMapLinkPackets, uint32(ifindex)%uint32(bpf.BlixtLimitMAX_LINKS)*2+hook)
		for _, n := range packets {
			if n > 0 {
				return true
			}
		}
	}
	return false
}
