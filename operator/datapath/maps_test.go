// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// specMaps creates the maps of the embedded object, which needs root.
func specMaps(t testing.TB, change func(*ebpf.CollectionSpec)) map[string]*ebpf.Map {
	t.Helper()
	spec, err := bpf.LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	change(spec)
	all := map[string]*ebpf.Map{}
	for name, s := range spec.Maps {
		if name[0] == '.' {
			continue
		}
		m, err := ebpf.NewMap(s)
		if err != nil {
			t.Fatalf("create map %s, which needs root: %v", name, err)
		}
		t.Cleanup(func() { m.Close() })
		all[name] = m
	}
	return all
}

func kernelMaps(t testing.TB, s Sizes) *Maps {
	t.Helper()
	m, err := New(specMaps(t, func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.BlixtMapFlows].MaxEntries = uint32(2 * s.Flows)
		spec.Maps[bpf.BlixtMapNewFlows].MaxEntries = uint32(2 * s.NewFlows)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}
