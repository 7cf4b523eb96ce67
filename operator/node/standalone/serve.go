// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/node/ipsec"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// checkEvery is how often to check that the program is still attached.
const checkEvery = time.Second

// plane is a program whose maps this process writes: ours, or a previous one.
type plane struct {
	dir       string // where its maps are pinned
	tables    *datapath.Maps
	writer    *writer.Writer
	announcer *announce.Announcer
	flows     *flowlog.Log // nil: nobody reads its records
	states    chan writer.VersionedState
	ended     chan struct{}

	// reading is held by those who read the maps and know nothing of run.
	reading sync.RWMutex
	closed  bool
}

// open opens the maps that are pinned at dir, for writing.
func open(dir string, o writer.Options) (*plane, error) {
	tables, err := datapath.Open(dir)
	if err != nil {
		return nil, err
	}
	if o.SNAT == (lb.PortRange{}) { // a previous program keeps its ports
		c, err := tables.Config()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read config: %w", err), tables.Close())
		}
		o.SNAT = lb.PortRange{First: c.SnatMin, Last: c.SnatMax}
	}
	p := &plane{dir: dir, tables: tables, states: make(chan writer.VersionedState), ended: make(chan struct{})}
	p.announcer = announce.New(tables, announce.Options{Changed: func() { p.writer.HearsChanged() }, Log: o.Log})
	o.Hears = p.announcer.Hears
	p.writer = writer.New(tables, o)
	return p, nil
}

// run writes each state that is sent to p.states, until the context ends.
func (p *plane) run(ctx context.Context) {
	var others sync.WaitGroup
	others.Go(func() { p.announcer.Run(ctx) })
	others.Go(func() { p.readRecords(ctx) })
	p.writer.Run(ctx, p.states)
	others.Wait()
	close(p.ended)
}

// hasEnded reports whether run has ended.
func (p *plane) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (p *plane) close() {
	p.reading.Lock()
	defer p.reading.Unlock()
	p.closed = true
	if err := p.tables.Close(); err != nil {
		slog.Error("close maps", "error", err)
	}
}

// serve reconciles after each change of files or of the network, until the context
// ends or the program is lost. It returns why it was lost; nil: the context has
// ended.
func (r *runner) serve(ctx context.Context) (lost, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	reset, closeResets := r.openResets()
	defer closeResets()
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel(nil)
	if err := r.begin(ctx, &done, reset); err != nil {
		return nil, err
	}
	defer r.later.Stop()
	done.Go(func() { r.check(ctx, cancel) })
	done.Go(func() { r.watchWays(ctx) })
	done.Go(func() { ipsec.Watch(ctx, func() { r.followPolicies(ctx) }) })
	done.Go(func() { r.reloads(ctx) })
	done.Go(func() { r.watchDrained(ctx) })
	done.Go(func() {
		for {
			select {
			case <-r.awake:
				r.reconcile(ctx)
			case <-ctx.Done():
				return
			}
		}
	})
	done.Go(func() { r.advise(ctx) })
	r.lookAtOthers()
	done.Go(func() { r.watchOthers(ctx) })
	follow := func() { r.followNetwork(ctx) }
	r.forget = time.AfterFunc(time.Hour, follow)
	defer r.forget.Stop()
	done.Go(func() { r.network.watcher.Run(ctx, follow) })
	r.source.Watch(ctx, func() { r.reconcile(ctx) }, r.log.warning)
	if lost = context.Cause(ctx); errors.Is(lost, context.Canceled) {
		lost = nil
	}
	return lost, nil
}

// reloads reads the files and the network again whenever somebody asks for it.
func (r *runner) reloads(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Reload:
			slog.Info("reading the files and the network again, as asked")
			done := r.health.manager.Reloading()
			r.source.Look()
			r.reconcile(ctx)
			done()
		}
	}
}

// begin starts a writer for our program and for each previous one, which may reset connections.
func (r *runner) begin(ctx context.Context, done *sync.WaitGroup, reset func(writer.Reset)) error {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	n, err := r.network.look()
	if err != nil {
		return err
	}
	o := writer.Options{HostAddresses: n.HostAddresses(), MasqueradeMark: r.MasqueradeMark, Reset: reset, SampleDrops: true}
	r.ready = make(chan struct{})
	r.later = time.AfterFunc(time.Hour, func() { r.reconcile(ctx) })
	r.planes = nil
	for _, previous := range r.loaded.Previous {
		o.Log = slog.With("of", previous.String())
		p, err := open(previous.Dir(), o)
		if err != nil {
			r.log.warning("maps "+previous.Dir(), fmt.Errorf("%s serves its flows, but its maps cannot be written: flows to a backend that is removed are not reset: %w", previous, err))
		} else {
			p.flows = r.flows
			r.planes = append(r.planes, p)
		}
		done.Go(func() {
			if r.drain(ctx, previous, p) {
				r.log.failure("set source ports", r.goOnWithout(previous, o.HostAddresses))
			}
		})
	}
	o.SNAT, o.Seed, o.Upgrading = r.loaded.SNATPorts(), &r.Seed, len(r.loaded.Previous) > 0
	o.StateFile, o.Applied, o.Swept, o.Log = StateFile(r.RunDir, r.Name), r.applied, r.changes.swept, slog.Default()
	p, err := open(r.loaded.Dir(), o)
	if err != nil {
		return err
	}
	p.flows = r.flows
	r.planes = append(r.planes, p)
	r.ours.Store(p)
	contents, err := datapath.Read(p.tables, time.Time{})
	if err != nil {
		slog.Warn("which backends IPsec policies have covered is not known", "error", err)
	} else {
		r.paths.remember(contents)
	}
	r.findPeers(n)
	r.setPeering()
	done.Go(func() {
		var watching sync.WaitGroup
		watching.Go(func() { r.watchHostListens(ctx, p.writer) })
		watching.Go(func() { r.watchPeers(ctx, p.announcer) })
		watching.Go(func() { r.watchHealth(ctx, p.writer) })
		p.run(ctx)
		watching.Wait()
		p.close()
	})
	return nil
}

// ofPlane begin the subjects of problems that concern one program: its directory follows.
var ofPlane = []string{"maps ", "announce ", "egress links ", "ipsec clients "}

// goOnWithout has our program use what a previous one has left to it.
func (r *runner) goOnWithout(previous Previous, hostAddresses []netip.Addr) error {
	r.reconciling.Lock()
	defer r.reconciling.Unlock()
	for _, about := range ofPlane {
		r.log.forget(about + previous.Dir())
	}
	r.loaded.Previous = slices.DeleteFunc(r.loaded.Previous, func(other Previous) bool { return other == previous })
	ours := r.planes[len(r.planes)-1].writer
	return errors.Join(ours.SetSNAT(r.loaded.SNATPorts(), hostAddresses), ours.SetUpgrading(len(r.loaded.Previous) > 0))
}

// check cancels the context when the program is lost, and has it attached again where
// somebody has detached it.
func (r *runner) check(ctx context.Context, cancel context.CancelCauseFunc) {
	for pause(ctx, checkEvery) {
		if r.loaded.Lost != nil {
			if err := r.loaded.Lost(); err != nil {
				cancel(err)
				return
			}
		}
		found, err := r.loaded.Check()
		for _, line := range found {
			slog.Warn(line)
		}
		r.log.failure("attach", err)
	}
}
