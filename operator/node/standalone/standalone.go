// SPDX-License-Identifier: Apache-2.0

// Package standalone is the load balancer without Kubernetes. In come a
// directory of Gateway API YAML and the host's interfaces; out goes what
// agent writes into the maps of the data plane that a loader has loaded.
// Everything is looked at again whenever a file, an interface or an address
// changes.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// settle is how long the network must be quiet before it is looked at: an
// interface that comes up is several events.
const settle = 50 * time.Millisecond

// Options say what to serve, and on what.
type Options struct {
	// Dir holds the YAML files.
	Dir string
	// Interfaces to attach to; none: all that carry packets of their own.
	Interfaces []string
	// NodeName is what endpoints on this host have as their nodeName.
	NodeName string
	// SNATPorts are the source ports for backends elsewhere, of all data planes.
	SNATPorts lb.PortRange
	// Keep leaves everything serving in the kernel at the end.
	Keep bool
	// Name keeps several load balancers on one host apart.
	Name string
	// RunDir holds what outlives the process.
	RunDir string
	// Load loads the data plane, or adopts what an earlier run left, and
	// attaches it to the interfaces. Returns loader.AttachError where one of
	// them does not exist.
	Load func(interfaces []string) (*Loaded, error)
}

// Loaded is what a loader has loaded.
type Loaded struct {
	Loader
	// SNATPorts are those of this data plane alone.
	SNATPorts lb.PortRange
	// Older are data planes of other versions, before this one. They go when
	// their flows have ended.
	Older []Older
	// Lost returns an error if somebody else has unloaded the program; nil:
	// nobody else can.
	Lost func() error
}

// Loader is a program in the kernel, by whichever way it got there.
type Loader interface {
	// Dir is where its maps are pinned.
	Dir() string
	// Notes returns what loading did that its caller may not expect.
	Notes() []string
	// SetInterfaces attaches to exactly these interfaces.
	SetInterfaces(names []string) error
	// Close ends the hold. With keep the kernel goes on serving; else
	// everything is detached and removed.
	Close(keep bool) error
}

// runner is a running load balancer.
type runner struct {
	Options
	vips *vips
	said said

	pass       sync.Mutex // held by the one pass, and for the end; of all below
	loaded     *Loaded
	planes     []*plane
	interfaces []string

	// ready is closed when the program serves what it was loaded to.
	ready chan struct{}
	// How much the agents were asked to serve last, for the log.
	frontends, backends atomic.Int64
}

// Run serves until the context ends. Returns an error if it cannot begin:
// invalid files, a missing privilege or kernel feature, ports that are in use
// otherwise.
func Run(ctx context.Context, o Options) (err error) {
	if err := checkPorts(o.SNATPorts); err != nil {
		return err
	}
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return err
	}
	r := &runner{Options: o, said: said{last: map[string]string{}}}
	if r.vips, err = readVIPs(filepath.Join(o.RunDir, o.Name+".addresses")); err != nil {
		return err
	}
	n, err := readNetwork(o.Interfaces)
	if err != nil {
		return err
	}
	// Before anything is loaded: files that are wrong from the start are an error.
	if _, err := r.read(n); err != nil {
		return err
	}
	if r.loaded, err = load(o, n); err != nil {
		return err
	}
	return r.run(ctx)
}

// run serves, and loads again what somebody has unloaded, until the context ends.
func (r *runner) run(ctx context.Context) error {
	for r.loaded != nil {
		for _, note := range r.loaded.Notes() {
			slog.Info(note)
		}
		lost, err := r.serve(ctx)
		if lost == nil {
			return errors.Join(err, r.end())
		}
		slog.Error(lost.Error() + ": loading it again")
		r.pass.Lock() // a look may be at work
		if err := r.loaded.Close(true); err != nil {
			slog.Error(err.Error())
		}
		r.loaded = r.reload(ctx)
		r.pass.Unlock()
	}
	return r.end()
}

// reload tries to load until it does, or the context ends: then it returns nil.
func (r *runner) reload(ctx context.Context) *Loaded {
	for {
		n, err := readNetwork(r.Interfaces)
		var l *Loaded
		if err == nil {
			l, err = load(r.Options, n)
		}
		r.said.fault("load", err)
		if err == nil {
			return l
		}
		if !pause(ctx, time.Second) {
			return nil
		}
	}
}

// pause waits. Returns false if the context ends before.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// load loads the data plane and attaches it to the interfaces. Where they are
// our own choice, one that has gone since is no error: we choose again.
func load(o Options, n *network) (*Loaded, error) {
	for {
		l, err := o.Load(n.interfaces)
		failed, is := errors.AsType[*loader.AttachError](err)
		if !is || len(o.Interfaces) > 0 {
			return l, err
		}
		if _, missing := net.InterfaceByName(failed.Interface); missing == nil {
			return l, err
		}
		if n, err = readNetwork(nil); err != nil {
			return nil, err
		}
	}
}

// StateFile is where a running load balancer of a name leaves what its maps
// have no place for.
func StateFile(runDir, name string) string { return filepath.Join(runDir, name+".state.json") }

// end detaches and removes everything, or leaves it serving.
func (r *runner) end() error {
	r.pass.Lock()
	defer r.pass.Unlock()
	if !r.Keep {
		if err := r.vips.remove(); err != nil {
			slog.Error(err.Error())
		}
		if err := os.Remove(StateFile(r.RunDir, r.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			slog.Error(err.Error())
		}
	}
	if r.loaded == nil {
		return nil
	}
	if err := r.loaded.Close(r.Keep); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if r.Keep {
		slog.Info("the kernel goes on serving without this process", "undo", "blixt run again, without --keep")
	}
	return nil
}
