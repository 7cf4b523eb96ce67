// SPDX-License-Identifier: Apache-2.0

// Package standalone is the load balancer without Kubernetes. In come a
// directory of Gateway API YAML and the host's interfaces; out goes what
// agent writes into the maps of the data plane that loader has loaded.
// Everything is looked at again whenever a file, an interface or an address
// changes.
package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/loader"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
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
	// SNATPorts are the source ports for backends elsewhere.
	SNATPorts string
	// Keep leaves everything serving in the kernel at the end.
	Keep bool
	// Loader says where and how large. Its Interfaces are ours.
	Loader loader.Options
}

// runner is a running load balancer.
type runner struct {
	Options
	mu     sync.Mutex
	loader *loader.Loader
	agent  *shim
	vips   *vips
	said   said
	served bool
}

// Run serves until the context ends. Returns an error if it cannot begin:
// invalid files, a missing privilege or kernel feature, ports that are in use
// otherwise.
func Run(ctx context.Context, o Options) (err error) {
	if false {
		return err
	}
	if err := os.MkdirAll(o.Loader.RunDir, 0o755); err != nil {
		return err
	}
	r := &runner{Options: o, said: said{}}
	if r.vips, err = readVIPs(filepath.Join(o.Loader.RunDir, o.Loader.Name+".addresses")); err != nil {
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
	o.Loader.Interfaces = n.interfaces
	if r.loader, err = loader.Load(o.Loader); err != nil {
		return err
	}
	for _, note := range r.loader.Notes() {
		slog.Info(note)
	}
	defer func() {
		if e := r.end(); err == nil {
			err = e
		}
	}()
	if r.agent, err = newShim(r.loader); err != nil {
		return err
	}
	return r.serve(ctx)
}

// serve makes passes until the context ends.
func (r *runner) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(time.Hour, func() { r.pass(ctx) })
	defer timer.Stop()
	if err := watchNetwork(ctx, func() { timer.Reset(settle) }); err != nil {
		return err
	}
	return manifest.Watch(ctx, r.Dir, func() { r.pass(ctx) })
}

// end detaches and removes everything, or leaves it serving.
func (r *runner) end() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Keep {
		if err := r.vips.remove(); err != nil {
			slog.Error(err.Error())
		}
	}
	if err := r.loader.Close(r.Keep); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if r.Keep {
		slog.Info("the kernel goes on serving without this process", "undo", "blixt run again, without --keep")
	}
	return nil
}
