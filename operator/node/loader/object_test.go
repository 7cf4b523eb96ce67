// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
)

func TestObjectOfAnotherBuildIsLoaded(t *testing.T) {
	o := sandbox(t)
	addInterface(t, "d0")
	built, err := bytecode.ParseObject(bpf.Object())
	if err != nil {
		t.Fatal(err)
	}
	if built, err = built.Resize(bytecode.Sizes{Flows: 5000, RingSlots: bpf.MinRingSlots, Frontends: 5000}); err != nil {
		t.Fatal(err)
	}
	o.Object, o.Flows, o.RingSlots, o.Interfaces = built.Bytes, 0, 0, interfaces(t, "d0")
	l := mustLoad(t, o)
	defer l.Close(false)
	for name, want := range map[string]uint32{"flows": 10000, "rings": bpf.MinRingSlots / 2, "frontends": 5000} {
		if got := l.maps[name].MaxEntries(); got != want {
			t.Errorf("map %s has %d entries, want %d", name, got, want)
		}
	}
	if links := mustInfo(t, l).Links; len(links) != 2 {
		t.Errorf("%d links, want 2", len(links))
	}
}

func TestObjectThatDoesNotFitIsRefused(t *testing.T) {
	rename := func(from, to string) []byte {
		return bytes.ReplaceAll(bpf.Object(), []byte("\x00"+from+"\x00"), []byte("\x00"+to+"\x00"))
	}
	for text, object := range map[string][]byte{
		"has no map blixt_layout_2": rename("blixt_layout_2", "blixt_layout_9"),
		"has no map published":      rename("published", "publishes"),
	} {
		_, err := readObject(object)
		if err == nil || !strings.Contains(err.Error(), "the object does not fit this program (it "+text) {
			t.Errorf("got %v, want an error that it %s", err, text)
		}
	}
	if _, err := readObject([]byte("rubbish")); err == nil {
		t.Error("rubbish was read")
	}
}

func TestBytecodeAndLoaderAgreeOnSizes(t *testing.T) {
	for name, same := range map[string]bool{
		"least flows": bpf.MinFlows == bytecode.MinFlows, "most flows": bpf.MaxFlows == bytecode.MaxFlows,
		"least slots": bpf.MinRingSlots == bytecode.MinRingSlots, "most slots": bpf.MaxRingSlots == bytecode.MaxRingSlots,
	} {
		if !same {
			t.Errorf("%s differ", name)
		}
	}
	built, err := bytecode.ParseObject(bpf.Object())
	if err != nil {
		t.Fatal(err)
	}
	if built, err = built.Resize(bytecode.Sizes{Flows: 3 << 20, RingSlots: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	spec, err := Options{Flows: 3 << 20, RingSlots: 1 << 20}.spec()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range built.Maps {
		if m.MaxEntries != spec.Maps[m.Name].MaxEntries {
			t.Errorf("map %s: bytecode %d entries, loader %d", m.Name, m.MaxEntries, spec.Maps[m.Name].MaxEntries)
		}
	}
}
