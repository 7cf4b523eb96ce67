// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// Program is a program of an object.
type Program struct {
	Name string `json:"name"`
	// Type as bpfman calls it, such as tcx.
	Type    string `json:"type"`
	Section string `json:"section"`
}

// Map is a map of an object.
type Map struct {
	Name string `json:"name"`
	// Type as bpfman calls it, such as lru_hash.
	Type       string `json:"type"`
	KeySize    uint32 `json:"keySize"`
	ValueSize  uint32 `json:"valueSize"`
	MaxEntries uint32 `json:"maxEntries"`
	Flags      uint32 `json:"flags,omitempty"`
}

// Object is a compiled data plane.
type Object struct {
	// Bytes of the ELF file.
	Bytes []byte `json:"-"`
	// SHA256 of Bytes, in hex.
	SHA256 string `json:"sha256"`
	// Layout of the maps, from the name of one of them.
	Layout    int              `json:"layout"`
	Programs  []Program        `json:"programs"`
	Maps      []Map            `json:"maps"`
	ByteOrder binary.ByteOrder `json:"-"`
	Needs     []Need           `json:"needs"`
}

// ParseObject reads an ELF file. Returns an error if it is not a data plane
// of Blixt, or one that bpfman would not load.
func ParseObject(elf []byte) (*Object, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(elf))
	if err != nil {
		return nil, fmt.Errorf("read object: %w: want an eBPF object as clang -target bpfel -g writes it", err)
	}
	sum := sha256.Sum256(elf)
	o := &Object{Bytes: elf, SHA256: hex.EncodeToString(sum[:]), ByteOrder: spec.ByteOrder}
	for _, name := range slices.Sorted(maps.Keys(spec.Programs)) {
		p, err := program(spec.Programs[name])
		if err != nil {
			return nil, fmt.Errorf("program %s: %w", name, err)
		}
		o.Programs = append(o.Programs, p)
	}
	if len(o.Programs) == 0 {
		return nil, errors.New("object has no program: compile it from a source with SEC(\"classifier\")")
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if strings.HasPrefix(name, ".") { // constants, which nobody pins
			continue
		}
		m := spec.Maps[name]
		typ, ok := mapTypes[m.Type]
		if !ok {
			return nil, fmt.Errorf("map %s: bpfman knows no map type %s", name, m.Type)
		}
		if m.Type == ebpf.ArrayOfMaps || m.Type == ebpf.HashOfMaps {
			return nil, fmt.Errorf("map %s: bpfman's loader rejects a map of maps", name)
		}
		o.Maps = append(o.Maps, Map{Name: name, Type: typ, KeySize: m.KeySize, ValueSize: m.ValueSize, MaxEntries: m.MaxEntries, Flags: m.Flags})
		if number, ok := strings.CutPrefix(name, bpf.LayoutPrefix); ok {
			if o.Layout, err = strconv.Atoi(number); err != nil || o.Layout < 1 {
				return nil, fmt.Errorf("map %s: its name must end in the number of the layout", name)
			}
		}
	}
	if o.Layout == 0 {
		return nil, fmt.Errorf("object has no map %sN: this is no data plane of Blixt", bpf.LayoutPrefix)
	}
	o.Needs = needs(spec)
	return o, nil
}

// program returns a Program, or an error if bpfman's loader would reject it.
func program(p *ebpf.ProgramSpec) (Program, error) {
	if p.Type != ebpf.SchedCLS {
		return Program{}, fmt.Errorf("is of type %s: Blixt's are classifiers", p.Type)
	}
	// aya, bpfman's loader, knows no tc, tcx or tcx/ingress.
	if section, _, _ := strings.Cut(p.SectionName, "/"); section != "classifier" {
		return Program{}, fmt.Errorf("is in section %q, bpfman's loader knows only classifier: write SEC(\"classifier\")", p.SectionName)
	}
	for _, ins := range p.Instructions {
		if ins.IsKfuncCall() {
			return Program{}, fmt.Errorf("calls the kernel function %s: bpfman's loader knows only helpers", ins.Reference())
		}
	}
	return Program{Name: p.Name, Type: "tcx", Section: p.SectionName}, nil
}

// The labels by which bpfman finds programs in an image.
const (
	ProgramsLabel = "io.ebpf.programs"
	MapsLabel     = "io.ebpf.maps"
)

// Labels returns the labels of an image of the object.
func (o *Object) Labels() map[string]string {
	programs, tables := map[string]string{}, map[string]string{}
	for _, p := range o.Programs {
		programs[p.Name] = p.Type
	}
	for _, m := range o.Maps {
		tables[m.Name] = m.Type
	}
	return map[string]string{ProgramsLabel: toJSON(programs), MapsLabel: toJSON(tables)}
}

// checkLabels compares labels with the object's as JSON, as other tools may write other
// spaces.
func (o *Object) checkLabels(got map[string]string) error {
	for key, want := range o.Labels() {
		var g, w map[string]string
		if err := json.Unmarshal([]byte(got[key]), &g); err != nil {
			return fmt.Errorf("label %s is %q, which is no JSON object of strings: want %s", key, got[key], want)
		}
		if err := json.Unmarshal([]byte(want), &w); err != nil {
			return err
		}
		if !maps.Equal(g, w) {
			return fmt.Errorf("label %s is %s, the object in it has %s: build the image again", key, got[key], want)
		}
	}
	return nil
}

// toJSON sorts keys, so that equal maps give equal text.
func toJSON(m map[string]string) string {
	text, err := json.Marshal(m)
	if err != nil {
		panic(err) // a map of strings always has JSON
	}
	return string(text)
}
