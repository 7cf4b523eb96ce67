// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"debug/elf"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
)

func TestSizesChangeNothingElse(t *testing.T) {
	o := builtin(t)
	r, err := o.Resize(Sizes{Flows: 1 << 20, RingSlots: 1 << 18, Addresses: 5000, Frontends: 8192, Backends: 1 << 17})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint32{
		"flows": 1 << 21, "new_flows": 1 << 19, "rings": 1 << 17, "addresses": 5000,
		"frontends": 8192, "published": 8192, "frontend_stats": 8192, "client_rtt": 8192, "established": 8193, "answer_buckets": 8197, "udp_flows": 1<<20 + 1<<17, "backends": 1 << 17, "backend_flows": 1 << 17,
		"port_searches": 1 << 18, "frontend_policies": 8192, "syn_counts": 8192, "affinity_backends": 1 << 17, "backend_health": 1 << 17,
	}
	before, after := specs(t, o.Bytes), specs(t, r.Bytes)
	for name, m := range before.Maps {
		expected := m.MaxEntries
		if n, ok := want[name]; ok {
			expected = n
		}
		if got := after.Maps[name].MaxEntries; got != expected {
			t.Errorf("map %s has %d entries, want %d", name, got, expected)
		}
	}
	// Each array by frontend or by backend has room for all of them; policies are not by frontend, slots are of flows in use, however many there are, and links of interfaces.
	for name, m := range before.Maps {
		of, rest := m.MaxEntries/uint32(bpf.BlixtLimitMAX_FRONTENDS), m.MaxEntries%uint32(bpf.BlixtLimitMAX_FRONTENDS)
		isArray := m.Type == ebpf.Array || m.Type == ebpf.PerCPUArray
		byFrontend, byBackend := of == 1 && rest < 16 && !strings.HasPrefix(name, "polic"), m.MaxEntries == uint32(bpf.BlixtLimitMAX_BACKENDS) || m.MaxEntries == 2*uint32(bpf.BlixtLimitMAX_BACKENDS)
		if isArray && (byFrontend || byBackend) && want[name] == 0 && name != bpf.BlixtMapFlowCache && name != bpf.BlixtMapSlotCounts && name != bpf.BlixtMapEgressLinks {
			t.Errorf("map %s of %d entries does not grow", name, m.MaxEntries)
		}
	}
	file := sections(t, r.Bytes)
	for name, content := range sections(t, o.Bytes) {
		if name != ".BTF" && !bytes.Equal(content, file[name]) {
			t.Errorf("section %s differs", name)
		}
	}
	// Back again: the same sizes, whatever is left over in the types.
	again, err := r.Resize(Sizes{Flows: 1 << 18, RingSlots: 1 << 22})
	if err != nil {
		t.Fatal(err)
	}
	if got := specs(t, again.Bytes).Maps["flows"].MaxEntries; got != 1<<19 {
		t.Errorf("flows has %d entries, want %d", got, 1<<19)
	}
}

func TestSizesAsCompiledKeepTheObject(t *testing.T) {
	o := builtin(t)
	r, err := o.Resize(Sizes{Flows: uint32(bpf.BlixtLimitMAX_FLOWS), RingSlots: uint32(bpf.BlixtLimitMAX_RING_SLOTS)})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o.SHA256, r.SHA256); diff != "" {
		t.Error(diff)
	}
}

func TestSizesOutOfRangeAreRefused(t *testing.T) {
	for _, c := range []struct {
		sizes Sizes
		texts []string
	}{
		{Sizes{Flows: 1}, []string{"1 flows: want 1024 to 4194304"}},
		{Sizes{RingSlots: 1<<18 + 1}, []string{"ring slots", "even"}},
		{Sizes{Frontends: 10, Backends: 1 << 30}, []string{"10 frontends: want 4096", "backends: want 65536 to 1048576"}},
	} {
		_, err := builtin(t).Resize(c.sizes)
		wantError(t, err, c.texts...)
	}
}

func TestDamagedTypesAreRefused(t *testing.T) {
	object := bpf.Object()
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	at := file.Section(".BTF").Offset
	for name, damage := range map[string]func([]byte){
		"magic":   func(b []byte) { b[0] = 0 },
		"lengths": func(b []byte) { b[12] ^= 0xff },
		"strings": func(b []byte) { b[23] = 0xff },
		"members": func(b []byte) { b[24+4], b[24+5], b[24+7] = 0xff, 0xff, kindStruct },
	} {
		damaged := bytes.Clone(object)
		damage(damaged[at:])
		if _, err := setMaxEntries(damaged, map[string]uint32{"flows": 2}); err == nil {
			t.Errorf("%s damaged: no error", name)
		}
	}
	_, err = setMaxEntries(object, map[string]uint32{"nothing": 2})
	wantError(t, err, "map nothing", "has none")
}

func TestResizedObjectIsLoadedByTheKernel(t *testing.T) {
	o, err := builtin(t).Resize(Sizes{Flows: 5000, RingSlots: 1 << 18, Frontends: 5000})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(specs(t, o.Bytes))
	if err != nil {
		t.Fatalf("%v (this test needs root)", err)
	}
	defer c.Close()
	for _, m := range o.Maps {
		if got := c.Maps[m.Name].MaxEntries(); got != m.MaxEntries {
			t.Errorf("map %s has %d entries, want %d", m.Name, got, m.MaxEntries)
		}
	}
	if got := c.Maps["flows"].MaxEntries(); got != 10000 {
		t.Errorf("flows has %d entries, want 10000", got)
	}
}

func specs(t *testing.T, object []byte) *ebpf.CollectionSpec {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func sections(t *testing.T, object []byte) map[string][]byte {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, s := range file.Sections {
		if s.Type == elf.SHT_NULL {
			continue
		}
		if all[s.Name], err = s.Data(); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
