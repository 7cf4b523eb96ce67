// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/systemd"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// desired is what the files and the host's network ask for.
type desired struct {
	state lb.State
	// errors and warnings are about objects, each with file and line.
	errors, warnings []string
	ignored          []manifest.Object
	files            *source.Result
	// at returns file and line of an object.
	at func(name, value string) string
	// memory and lastGood are for the next read.
	memory   *admission.Memory
	lastGood gateway.LastGood
}

// read turns the files into a state. It returns an error if none is valid or was valid
// before.
func (r *runner) read(n *network) (*desired, error) {
	files, err := r.source.Read()
	if err != nil {
		return nil, err
	}
	set := files.Set
	own := n.HostAddresses()
	o := gateway.Options{
		HostAddresses:    own,
		DefaultAddresses: n.defaultAddresses(),
		ReservedPorts:    gateway.StandaloneReservedPorts(),
		Capacity:         r.capacity(),
	}
	objects := admission.Objects{Objects: set.Objects, EndpointSlices: set.EndpointSlices}
	var review admission.Review
	if r.Lenient {
		o.Incumbents, o.LastGood = r.memory.Incumbents, r.lastGood
		review = admission.Lenient(objects, o, set.At)
	} else {
		review = r.memory.Review(objects, o, set.At)
	}
	res := gateway.Resolve(&review.Translation.Unresolved, review.Endpoints, gateway.ResolveOptions{
		NodeName:      r.NodeName,
		HostAddresses: own,
	})
	d := &desired{state: res.State, ignored: set.Ignored, files: files, memory: review.Memory, lastGood: review.Translation.LastGood}
	d.at = review.At
	d.errors, d.warnings = review.Messages(append(res.Problems(), review.Translation.NetworkRemarks(n.prefixes())...))
	return d, nil
}

// capacity returns that of our program's tables; zero: it is not loaded yet.
func (r *runner) capacity() lb.Capacity {
	if len(r.planes) == 0 {
		return lb.Capacity{}
	}
	sizes := r.planes[len(r.planes)-1].tables.Sizes()
	return lb.Capacity{Addresses: sizes.Addresses, Frontends: sizes.Frontends}
}

// prefixes returns the networks that the host is in.
func (n *network) prefixes() []netip.Prefix {
	var all []netip.Prefix
	for _, network := range n.Networks() {
		all = append(all, network.Prefix)
	}
	return all
}

// reconcile reads the network and the files and makes the kernel serve them. Each
// problem is logged once; the last good configuration goes on serving.
func (r *runner) reconcile(ctx context.Context) {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	if ctx.Err() != nil {
		return
	}
	n := r.attach()
	if n == nil {
		return
	}
	r.served = n.View

	d, err := r.read(n)
	if err != nil {
		r.log.failure("files", err)
		return
	}
	r.log.failure("files", nil)
	r.memory, r.lastGood = d.memory, d.lastGood
	r.log.each("file", slog.LevelError, d.files.Refused)
	r.log.each("unread", slog.LevelInfo, d.files.Notes)
	var next time.Duration
	d.state, next = r.removals.hold(d.state, d.files.Generation, d.files.Changed, time.Now())
	if next > 0 { // what is missing may be about to come back
		r.later.Reset(next)
	} else {
		r.logProblems(d)
	}
	d.state = r.withoutTaken(d.state)
	d.state.Addresses, err = r.hold(d.state.Addresses, n)
	r.log.failure("assign", err)
	if err != nil {
		r.served = nil
	}
	backends := 0
	for _, f := range d.state.Frontends {
		backends += len(f.Backends)
	}
	r.kept.set(r.memory)
	r.frontends.Store(int64(len(d.state.Frontends)))
	r.backends.Store(int64(backends))
	r.forwarded = advice.Backends(d.state, n.HostAddresses())
	r.send(ctx, d.state)
	r.state.Store(&sent{d.state, d.at})
	select {
	case r.newState <- struct{}{}:
	default:
	}
}

// applied is called by the writer of our program after each state that it has tried
// to write. It must not lock r.reconciling: reconcile may be waiting for the writer.
func (r *runner) applied(result writer.Result, err error) {
	if err != nil {
		r.log.failure("apply", fmt.Errorf("the last good configuration goes on serving: %w", err))
		return
	}
	r.log.failure("apply", nil)
	if !result.Done {
		return
	}
	r.log.failure("tables", leftOut(result.LeftOut))
	select {
	case <-r.ready:
	default:
		close(r.ready)
		if err := systemd.Notify(systemd.Ready); err != nil {
			slog.Warn(err.Error())
		}
		result.Changed = true // so that the first state is logged even if the maps held it
	}
	if result.Changed {
		slog.Info("serving", "frontends", r.frontends.Load(), "backends", r.backends.Load(), "state", result.StateHash, "took", result.Duration.Round(100*time.Microsecond))
	}
}

// leftOut returns an error for what does not fit, nil for nil.
func leftOut(full *lb.TableFull) error {
	if full == nil {
		return nil
	}
	return fmt.Errorf("not all fits: %s. Serve less, or use bytecode with a larger table", full)
}

// logProblems logs what is wrong with objects, each problem once while it lasts.
func (r *runner) logProblems(d *desired) {
	r.log.each("mistake", slog.LevelError, d.errors)
	r.log.each("problem", slog.LevelWarn, d.warnings)
	var lines []string
	for _, o := range d.ignored {
		line := fmt.Sprintf("%s:%d: %s is ignored: Blixt does not read this kind", o.File, o.Line, o)
		if remedy := o.Remedy(); remedy != "" {
			line += ": " + remedy
		}
		lines = append(lines, line)
	}
	r.log.each("ignored", slog.LevelInfo, lines)
}
