// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/bpf"
)

const programPrefix = "program-"

// load adopts what an earlier run has pinned, or loads everything.
func (l *Loader) load(spec *ebpf.CollectionSpec, replace bool) error {
	l.adopted = true // until it is known that there is nothing
	previous, err := l.programPins()
	if err != nil {
		return err
	}
	if len(previous) == 0 { // nothing, or a start that was killed before it attached
		l.adopted = false
		return l.loadFresh(spec)
	}
	differs, err := l.openMaps(spec)
	switch {
	case err != nil:
		return err
	case differs == nil:
		made, err := l.makeLaterMaps(spec)
		if err != nil {
			return err
		}
		return l.loadOver(spec, previous, made)
	}
	err = fmt.Errorf("what is loaded at %s does not fit this program and these options (%s): use the options with which it was loaded, or --replace, which ends all its flows",
		l.dir, strings.Join(differs, "; "))
	if !replace {
		return err
	}
	l.addNote("replaced what was loaded, its flows are lost: %v", err)
	return l.loadFresh(spec)
}

// loadFresh loads everything, and removes the pins that there are. What serves by them
// is not touched unless the new program has passed the verifier.
func (l *Loader) loadFresh(spec *ebpf.CollectionSpec) error {
	coll, err := newCollection(spec, nil)
	if err != nil {
		return err
	}
	l.adopted = false
	l.take(coll)
	for _, dir := range []string{filepath.Join(l.dir, "links"), l.dir} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove previous pins: %w", err)
		}
	}
	for _, dir := range []string{l.Dir(), filepath.Join(l.dir, "links")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin directory: %w", err)
		}
	}
	for name, m := range l.maps {
		if err := m.Pin(filepath.Join(l.Dir(), name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	return l.pinProgram(spec)
}

// loadOver loads the program with the maps in use, and adopts the links. If the same
// program runs already, it stays. Otherwise each link is switched to the new program,
// atomically: no flow breaks. previous are the pins of programs that there are, and made
// the maps that they do not have. Those are pinned once the new program has them: before, an
// earlier version would not fit what is pinned.
func (l *Loader) loadOver(spec *ebpf.CollectionSpec, previous, made []string) error {
	coll, err := newCollection(spec, l.maps)
	if err != nil {
		return err
	}
	for _, m := range l.maps { // the collection holds clones of them
		m.Close()
	}
	l.take(coll)
	same := programPrefix + fingerprint(spec, l.program)
	if len(made) == 0 && slices.Equal(previous, []string{same}) {
		running, err := ebpf.LoadPinnedProgram(filepath.Join(l.dir, same), nil)
		if err != nil {
			return fmt.Errorf("open program: %w", err)
		}
		l.program.Close()
		l.program = running
		return l.adoptLinks()
	}
	if err := l.adoptLinks(); err != nil {
		return err
	}
	for k, a := range l.links {
		if err := a.link.Update(l.program); err != nil {
			return fmt.Errorf("switch link %s to the new program: %w", k, err)
		}
	}
	l.addNote("switched %d links to a new program over the same maps", len(l.links))
	for _, name := range made {
		path := filepath.Join(l.Dir(), name)
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("unpin the previous map %s: %w", name, err)
		}
		if err := l.maps[name].Pin(path); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	if !slices.Contains(previous, same) {
		if err := l.pinProgram(spec); err != nil {
			return err
		}
	}
	for _, name := range previous {
		if name == same {
			continue
		}
		if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
			return fmt.Errorf("remove previous program: %w", err)
		}
	}
	return nil
}

// take moves the program and the maps of the contract from a collection to l.
func (l *Loader) take(coll *ebpf.Collection) {
	l.program = coll.DetachProgram(bpf.BlixtProgBlixt)
	l.maps = map[string]*ebpf.Map{}
	for name := range coll.Maps {
		if pinned(name) {
			l.maps[name] = coll.DetachMap(name)
		}
	}
	coll.Close()
}

func (l *Loader) pinProgram(spec *ebpf.CollectionSpec) error {
	if err := l.program.Pin(filepath.Join(l.dir, programPrefix+fingerprint(spec, l.program))); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}

// programPins returns the names of the pins of programs; none: nothing is loaded.
func (l *Loader) programPins() (names []string, err error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), programPrefix) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// newCollection loads the object, with the maps of over in place of new ones.
func newCollection(spec *ebpf.CollectionSpec, over map[string]*ebpf.Map) (*ebpf.Collection, error) {
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: over})
	if err == nil {
		return coll, nil
	}
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil, noFeature("a map type or helper", "6.6", err)
	}
	if v, ok := errors.AsType[*ebpf.VerifierError](err); ok {
		return nil, fmt.Errorf("load program: the verifier of kernel %s refuses it: %w\n%s", kernelRelease(), err, tail(v.Log, 20))
	}
	return nil, fmt.Errorf("load program: %w", err)
}

// tail returns the last n lines.
func tail(lines []string, n int) string {
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// pinned reports whether a map belongs to the contract, and not to the program's
// constants: those are not pinned, by bpfman neither.
func pinned(name string) bool { return !strings.HasPrefix(name, ".") }

// fingerprint identifies the program by the kernel's tag, which covers its
// instructions, and by its constants, which the tag leaves out.
func fingerprint(spec *ebpf.CollectionSpec, p *ebpf.Program) string {
	h := sha256.New()
	if info, err := p.Info(); err == nil {
		fmt.Fprintln(h, info.Tag)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if pinned(name) {
			continue
		}
		for _, kv := range spec.Maps[name].Contents {
			fmt.Fprintf(h, "%s %v %x\n", name, kv.Key, kv.Value)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// openMaps opens the maps of an earlier run. It returns in what they differ from
// those that the object would have; then it leaves none open.
func (l *Loader) openMaps(spec *ebpf.CollectionSpec) (differs []string, err error) {
	entries, err := os.ReadDir(l.Dir())
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	l.maps = map[string]*ebpf.Map{}
	for _, e := range entries {
		if _, ok := spec.Maps[e.Name()]; !ok {
			differs = append(differs, fmt.Sprintf("map %s is loaded, the object has none", e.Name()))
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(l.Dir(), e.Name()), nil)
		if err != nil {
			return nil, fmt.Errorf("open map %s: %w", e.Name(), err)
		}
		l.maps[e.Name()] = m
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Maps)) {
		if !pinned(name) {
			continue
		}
		m, ok := l.maps[name]
		if _, later := laterMaps[name]; later && (!ok || spec.Maps[name].Compatible(m) != nil) {
			delete(l.maps, name) // see makeLaterMaps
			switch {
			case ok && name == bpf.BlixtMapCounters:
				l.counted = m
			case ok:
				m.Close()
			}
			continue
		}
		if !ok {
			differs = append(differs, fmt.Sprintf("map %s is not loaded, the object has it", name))
		} else if err := spec.Maps[name].Compatible(m); err != nil {
			differs = append(differs, fmt.Sprintf("map %s: %s", name, strings.TrimSuffix(err.Error(), ": "+ebpf.ErrMapIncompatible.Error())))
		}
	}
	if differs != nil {
		for _, m := range l.maps {
			m.Close()
		}
		l.maps = nil
	}
	return differs, nil
}

// laterMaps are those that earlier programs of this layout did not have, or had with
// smaller elements, with the byte that all elements begin with. Of what was not recorded nothing is
// known: all addresses are of interest, and no flow is in use, until the program and its
// writer know better. What is of one packet only is never known.
var laterMaps = map[string]byte{
	bpf.BlixtMapInterest: 0xff, bpf.BlixtMapFlowCache: 0, bpf.BlixtMapPackets: 0,
	bpf.BlixtMapAnnouncing: 0, bpf.BlixtMapAnnounceKeys: 0, bpf.BlixtMapPeers: 0, bpf.BlixtMapProbes: 0, bpf.BlixtMapEgressLinks: 0,
	bpf.BlixtMapAnnouncedUdp: 0, bpf.BlixtMapAnnouncedBackends: 0, bpf.BlixtMapAnswerBuckets: 0,
	bpf.BlixtMapRefStats: 0, bpf.BlixtMapClientRtt: 0, bpf.BlixtMapRecorded: 0, bpf.BlixtMapRecordedNumber: 0, bpf.BlixtMapSlotCounts: 0,
	bpf.BlixtMapFlowLog0: 0, bpf.BlixtMapFlowLog1: 0, bpf.BlixtMapFlowLog2: 0, bpf.BlixtMapFlowLog3: 0, bpf.BlixtMapDropSamples: 0,
	bpf.BlixtMapPortRanges: 0, bpf.BlixtMapFrontendPolicies: 0, bpf.BlixtMapPolicies: 0, bpf.BlixtMapPolicyStates: 0, bpf.BlixtMapPolicyStats: 0,
	bpf.BlixtMapSources: 0, bpf.BlixtMapLimitedSources: 0, bpf.BlixtMapAffinities: 0, bpf.BlixtMapUdpAffinities: 0, bpf.BlixtMapAffinityBackends: 0, bpf.BlixtMapBackendHealth: 0,
	bpf.BlixtMapProven: 0, bpf.BlixtMapCookieKeys: 0, bpf.BlixtMapSynCounts: 0, bpf.BlixtMapSourceInWork: 0,
	bpf.BlixtMapCounters: 0, // which are copied
}

// makeLaterMaps makes those of laterMaps that an earlier program did not have, and
// returns their names.
func (l *Loader) makeLaterMaps(spec *ebpf.CollectionSpec) (made []string, err error) {
	for name, first := range laterMaps {
		if l.maps[name] != nil {
			continue
		}
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			return nil, fmt.Errorf("make map %s: %w", name, err)
		}
		l.maps[name], made = m, append(made, name)
		if name == bpf.BlixtMapCounters && l.counted != nil {
			if err := copyCounters(m, l.counted); err != nil {
				return nil, err
			}
		}
		if first == 0 {
			continue
		}
		value := bytes.Repeat([]byte{first}, int(m.ValueSize()))
		for i := range m.MaxEntries() {
			if err := m.Put(i, value); err != nil {
				return nil, fmt.Errorf("fill map %s: %w", name, err)
			}
		}
	}
	return made, nil
}

// copyCounters gives a map of counters for each CPU the values of an earlier one,
// which has fewer, and closes that.
func copyCounters(to, from *ebpf.Map) error {
	defer from.Close()
	var values []uint64
	for i := range min(from.MaxEntries(), to.MaxEntries()) {
		if err := from.Lookup(i, &values); err != nil {
			return fmt.Errorf("read counter %d: %w", i, err)
		}
		if err := to.Put(i, values); err != nil {
			return fmt.Errorf("copy counter %d: %w", i, err)
		}
	}
	return nil
}

// adoptLinks opens the links of an earlier run, and drops those whose interface is
// gone.
func (l *Loader) adoptLinks() error {
	dir := filepath.Join(l.dir, "links")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read pin directory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		k, ok := parseLinkKey(e.Name())
		if !ok { // of a process that was killed while it moved a link
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("remove link %s: %w", e.Name(), err)
			}
			continue
		}
		ln, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("open link %s: %w", e.Name(), err)
		}
		a := &attached{link: ln, path: path, adopted: true}
		if !a.alive() {
			if err := a.drop(); err != nil {
				return err
			}
			continue
		}
		l.links[k] = a
	}
	return nil
}
