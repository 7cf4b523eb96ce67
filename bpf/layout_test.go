// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

// Agents and programs of one layout may be of different versions. So nothing of a
// layout may change once it is released: no map, no size, no offset, no flag, no
// counter.
func TestLayoutIsTheSame(t *testing.T) {
	path := fmt.Sprintf("testdata/layout-%d.txt", Layout)
	got := describeLayout(t)
	if golden.Update() {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("layout %d is not described yet, -update does it: %v", Layout, err)
	}
	if diff := gocmp.Diff(string(want), got); diff != "" {
		t.Errorf("this changes layout %d: raise BLIXT_LAYOUT if %d has been released; in both cases go test ./bpf -run=%s -update writes %s (-file +got):\n%s",
			Layout, Layout, t.Name(), path, diff)
	}
}

// describeLayout lists everything in the object that an agent relies on.
func describeLayout(t *testing.T) string {
	t.Helper()
	spec, err := LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	structs := map[string]*btf.Struct{}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		m := spec.Maps[name]
		if strings.HasPrefix(name, ".") || name == BlixtMapPackets { // the program's own
			continue
		}
		fmt.Fprintf(&b, "map %s: %s of %d, flags %#x, key %d bytes, value %d bytes\n", name, m.Type, m.MaxEntries, m.Flags, m.KeySize, m.ValueSize)
		for _, typ := range []btf.Type{m.Key, m.Value} {
			collectStructs(typ, structs)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(structs)) {
		fmt.Fprintf(&b, "\nstruct %s, %d bytes\n", name, structs[name].Size)
		for _, m := range structs[name].Members {
			size, err := btf.Sizeof(m.Type)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "%4d %s, %d bytes\n", m.Offset.Bytes(), m.Name, size)
		}
	}
	for _, name := range []string{
		"layout", "limit", "clock", "address_flag", "published_bits", "backend_id", "backend_flag", "flow_flag", "config_flag", "counter",
	} {
		fmt.Fprintf(&b, "\nenum %s\n", name)
		values := enumOf(spec, name)
		for _, name := range slices.SortedFunc(maps.Keys(values), func(x, y string) int {
			return cmp.Or(cmp.Compare(values[x], values[y]), cmp.Compare(x, y))
		}) {
			fmt.Fprintf(&b, "%7d %s\n", values[name], name)
		}
	}
	return b.String()
}

// collectStructs adds the structs that a type consists of.
func collectStructs(typ btf.Type, all map[string]*btf.Struct) {
	s, ok := btf.UnderlyingType(typ).(*btf.Struct)
	if !ok || all[s.Name] != nil {
		return
	}
	all[s.Name] = s
	for _, m := range s.Members {
		collectStructs(m.Type, all)
	}
}

// The list holds what it is for: each of these changes shows in it.
func TestLayoutIsDescribed(t *testing.T) {
	spec, err := LoadBlixt()
	if err != nil {
		t.Fatal(err)
	}
	text := describeLayout(t)
	for name, m := range spec.Maps {
		if name != BlixtMapPackets && !strings.HasPrefix(name, ".") && !strings.Contains(text, fmt.Sprintf("map %s: %s of %d,", name, m.Type, m.MaxEntries)) {
			t.Errorf("map %s is not described", name)
		}
	}
	for name := range enumOf(spec, "counter") {
		if !strings.Contains(text, name+"\n") {
			t.Errorf("%s is not described", name)
		}
	}
	for _, line := range []string{"struct flow, 96 bytes", "struct config, 128 bytes", "  24 flags, 4 bytes", "  28 snat_min, 2 bytes"} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
}
