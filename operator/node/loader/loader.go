// SPDX-License-Identifier: Apache-2.0

// Package loader puts the data plane into the kernel without bpfman. In come an
// object, sizes and the names of interfaces; out come pinned maps that datapath
// writes, a program, and its TCX links. Everything is pinned, so that the kernel goes
// on serving when the process ends.
//
//	<bpffs>/blixt/<name>/maps/<map>               what datapath.Open opens
//	<bpffs>/blixt/<name>/program-<fingerprint>    pinned last: its absence marks an unfinished start
//	<bpffs>/blixt/<name>/links/<ifindex>-ingress  and -egress
package loader

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
)

// Defaults of empty fields of Options.
const (
	DefaultName   = "default"
	DefaultBPFFS  = "/sys/fs/bpf"
	DefaultRunDir = "/run/blixt"
)

// Options are what to load, and where to pin it.
type Options struct {
	// Name distinguishes data planes on one machine.
	Name string
	// BPFFS is where a BPF file system is mounted, or is to be mounted.
	BPFFS string
	// RunDir holds the lock, and a file that names Image.
	RunDir string
	// Object is an ELF file's content, nil: the embedded one.
	Object []byte
	// Image is the bytecode image that Object was read from, for Info; "": none.
	Image string
	// Interfaces to attach to. SetInterfaces changes them later.
	Interfaces []hostnet.Interface
	// Flows is the number of established TCP flows, see bpf.FlowTables for
	// others; 0: the object's default.
	Flows uint32
	// RingSlots is the number of slots of all rings, 0: the object's default.
	RingSlots uint32
	// Replace replaces maps of another layout or other sizes, which ends all
	// flows.
	Replace bool
	// Group may use the maps as root does, 0: no group may.
	Group int
}

// Loader holds a loaded data plane. Its methods may be called concurrently, from
// threads of the network namespace that Load was called in.
type Loader struct {
	options   Options
	dir       string
	lock      *Lock
	imageFile string // names the image
	mounted   string // the BPF file system that Load has mounted; "": none
	group     int
	adopted   bool // see Adopted
	starting  bool // Load is not over: an error changes nothing that serves
	notes     []string

	mu      sync.Mutex
	maps    map[string]*ebpf.Map
	counted *ebpf.Map // the counters of an earlier program that has fewer, until they are copied
	program *ebpf.Program
	links   map[linkKey]*attached
	// interfaces are those to be attached to, and restored is when something at a hook
	// was lately restored.
	interfaces []hostnet.Interface
	restored   map[linkKey][]time.Time
}

// Load loads the object, or adopts what an earlier run left, and attaches it to
// the interfaces. On error it undoes what it has begun; what an earlier run left
// goes on serving. Returns AttachError if none of the interfaces can be attached to.
// Where some can, SetInterfaces says what is wrong with the others.
func Load(o Options) (*Loader, error) {
	o.Name = defaultTo(o.Name, DefaultName)
	o.BPFFS = defaultTo(o.BPFFS, DefaultBPFFS)
	o.RunDir = defaultTo(o.RunDir, DefaultRunDir)
	if err := CheckName(o.Name); err != nil {
		return nil, err
	}
	if err := CheckPrivileges(); err != nil {
		return nil, err
	}
	if err := CheckKernel(); err != nil {
		return nil, err
	}
	spec, err := o.spec()
	if err != nil {
		return nil, err
	}
	lock, err := Acquire(o.RunDir, o.Name)
	if err != nil {
		return nil, err
	}
	l := &Loader{
		options:   o,
		dir:       Pins(o.BPFFS, o.Name),
		lock:      lock,
		imageFile: imagePath(o.RunDir, o.Name),
		group:     o.Group,
		links:     map[linkKey]*attached{},
		restored:  map[linkKey][]time.Time{},
	}
	mounted, err := mountBPFFS(o.BPFFS)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if mounted {
		l.mounted = o.BPFFS
		l.addNote("mounted a BPF file system at %s", o.BPFFS)
	}
	err = l.load(spec, o.Replace)
	if err == nil {
		l.starting = true
		if err = l.SetInterfaces(o.Interfaces); len(l.links) > 0 {
			err = nil
		}
		l.starting = false
	}
	if err == nil {
		err = l.permit()
	}
	if err == nil {
		err = writeImage(l.imageFile, o.Image)
	}
	if err != nil {
		return nil, errors.Join(err, l.undo())
	}
	return l, nil
}

// CheckName returns an error if a data plane cannot have this name.
func CheckName(name string) error {
	// A BPF file system forbids dots in names, and a slash would name another
	// directory.
	if name == "" || strings.ContainsAny(name, "./") {
		return fmt.Errorf("name %q: must not be empty, or contain a dot or a slash", name)
	}
	return nil
}

// undo ends what a start that failed has begun. What it has adopted goes on serving.
func (l *Loader) undo() error {
	var errs []error
	for k, a := range l.links {
		if l.adopted && !a.adopted {
			errs = append(errs, a.drop())
			delete(l.links, k)
		}
	}
	return errors.Join(append(errs, l.Close(l.adopted))...)
}

// Adopted reports whether Load has found a program of an earlier run, which served.
func (l *Loader) Adopted() bool { return l.adopted }

// spec returns the object with the sizes of the options.
func (o Options) spec() (*ebpf.CollectionSpec, error) {
	spec, err := readObject(o.Object)
	if err != nil {
		return nil, err
	}
	if o.Flows != 0 {
		if o.Flows < bpf.MinFlows || o.Flows > bpf.MaxFlows {
			return nil, fmt.Errorf("%d flows: want %d to %d", o.Flows, bpf.MinFlows, bpf.MaxFlows)
		}
		for name, n := range bpf.FlowTables(o.Flows) {
			spec.Maps[name].MaxEntries = n
		}
	}
	if o.RingSlots != 0 {
		// Two slots to an element.
		if o.RingSlots%2 != 0 || o.RingSlots < bpf.MinRingSlots || o.RingSlots > bpf.MaxRingSlots {
			return nil, fmt.Errorf("%d ring slots: want an even number from %d to %d", o.RingSlots, bpf.MinRingSlots, bpf.MaxRingSlots)
		}
		spec.Maps[bpf.BlixtMapRings].MaxEntries = o.RingSlots / 2
	}
	return spec, nil
}

// Pins returns the directory in which the data plane of a name is pinned.
func Pins(bpffs, name string) string { return filepath.Join(bpffs, "blixt", name) }

// Dir returns the directory of the pinned maps.
func (l *Loader) Dir() string { return filepath.Join(l.dir, "maps") }

// Notes returns messages about what Load did beyond the usual.
func (l *Loader) Notes() []string { return slices.Clone(l.notes) }

func (l *Loader) addNote(format string, args ...any) {
	l.notes = append(l.notes, fmt.Sprintf(format, args...))
}

// Close releases the name. With keep the kernel goes on serving; else everything is
// detached and removed, including the mount that Load made.
func (l *Loader) Close(keep bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, a := range l.toDetach() {
		if !keep {
			errs = append(errs, a.detach())
		}
		errs = append(errs, a.close())
	}
	l.links = nil
	if l.program != nil {
		errs = append(errs, l.program.Close())
	}
	for _, m := range l.maps {
		errs = append(errs, m.Close())
	}
	if !keep {
		errs = append(errs, l.remove())
	}
	return errors.Join(append(errs, l.lock.Release())...)
}

// remove removes all pins, and the mount that Load made.
func (l *Loader) remove() error {
	if err := removePins(l.dir); err != nil {
		return err
	}
	if err := writeImage(l.imageFile, ""); err != nil {
		return err
	}
	if l.mounted != "" {
		return unmountBPFFS(l.mounted)
	}
	return nil
}

func defaultTo(s, d string) string {
	if s == "" {
		return d
	}
	return s
}
