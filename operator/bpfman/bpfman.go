// SPDX-License-Identifier: Apache-2.0

// Package bpfman has a running bpfman put the data plane into the kernel. In
// come an object or an image and the names of interfaces; out come the pinned
// maps that datapath writes. bpfman holds the program and its links: they
// serve on whatever becomes of this process, or of bpfman's.
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
	"github.com/kubernetes-sigs/blixt/operator/loader"
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
	// Replace unloads a program of this name that has another digest, and all
	// its flows.
	Replace bool
}

// DataPlane is a program that bpfman holds for us. Its methods may be called
// concurrently, from threads of the network namespace that Load was called in.
type DataPlane struct {
	Options
	lock  *loader.Lock
	notes []string

	mu   sync.Mutex
	note note
}

// Load has bpfman load the program, or adopts what it holds under this name,
// and attaches it to the interfaces. What Load itself has begun it undoes on
// error; what was there before goes on serving. Returns UnreachableError,
// RefusedError, OtherDigestError or loader.AttachError for what an admin can mend.
func Load(o Options) (*DataPlane, error) {
	o.Name = cmp.Or(o.Name, loader.DefaultName)
	o.Socket = cmp.Or(o.Socket, DefaultSocket)
	o.RunDir = cmp.Or(o.RunDir, loader.DefaultRunDir)
	o.Priority = cmp.Or(o.Priority, DefaultPriority)
	if o.Object == nil {
		o.Object = bpf.Object()
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
	d := &DataPlane{Options: o, lock: lock}
	adopted, err := d.load(o.digest())
	if err == nil {
		err = d.SetInterfaces(o.Interfaces)
	}
	if err != nil {
		return nil, errors.Join(err, d.Close(adopted))
	}
	return d, nil
}

// load makes d.note describe a program that bpfman has.
func (d *DataPlane) load(digest string) (adopted bool, err error) {
	before, err := readNote(d.RunDir, d.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	err = d.session(func(ctx context.Context, c *client) error {
		found, err := c.find(ctx, d.Name)
		if err != nil {
			adopted = true // in doubt nothing is removed
			return err
		}
		i := slices.IndexFunc(found, func(p *program) bool { return p.digest == digest && p.id == before.Program })
		if i < 0 {
			i = slices.IndexFunc(found, func(p *program) bool { return p.digest == digest })
		}
		for j, p := range found {
			switch {
			case i >= 0 && j == i:
			case p.digest != digest && !d.Replace:
				adopted = true
				return &OtherDigestError{Name: d.Name, Program: p.id, Have: p.digest, Want: digest}
			default: // replaced, or loaded by a start that has not come to its end
				if err := c.unload(ctx, p.id); err != nil {
					adopted = true
					return err
				}
				d.say("bpfman unloaded program %d of this name (%s), its flows are lost", p.id, p.digest)
			}
		}
		if i >= 0 {
			adopted = true
			return d.adopt(found[i], before)
		}
		p, err := c.load(ctx, &d.Options, digest)
		if err != nil {
			return err
		}
		d.note = p.note(d.Socket)
		return d.note.write(d.RunDir, d.Name)
	})
	if err != nil {
		return adopted, err
	}
	if _, err := os.Stat(d.note.Dir); err != nil {
		return adopted, fmt.Errorf("bpfman says that the maps are pinned at %s, which this process does not see (%w): run it where bpfman's %s is mounted", d.note.Dir, err, pins)
	}
	return adopted, nil
}

// pins is where bpfman pins everything.
const pins = "/run/bpfman/fs"

// adopt takes over a program with its maps, flows and links.
func (d *DataPlane) adopt(p *program, before note) error {
	d.note = p.note(d.Socket)
	known := before.Program == p.id
	for _, id := range p.links {
		i := slices.IndexFunc(before.Links, func(l loader.LinkInfo) bool { return l.ID == id })
		if known && i >= 0 {
			d.note.Links = append(d.note.Links, before.Links[i])
			continue
		}
		// Never detached to be on the safe side: a moment without the program
		// would reset every connection.
		l, err := pinnedLink(id)
		if err != nil {
			d.say("link %d of program %d stays until the end, as nothing tells where it leads: %v", id, p.id, err)
			continue
		}
		d.note.Links = append(d.note.Links, l)
	}
	d.say("adopted program %d of bpfman, with its maps and %d links", p.id, len(p.links))
	return d.note.write(d.RunDir, d.Name)
}

// Dir returns the directory of the pinned maps.
func (d *DataPlane) Dir() string { return d.note.Dir }

// Notes returns what Load did that its caller may not expect.
func (d *DataPlane) Notes() []string { return slices.Clone(d.notes) }

func (d *DataPlane) say(format string, args ...any) {
	d.notes = append(d.notes, fmt.Sprintf(format, args...))
}

// Close ends the hold. With keep the kernel goes on serving; else bpfman
// detaches and unloads.
func (d *DataPlane) Close(keep bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	if !keep && d.note.Program != 0 {
		err := d.session(func(ctx context.Context, c *client) error { return c.unload(ctx, d.note.Program) })
		if err != nil {
			err = fmt.Errorf("program %d still serves (bpfman unload %d ends it): %w", d.note.Program, d.note.Program, err)
		} else {
			err = removeNote(d.RunDir, d.Name)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, d.lock.Release())...)
}

// callLimit is how long bpfman may take for all that one look at the network
// asks of it: for its database alone it waits up to ten seconds.
const callLimit = time.Minute

// session calls f with a connection to bpfman, which may have been restarted
// since the one before, or end by itself when it is idle.
func (d *DataPlane) session(f func(context.Context, *client) error) error {
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
