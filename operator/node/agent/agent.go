// SPDX-License-Identifier: Apache-2.0

// Package agent is the process `blixt agent`: it keeps the maps of one
// application on one node as the operator wants them. In come the operator's
// updates, by a stream that the agent opens; out go states for the writer, and
// the status that the operator judges the node by. While the operator is away
// the kernel goes on serving what the maps hold.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Options of an agent. All without a default must be set.
type Options struct {
	// Operator is host:port. The host may have several addresses, of which one
	// is the leader's; the certificate is for the host.
	Operator string
	// TokenFile and CAFile are read anew for each connection.
	TokenFile, CAFile string
	// Application and Node say who this is.
	Application, Node string
	Kernel            string
	Layout            int
	// Tables are the maps.
	Tables writer.Tables
	Log    *slog.Logger // nil: nothing is logged
	// StatusEvery is how often the operator hears of an agent where nothing
	// changes; 0: 15 seconds.
	StatusEvery time.Duration
	// Pause is how long to wait at most before trying to connect again; 0: 5
	// seconds.
	Pause time.Duration
	// Sizes and such of the agent itself, for tests.
	Writer writer.Options
}

// Agent makes the maps hold what the operator says,
// and goes on serving what it knows while the operator is away.
type Agent struct {
	o       Options
	writer  *writer.Writer
	states  chan writer.VersionedState
	changed chan struct{} // there is something to say to the operator

	// replica and the node's options are those of the one stream.
	replica Replica
	resolve gateway.ResolveOptions
	data    []byte // parts of an update

	mu              sync.Mutex // of all below
	connected       bool
	attempted       *lb.Version        // the newest that was applied, or failed
	failure         string             // why the maps do not hold it
	tableFull       *lb.TableFullError // set where the failure is one
	applied         time.Time          // when one was applied last, zero: never
	settingsFailure string             // why the settings could not be written
	heartbeat       heartbeat
	// unfinished are the flows that keep a draining application needed.
	unfinished uint64
}

// New returns an agent that has not touched the maps yet.
func New(o Options) *Agent {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.StatusEvery == 0 {
		o.StatusEvery = 15 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = 5 * time.Second
	}
	a := &Agent{o: o, states: make(chan writer.VersionedState), changed: make(chan struct{}, 1)}
	o.Writer.Applied, o.Writer.Log = a.record, o.Log
	a.writer = writer.New(o.Tables, o.Writer)
	return a
}

// Run serves until ctx ends. What the maps hold then goes on being served.
func (a *Agent) Run(ctx context.Context) {
	a.sample(ctx)
	var done sync.WaitGroup
	done.Go(func() { a.writer.RunVersioned(ctx, a.states) })
	done.Go(func() { a.watch(ctx) })
	a.connect(ctx)
	done.Wait()
}

// Ready returns nil once the maps hold what the operator has said, and why not
// before. An operator that is away later changes nothing.
func (a *Agent) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.applied.IsZero():
		return nil
	case a.failure != "":
		return errors.New(a.failure)
	case !a.connected:
		return fmt.Errorf("operator %s has not been reached yet", a.o.Operator)
	}
	return errors.New("the operator has not said yet what to serve")
}

// record is called by the agent after each try.
func (a *Agent) record(res writer.Result, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attempted, a.failure, a.tableFull = res.Wanted, "", nil
	if err != nil {
		a.failure = err.Error()
		a.tableFull, _ = errors.AsType[*lb.TableFullError](err)
	} else {
		a.applied = time.Now()
	}
	if res.Changed {
		a.o.Log.Info("maps written", "epoch", res.Version.Epoch, "sequence", res.Version.Sequence, "state", res.StateHash, "took", res.Duration)
	}
	a.notify()
}

// notify makes the operator hear soon.
func (a *Agent) notify() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// watch looks at what changes by itself, whether or not the operator is there
// to hear.
func (a *Agent) watch(ctx context.Context) {
	tick, beat := time.NewTicker(a.o.StatusEvery), time.NewTicker(sampleEvery)
	defer tick.Stop()
	defer beat.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
			a.sample(ctx)
		case <-tick.C:
			if err := a.countUnfinished(); err != nil {
				a.o.Log.Error("look at maps", "error", err)
			}
			a.notify()
		}
	}
}

// countUnfinished looks how far a data plane is that drains.
func (a *Agent) countUnfinished() error {
	sum, err := a.writer.Summary()
	if err != nil || !sum.Draining {
		return err
	}
	unfinished, err := writer.Unfinished(a.o.Tables)
	if err != nil {
		return fmt.Errorf("count flows: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unfinished = unfinished
	return nil
}
