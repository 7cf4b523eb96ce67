// SPDX-License-Identifier: Apache-2.0

// Package bpfman has a running bpfman put the data plane into the kernel. In
// come an object or a bytecode image and the names of interfaces; out come the
// pinned maps that datapath writes. bpfman holds the program and its links: they
// go on serving when this process ends, or bpfman does.
//
// A program of another version that serves already, a previous one, is not
// replaced: the new one is attached behind it. The caller makes the previous one
// drain and unloads it.
//
//	/run/bpfman/fs/maps/<program id>/<map>   what datapath.Open opens
//	<run dir>/<name>.bpfman.json             the record: where each link leads, which bpfman does not report
package bpfman

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	pb "github.com/bpfman/bpfman/clients/gobpfman/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/hostnet"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// The values that Options fill in for empty fields.
const (
	DefaultSocket   = "/run/bpfman-sock/bpfman.sock"
	DefaultPriority = 50
)

// lastPriority is the highest number that bpfman knows. Packets reach such a
// program last.
const lastPriority = 1000

// Options are what to load, and through which bpfman.
type Options struct {
	// Name keeps several data planes of one bpfman apart.
	Name string
	// Socket of bpfman.
	Socket string
	// RunDir holds the lock and the record.
	RunDir string
	// Interfaces to attach to. SetInterfaces changes them later.
	Interfaces []hostnet.Interface
	// Priority among bpfman's programs, 1 to 1000: packets reach the lower number
	// first.
	Priority int
	// Netns is a path under which bpfman can open this network namespace, "": it is
	// found automatically.
	Netns string
	// Object is an ELF file's content, nil: the embedded one.
	Object []byte
	// Image is the bytecode image from which bpfman is to pull Object, as
	// repository@sha256:digest, "": it is given a file.
	Image string
	// SNATPorts are the source ports of all programs of this name.
	SNATPorts lb.PortRange
	// DrainTimeout is how long a previous program may drain.
	DrainTimeout time.Duration
	// Unfinished returns how many flows would break without the program whose maps
	// are pinned at a directory.
	Unfinished func(dir string) (uint64, error)
	// Replace unloads all other programs of this name, which ends their flows.
	Replace bool

	// readHandover is datapath.ReadHandover, except in tests.
	readHandover func(dir string) (datapath.Handover, error)
}

// Loader is a program that bpfman holds for us. Its methods may be called
// concurrently, from threads of the network namespace that Load was called in.
type Loader struct {
	Options
	lock     *loader.Lock
	notes    []string
	adopted  bool // see Adopted
	starting bool // Load is not over: an error changes nothing that serves

	mu     sync.Mutex
	record record
	stored record // as Load has found it
	fresh  bool   // Load has had the program loaded: undo unloads it
	ports  lb.PortRange
	// interfaces are those to be attached to, and refused is what bpfman said when it
	// was asked, nil: it has done it.
	interfaces []hostnet.Interface
	asked      time.Time
	refused    error
}

// Load has bpfman load the program, or adopts what it holds under this name, and
// attaches it to the interfaces, behind previous programs. On error it undoes what
// it has begun; what was there before goes on serving. Returns loader.AttachError
// if bpfman refuses to attach to any interface. Where it attaches to some,
// SetInterfaces says what is wrong with the others.
func Load(o Options) (*Loader, error) {
	o.Name = cmp.Or(o.Name, loader.DefaultName)
	o.Socket = cmp.Or(o.Socket, DefaultSocket)
	o.RunDir = cmp.Or(o.RunDir, loader.DefaultRunDir)
	o.Priority = cmp.Or(o.Priority, DefaultPriority)
	if o.Object == nil {
		o.Object = bpf.Object()
	}
	if o.readHandover == nil {
		o.readHandover = datapath.ReadHandover
	}
	if o.Priority < 1 || o.Priority > lastPriority {
		return nil, fmt.Errorf("priority %d: want 1 to %d", o.Priority, lastPriority)
	}
	if o.Image != "" && !strings.Contains(o.Image, "@") { // bpfman would go on using the image that a tag once named
		return nil, fmt.Errorf("image %s: name it by digest", o.Image)
	}
	lock, err := loader.Acquire(o.RunDir, o.Name)
	if err != nil {
		return nil, err
	}
	_ = os.Remove(o.objectFile()) // of a start that was killed
	d := &Loader{Options: o, lock: lock}
	if d.stored, err = readRecord(o.RunDir, o.Name); err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.load()
	}
	if err == nil {
		d.starting = true
		if err = d.SetInterfaces(o.Interfaces); len(d.record.Links) > 0 {
			err = nil
		}
		d.starting = false
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(), lock.Release())
	}
	return d, nil
}

// Adopted reports whether bpfman held a program of this name before Load, which served.
func (d *Loader) Adopted() bool { return d.adopted }

// undo unloads the program if Load has had it loaded, and restores the record.
func (d *Loader) undo() error {
	if !d.fresh {
		return nil
	}
	err := d.session(func(ctx context.Context, c *client) error { return c.unload(ctx, d.record.Program) })
	if err != nil {
		return err
	}
	if d.stored.Program == 0 {
		return removeRecord(d.RunDir, d.Name)
	}
	return d.stored.write(d.RunDir, d.Name)
}

// unload has bpfman detach and unload a program. It is no error if bpfman has done
// so already.
func (d *Loader) unload(h *held) error {
	err := d.session(func(ctx context.Context, c *client) error { return c.unload(ctx, h.Program) })
	if err != nil && !h.gone() {
		return fmt.Errorf("program %d still serves (bpfman unload %d ends it): %w", h.Program, h.Program, err)
	}
	return nil
}

// Dir returns the directory of the pinned maps.
func (d *Loader) Dir() string { return d.record.Dir }

// SNATPorts returns the source ports of this program: more once no previous one
// is left.
func (d *Loader) SNATPorts() lb.PortRange {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.record.Previous) == 0 {
		return d.Options.SNATPorts.Alone(d.ports)
	}
	return d.ports
}

// Notes returns what Load did that its caller may not expect.
func (d *Loader) Notes() []string { return slices.Clone(d.notes) }

func (d *Loader) addNote(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// Lost returns an error if bpfman has unloaded the program: nothing reads what is
// written to its maps any more.
func (d *Loader) Lost() error {
	if d.record.gone() {
		return fmt.Errorf("program %d is gone, somebody had bpfman unload it: its maps are no longer at %s", d.record.Program, d.Dir())
	}
	return nil
}

// gone reports whether bpfman has unloaded the program.
func (h *held) gone() bool {
	_, err := os.Stat(h.Dir)
	return errors.Is(err, fs.ErrNotExist)
}

// Close releases the name. With keep the kernel goes on serving; else bpfman
// detaches and unloads this program and all previous ones.
func (d *Loader) Close(keep bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if !keep {
		for _, p := range d.record.Previous {
			errs = append(errs, d.unload(&p.held))
		}
		errs = append(errs, d.unload(&d.record.held))
		if errors.Join(errs...) == nil {
			errs = append(errs, removeRecord(d.RunDir, d.Name))
		}
	}
	return errors.Join(append(errs, d.lock.Release())...)
}

// callLimit is how long bpfman may take for all calls of a session: it waits up to
// ten seconds for its database alone.
const callLimit = time.Minute

// session calls f with a new connection to bpfman: bpfman may have been restarted
// since the last session, and it ends by itself when it is idle.
func (d *Loader) session(f func(context.Context, *client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	c, err := connect(d.Socket)
	if err != nil {
		return err
	}
	defer c.close()
	return f(ctx, c)
}

// location returns what bpfman is to load: the image, or else the file.
func (o *Options) location(file string) *pb.BytecodeLocation {
	if o.Image == "" {
		return &pb.BytecodeLocation{Location: &pb.BytecodeLocation_File{File: file}}
	}
	const ifNotPresent = 1 // a digest never names other content
	return &pb.BytecodeLocation{Location: &pb.BytecodeLocation_Image{Image: &pb.BytecodeImage{Url: o.Image, ImagePullPolicy: ifNotPresent}}}
}
