// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// invalidObject returns the error of an object whose maps this program cannot
// write.
func invalidObject(differs ...string) error {
	return fmt.Errorf("the object does not fit this program (%s): use the version of Blixt that belongs to it, or no --bytecode", strings.Join(differs, "; "))
}

// readObject reads an object that another build may have made; nil: the embedded
// one. Returns an error if anything but the sizes of its maps differs from the
// embedded one.
func readObject(object []byte) (*ebpf.CollectionSpec, error) {
	own, err := bpf.LoadBlixt()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	if object == nil {
		return own, nil
	}
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(object))
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if spec.Maps[bpf.LayoutMap] == nil {
		return nil, invalidObject("it has no map " + bpf.LayoutMap)
	}
	var differs []string
	if spec.Programs[bpf.BlixtProgBlixt] == nil {
		differs = append(differs, "it has no program "+bpf.BlixtProgBlixt)
	}
	for _, name := range slices.Sorted(maps.Keys(own.Maps)) {
		want, got := own.Maps[name], spec.Maps[name]
		switch {
		case !pinned(name):
		case got == nil:
			differs = append(differs, "it has no map "+name)
		case got.Type != want.Type || got.KeySize != want.KeySize || got.ValueSize != want.ValueSize || got.Flags != want.Flags:
			differs = append(differs, fmt.Sprintf("map %s is a %s of %d and %d bytes, flags %#x, want a %s of %d and %d, %#x",
				name, got.Type, got.KeySize, got.ValueSize, got.Flags, want.Type, want.KeySize, want.ValueSize, want.Flags))
		}
	}
	if differs != nil {
		return nil, invalidObject(differs...)
	}
	return spec, nil
}
