// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Info describes a loaded data plane, by the kernel.
type Info struct {
	// Loader is what has loaded it: builtin or bpfman.
	Loader     string `json:"loader"`
	Dir        string `json:"dir"`
	ProgramID  uint32 `json:"programID"`
	ProgramTag string `json:"programTag"`
	// Fingerprint identifies a program of the built-in loader, and Digest the
	// object of one that bpfman has loaded.
	Fingerprint string `json:"fingerprint,omitempty"`
	Digest      string `json:"digest,omitempty"`
	// Image is the bytecode image that the program was read from, by digest where
	// it has one, "": it was built in. Inspect leaves it empty: for the built-in
	// loader, the function Image returns it.
	Image string            `json:"image,omitempty"`
	Maps  map[string]uint32 `json:"maps"`
	Links []LinkInfo        `json:"links"`
}

// LinkInfo is one link: a program at a hook of an interface.
type LinkInfo struct {
	ID        uint32 `json:"id"`
	Interface string `json:"interface"`
	Index     int    `json:"index"`
	Direction string `json:"direction"`
	ProgramID uint32 `json:"programID"`
	// Detached reports that somebody has detached the link, or that its interface is
	// gone.
	Detached bool `json:"detached,omitempty"`
	// Before are the programs that get the interface's packets first. What they do not
	// pass on does not reach this one.
	Before []Program `json:"before,omitempty"`
}

// Info returns what is loaded.
func (l *Loader) Info() (Info, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	links := map[linkKey]link.Link{}
	for k, a := range l.links {
		links[k] = a.link
	}
	return l.describe(links)
}

// Inspect describes what another process has loaded under a name. It needs the
// right to read the pins, and takes no lock. Returns an error if nothing is loaded.
func Inspect(bpffs, name string) (info Info, err error) {
	l := &Loader{dir: Pins(defaultTo(bpffs, DefaultBPFFS), defaultTo(name, DefaultName)), links: map[linkKey]*attached{}, maps: map[string]*ebpf.Map{}}
	pins, err := l.programPins()
	if err != nil {
		return Info{}, err
	}
	if len(pins) == 0 {
		return Info{}, fmt.Errorf("nothing is loaded at %s: start it with blixt run, or name another with --name", l.dir)
	}
	if l.program, err = ebpf.LoadPinnedProgram(filepath.Join(l.dir, pins[0]), nil); err != nil {
		return Info{}, fmt.Errorf("open program: %w", err)
	}
	defer l.program.Close()
	paths, err := filepath.Glob(filepath.Join(l.Dir(), "*"))
	if err != nil {
		return Info{}, fmt.Errorf("list maps: %w", err)
	}
	for _, path := range paths {
		m, err := ebpf.LoadPinnedMap(path, &ebpf.LoadPinOptions{ReadOnly: true})
		if err != nil {
			return Info{}, fmt.Errorf("open map %s: %w", filepath.Base(path), err)
		}
		defer m.Close()
		l.maps[filepath.Base(path)] = m
	}
	paths, err = filepath.Glob(filepath.Join(l.dir, "links", "*"))
	if err != nil {
		return Info{}, fmt.Errorf("list links: %w", err)
	}
	links := map[linkKey]link.Link{}
	for _, path := range paths {
		k, ok := parseLinkKey(filepath.Base(path))
		if !ok {
			continue
		}
		ln, err := link.LoadPinnedLink(path, nil)
		if errors.Is(err, fs.ErrNotExist) { // its interface has just gone
			continue
		}
		if err != nil {
			return Info{}, fmt.Errorf("open link %s: %w", k, err)
		}
		defer ln.Close()
		links[k] = ln
	}
	return l.describe(links)
}

func (l *Loader) describe(links map[linkKey]link.Link) (Info, error) {
	info := Info{Loader: "builtin", Dir: l.Dir(), Maps: map[string]uint32{}}
	pins, err := l.programPins()
	if err != nil {
		return Info{}, err
	}
	if len(pins) > 0 {
		info.Fingerprint = pins[0][len(programPrefix):]
	}
	p, err := l.program.Info()
	if err != nil {
		return Info{}, fmt.Errorf("read program info: %w", err)
	}
	id, _ := p.ID()
	info.ProgramID, info.ProgramTag = uint32(id), p.Tag
	for _, name := range slices.Sorted(maps.Keys(l.maps)) {
		m, err := l.maps[name].Info()
		if err != nil {
			return Info{}, fmt.Errorf("read info of map %s: %w", name, err)
		}
		id, _ := m.ID()
		info.Maps[name] = uint32(id)
	}
	network, err := hostnet.Read()
	if err != nil {
		return Info{}, err
	}
	for k, ln := range links {
		i, err := ln.Info()
		if err != nil {
			return Info{}, fmt.Errorf("read info of link %s: %w", k, err)
		}
		to, _ := network.ByIndex(k.ifindex)
		li := LinkInfo{ID: uint32(i.ID), Interface: to.Name, Index: k.ifindex, Direction: k.direction, ProgramID: uint32(i.Program)}
		li.Detached = i.TCX() == nil || i.TCX().Ifindex == 0
		if !li.Detached {
			li.Before = Before(to, k.direction, li.ProgramID)
		}
		info.Links = append(info.Links, li)
	}
	slices.SortFunc(info.Links, func(a, b LinkInfo) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Direction, b.Direction))
	})
	return info, nil
}
