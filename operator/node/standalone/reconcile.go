// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/kubernetes-sigs/blixt/operator/admission"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/advice"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/trim"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// desired is what the files and the host's network ask for.
type desired struct {
	state lb.State
	// problems returns mistakes and states of objects, each with file and line. With
	// thousands of objects it takes longer than the change may.
	problems func() (mistakes, states []admission.Message)
	// few are those for the log.
	few   func([]admission.Message) []string
	files *source.Result
	// at returns file and line of an object.
	at func(name, value string) string
	// memory and lastGood are for the next read.
	memory   *admission.Memory
	lastGood gateway.LastGood
}

// resolved is what was read: from files, by which review, on which node.
type resolved struct {
	files  *source.Result
	review admission.Review
	on     gateway.ResolveOptions
	gateway.Resolution
}

// read turns the files into a state. It returns an error if none is valid or was valid
// before.
func (r *runner) read(n *network) (*desired, error) {
	files, err := r.source.Read()
	if err != nil {
		return nil, err
	}
	own := n.HostAddresses()
	o := gateway.Options{
		HostAddresses:    own,
		DefaultAddresses: n.defaultAddresses(),
		ReservedPorts:    gateway.StandaloneReservedPorts(),
		EphemeralPorts:   r.ephemeralPorts(),
		Capacity:         r.capacity(),
	}
	if r.FlowRecords {
		o.FlowRecords = v1alpha1.FlowRecordsEnabled
	}
	on := gateway.ResolveOptions{NodeName: r.NodeName, HostAddresses: own, Drained: r.byHand.set, Ejected: r.judging.ejected, Failovers: &r.judging.failovers}
	now := r.resolveAgain(files, o, on)
	r.judging.again = false
	if now == nil {
		now = r.readEndpoints(files, o, on)
	}
	if now == nil {
		now = &resolved{files: files, review: r.review(files, o), on: on}
		now.Resolution = gateway.Resolve(&now.review.Translation.Unresolved, now.review.Endpoints, on)
	}
	r.resolved = now
	d := &desired{state: now.State, files: files, memory: now.review.Memory, lastGood: now.review.Translation.LastGood, at: now.review.At, few: now.review.Few}
	d.problems = sync.OnceValues(func() ([]admission.Message, []admission.Message) {
		return now.review.Messages(append(now.Problems(), now.review.Translation.NetworkRemarks(n.prefixes())...))
	})
	return d, nil
}

func (r *runner) review(files *source.Result, o gateway.Options) admission.Review {
	set := files.Set()
	objects := admission.Objects{Objects: set.Objects, EndpointSlices: set.EndpointSlices}
	for _, p := range files.LeftOut {
		objects.LeftOut = append(objects.LeftOut, admission.LeftOut{Namespace: p.Namespace, Name: p.Name, At: p.Place(), Targets: p.Targets})
	}
	if !r.Lenient {
		return r.memory.Review(objects, o, set.At)
	}
	o.Incumbents, o.LastGood = r.memory.Incumbents, r.lastGood
	return admission.Lenient(objects, o, set.At)
}

// readEndpoints is read for files of which nothing but EndpointSlices has changed since,
// which is most changes: it translates and resolves only what these concern. nil: there is
// more to it.
func (r *runner) readEndpoints(files *source.Result, o gateway.Options, on gateway.ResolveOptions) *resolved {
	was := r.resolved
	if was == nil || was.review.Memory != r.memory || r.Lenient || !reflect.DeepEqual(was.on, on) || len(was.files.Files) != len(files.Files) || !reflect.DeepEqual(was.files.LeftOut, files.LeftOut) {
		return nil
	}
	var changed []discoveryv1.EndpointSlice
	moved := map[string]string{}
	for i, now := range files.Files {
		before := was.files.Files[i]
		if now == before {
			continue
		}
		if !now.DiffersByEndpoints(before) {
			return nil
		}
		changed = append(changed, now.EndpointSlices...)
		for name := range now.Defined() {
			moved[name] = now.At(name, "")
		}
	}
	review, services, ok := was.review.WithEndpoints(changed, moved, o, files.At)
	if !ok {
		return nil
	}
	now := &resolved{files: files, review: review, on: on, Resolution: was.Clone()}
	now.Update(&review.Translation.Unresolved, review.Endpoints, on, services...)
	return now
}

// capacity returns that of our program's tables; zero: it is not loaded yet, and not known.
func (r *runner) capacity() lb.Capacity {
	if len(r.planes) == 0 {
		return r.assumed
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
	watch := r.passes.Start()
	n := r.attach()
	if n == nil {
		return
	}
	r.served = n.View

	d, err := r.read(n)
	watch.Lap("read")
	r.passes.Count(err)
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
	if next > 0 {
		r.later.Reset(next)
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
	r.health.set(func() {
		r.health.frontends, r.health.backends, r.health.files = len(d.state.Frontends), backends, len(d.files.Refused)
	})
	r.send(ctx, d.state)
	watch.Lap("publish")
	// What the maps do not wait for comes after them.
	r.forwarded, r.opens = advice.Backends(d.state, n.HostAddresses()), advice.Opens(d.state, n.HostAddresses())
	r.state.Store(&sent{d.state, d.at})
	r.declare(d)
	select {
	case r.newState <- struct{}{}:
	default:
	}
	r.logDrained(&d.state)
	r.log.each("refusing", slog.LevelError, refusing(&d.state))
	if next == 0 { // otherwise what is missing may be about to come back
		r.logProblems(d)
	}
	r.kept.set(r.memory)
}

// applied is called by the writer of our program after each state that it has tried
// to write. It must not lock r.reconciling: reconcile may be waiting for the writer.
func (r *runner) applied(result writer.Result, err error) {
	r.health.tried(result.Done, err)
	if result.Changed {
		r.passes.Took("write", result.Duration)
	}
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
		r.status.touch()
		r.health.manager.Ready()
		result.Changed = true // so that the first state is logged even if the maps held it
		go r.trim()
	}
	if result.State != nil {
		r.changes.changed(result.State)
	}
	if result.Changed {
		frontends, backends := r.health.serves()
		slog.Info("serving", "frontends", frontends, "backends", backends, "state", result.StateHash, "took", result.Duration.Round(100*time.Microsecond))
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
	found, states := d.problems()
	mistakes := d.few(found)
	r.log.each("mistake", slog.LevelError, mistakes)
	r.health.set(func() { r.health.objects = len(mistakes) })
	r.log.each("problem", slog.LevelWarn, d.few(states))
	var lines []string
	for _, o := range d.files.Ignored() {
		lines = append(lines, ignored(o).Error())
	}
	r.log.each("ignored", slog.LevelInfo, lines)
}

// ignored says that an object is not read, and what to write instead.
func ignored(o manifest.Object) *manifest.Error {
	reason := "ignored: Blixt does not read this kind"
	if remedy := o.Remedy(); remedy != "" {
		reason += ": " + remedy
	}
	return &manifest.Error{File: o.File, Line: o.Line, Object: o.String(), Reason: reason}
}

// trim gives back the memory that it took to begin.
func (r *runner) trim() {
	if err := trim.AfterStart(); err != nil {
		r.log.warning("trim", err)
	}
}
