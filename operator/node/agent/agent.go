// SPDX-License-Identifier: Apache-2.0

// Package agent is the process `blixt agent`: it keeps the maps of one
// application on one node as the operator wants them. In come the operator's
// updates, by a stream that the agent opens; out go states for the writer, and
// the status that the operator judges the node by. While the operator is away
// the kernel continues to serve what the maps hold.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/node/prober"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Options configure an agent. Fields without a default must be set.
type Options struct {
	// Operator is host:port. The host may have several addresses, one of which
	// is the leader's. The certificate must be for the host.
	Operator string
	// TokenFile and CAFile are read again for each connection.
	TokenFile, CAFile string
	// Application and Node identify the agent.
	Application, Node string
	Kernel            string
	// BootID is that of the node's kernel.
	BootID string
	Layout int
	// Tables are the maps to write, MapsDir is where they are pinned.
	Tables  writer.Tables
	MapsDir string
	// Answerer answers what commands ask by the operator; nil: the agent itself.
	Answerer observe.Answerer
	// RouteMetrics is which frontends and backendRefs have metrics of their own.
	RouteMetrics metrics.Routes
	// PeerMetrics is how many other nodes have metrics of their own.
	PeerMetrics int
	// FlowLines gets a line of JSON for each flow that has ended, and each packet that was
	// rejected or dropped, as far as they have records; nil: nobody does.
	FlowLines io.Writer
	Log       *slog.Logger // nil: nothing is logged
	// StatusEvery is how often the agent sends its status if nothing changes;
	// 0: 15 seconds.
	StatusEvery time.Duration
	// Pause is the longest time between attempts to connect; 0: 5 seconds.
	Pause time.Duration
	// Writer are options of the writer, and Probe is how other nodes are probed, for
	// tests.
	Writer writer.Options
	Probe  announce.Probe
}

// Agent makes the maps hold what the operator publishes. While the operator is
// away, it keeps them so.
type Agent struct {
	o         Options
	writer    *writer.Writer
	announcer *announce.Announcer
	flows     *flowlog.Log
	states    chan writer.VersionedState
	changed   chan struct{} // has an element if the status is to be sent
	reviews   *reviews

	// Only the stream uses these: there is one at a time.
	replica    Replica
	resolve    gateway.ResolveOptions
	data       []byte // of the update that has arrived in part
	announcing announcing
	judged     judged

	answering atomic.Int32 // questions that are being answered

	reported struct {
		sync.Mutex
		at   time.Time
		last lb.Announcing
	}

	mu              sync.Mutex // of all below
	connected       bool
	attempted       *lb.Version   // the newest version that was applied, or failed
	failure         string        // why the maps do not hold it, or ""
	leftOut         *lb.TableFull // what of it they have no room for; nil: nothing
	applied         time.Time     // when a version was last applied; zero: never
	settingsFailure string        // why the settings could not be written, or ""
	heartbeat       heartbeat
	elsewhere       elsewhere
	listens         map[lb.Key]uint32 // where the host was seen to listen, with the tick
	// unfinished is the number of flows for which a draining application is
	// still needed.
	unfinished uint64
}

// New returns an agent. It does not touch the maps before Run.
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
	a := &Agent{o: o, states: make(chan writer.VersionedState), changed: make(chan struct{}, 1), reviews: newReviews()}
	a.announcer = announce.New(o.Tables, announce.Options{Changed: a.announcingChanged, Log: o.Log, Probe: o.Probe})
	o.Writer.Applied, o.Writer.Log, o.Writer.Hears = a.record, o.Log, a.announcer.Hears
	o.Writer.SampleDrops = true
	a.writer = writer.New(o.Tables, o.Writer)
	a.judged.probes, a.judged.failovers.Now = prober.New(), time.Now
	a.resolve.Failovers = &a.judged.failovers
	a.flows = flowlog.New(flowlog.Options{Node: o.Node, Lines: o.FlowLines, Log: o.Log})
	if o.Answerer == nil {
		a.o.Answerer = a.Answerer()
	}
	return a
}

// Run keeps the maps until ctx ends. The kernel continues to serve what they
// hold then.
func (a *Agent) Run(ctx context.Context) {
	a.sample(ctx)
	if err := a.countUnfinished(); err != nil { // before the operator hears of it
		a.o.Log.Error("read maps", "error", err)
	}
	a.adopt()
	var done sync.WaitGroup
	done.Go(func() { a.writer.Run(ctx, a.states) })
	done.Go(func() { a.announcer.Run(ctx) })
	done.Go(func() { a.watch(ctx) })
	done.Go(func() { a.readRecords(ctx) })
	done.Go(func() { a.flows.Run(ctx) })
	a.connect(ctx)
	done.Wait()
}

// Ready returns nil once the maps hold a state of the operator, and before that
// an error that says why not. It remains nil when the operator goes away.
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
	return errors.New("the operator has not published yet what to serve")
}

// record is called by the writer after each attempt.
func (a *Agent) record(res writer.Result, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.attempted, a.failure = res.Wanted, ""
	switch {
	case err != nil:
		a.failure = err.Error()
	case res.Done:
		a.applied = time.Now()
		if res.LeftOut != nil && (a.leftOut == nil || a.leftOut.String() != res.LeftOut.String()) {
			a.o.Log.Warn("not all of the state fits, the rest is served", "reason", res.LeftOut.String())
		}
		a.leftOut = res.LeftOut
	}
	if res.Changed {
		a.o.Log.Info("maps written", "epoch", res.Version.Epoch, "sequence", res.Version.Sequence, "state", res.StateHash, "took", res.Duration)
	}
	a.notify()
}

// notify has the status sent soon.
func (a *Agent) notify() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// watch does what happens at intervals, with or without a connection.
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
				a.o.Log.Error("read maps", "error", err)
			}
			a.notify()
		}
	}
}

// countUnfinished updates the number of unfinished flows while the data plane
// drains.
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
