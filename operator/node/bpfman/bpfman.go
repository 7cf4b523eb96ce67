// SPDX-License-Identifier: Apache-2.0

// Package bpfman has a running bpfman put the data plane into the kernel. In
// come an object or an image and the names of interfaces; out come the pinned
// maps that datapath writes. bpfman holds the program and its links: they
// serve on whatever becomes of this process, or of bpfman's.
//
// A program of another version that serves already is not replaced: the new
// one is attached behind it, and it is up to the caller to have the older one
// drain, and to unload it.
//
//	/run/bpfman/fs/maps/<program id>/<map>   what datapath.Open opens
//	<run dir>/<name>.bpfman.json             the note: which link is which, as bpfman does not tell
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
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// The values that Options fill in for empty fields.
const (
	DefaultSocket   = "/run/bpfman-sock/bpfman.sock"
	DefaultPriority = 50
)

// lowest is the last priority that bpfman knows.
const lowest = 1000

// Options say what to load, and by whom.
type Options struct {
	// Name keeps several data planes of one bpfman apart.
	Name string
	// Socket of bpfman.
	Socket string
	// RunDir holds the lock and the note.
	RunDir string
	// Interfaces to attach to, by name. SetInterfaces changes them later.
	Interfaces []string
	// Priority among programs of others, 1 to 1000: the lower sees packets first.
	Priority int
	// Netns is the path by which bpfman finds this network namespace, "": it
	// is found out.
	Netns string
	// Object is an ELF file's content, nil: the embedded one.
	Object []byte
	// Image is where bpfman is to pull Object from, as repository@sha256:digest,
	// "": it is handed a file.
	Image string
	// SNATPorts are for all programs of this name: each has one half of them.
	SNATPorts lb.PortRange
	// DrainTimeout is how long an older program may drain.
	DrainTimeout time.Duration
	// Unfinished tells how many flows need the data plane that is pinned at a
	// directory.
	Unfinished func(dir string) (uint64, error)
	// Replace unloads all other programs of this name, and all their flows.
	Replace bool

	// look is for tests: datapath.ReadHandover.
	look func(dir string) (datapath.Handover, error)
}

// Loader is a program that bpfman holds for us. Its methods may be called
// concurrently, from threads of the network namespace that Load was called in.
type Loader struct {
	Options
	lock  *loader.Lock
	notes []string

	mu   sync.Mutex
	note note
	// before is the note that Load has found, fresh tells that it has had the
	// program loaded.
	before note
	fresh  bool
	ports  lb.PortRange
}

// Load has bpfman load the program, or adopts what it holds under this name, and
// attaches it to the interfaces, behind previous programs. On error it undoes what
// it has begun; what was there before goes on serving. Returns loader.AttachError
// if an interface does not exist or bpfman refuses to attach to it.
func Load(o Options) (*Loader, error) {
	o.Name = cmp.Or(o.Name, loader.DefaultName)
	o.Socket = cmp.Or(o.Socket, DefaultSocket)
	o.RunDir = cmp.Or(o.RunDir, loader.DefaultRunDir)
	o.Priority = cmp.Or(o.Priority, DefaultPriority)
	if o.Object == nil {
		o.Object = bpf.Object()
	}
	if o.look == nil {
		o.look = datapath.ReadHandover
	}
	if o.Priority < 1 || o.Priority > lowest {
		return nil, fmt.Errorf("priority %d: want 1 to %d", o.Priority, lowest)
	}
	if o.Image != "" && !strings.Contains(o.Image, "@") { // of a tag bpfman serves what it once was
		return nil, fmt.Errorf("image %s: name it by digest", o.Image)
	}
	lock, err := loader.Acquire(o.RunDir, o.Name)
	if err != nil {
		return nil, err
	}
	_ = os.Remove(o.objectFile()) // of a start that was killed
	d := &Loader{Options: o, lock: lock}
	if d.before, err = readNote(o.RunDir, o.Name); err == nil || errors.Is(err, fs.ErrNotExist) {
		err = d.load()
	}
	if err == nil {
		err = d.SetInterfaces(o.Interfaces)
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(), lock.Release())
	}
	return d, nil
}

// undo unloads what Load has had loaded.
func (d *Loader) undo() error {
	if !d.fresh {
		return nil
	}
	err := d.session(func(ctx context.Context, c *client) error { return c.unload(ctx, d.note.Program) })
	if err != nil {
		return err
	}
	if d.before.Program == 0 {
		return removeNote(d.RunDir, d.Name)
	}
	return d.before.write(d.RunDir, d.Name)
}

// unload has bpfman detach and unload a program, unless that is done.
func (d *Loader) unload(h *held) error {
	err := d.session(func(ctx context.Context, c *client) error { return c.unload(ctx, h.Program) })
	if err != nil && !h.gone() {
		return fmt.Errorf("program %d still serves (bpfman unload %d ends it): %w", h.Program, h.Program, err)
	}
	return nil
}

// Dir returns the directory of the pinned maps.
func (d *Loader) Dir() string { return d.note.Dir }

// SNATPorts returns the half that this program has for life.
func (d *Loader) SNATPorts() lb.PortRange { return d.ports }

// Notes returns what Load did that its caller may not expect.
func (d *Loader) Notes() []string { return slices.Clone(d.notes) }

func (d *Loader) say(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// Lost returns an error if bpfman has unloaded the program: nothing reads what is
// written to its maps any more.
func (d *Loader) Lost() error {
	if d.note.gone() {
		return fmt.Errorf("program %d is gone, somebody had bpfman unload it: its maps are no longer at %s", d.note.Program, d.Dir())
	}
	return nil
}

// gone tells whether bpfman has unloaded the program.
func (h *held) gone() bool {
	_, err := os.Stat(h.Dir)
	return errors.Is(err, fs.ErrNotExist)
}

// Close ends the hold. With keep the kernel goes on serving; else bpfman
// detaches and unloads this program and all older ones.
func (d *Loader) Close(keep bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if !keep {
		for _, o := range d.note.Older {
			errs = append(errs, d.unload(&o.held))
		}
		errs = append(errs, d.unload(&d.note.held))
		if errors.Join(errs...) == nil {
			errs = append(errs, removeNote(d.RunDir, d.Name))
		}
	}
	return errors.Join(append(errs, d.lock.Release())...)
}

// callLimit is how long bpfman may take for all that one look at the network
// asks of it: for its database alone it waits up to ten seconds.
const callLimit = time.Minute

// session calls f with a connection to bpfman, which may have been restarted
// since the one before, or end by itself when it is idle.
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

// location is what bpfman is asked to load.
func (o *Options) location(file string) *pb.BytecodeLocation {
	if o.Image == "" {
		return &pb.BytecodeLocation{Location: &pb.BytecodeLocation_File{File: file}}
	}
	const ifNotPresent = 1 // a digest means one content for ever
	return &pb.BytecodeLocation{Location: &pb.BytecodeLocation_Image{Image: &pb.BytecodeImage{Url: o.Image, ImagePullPolicy: ifNotPresent}}}
}
