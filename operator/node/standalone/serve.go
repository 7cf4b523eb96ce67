// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// checkEvery is how often is looked whether the program is where it was, and
// retryEvery in how many of these looks bpfman is asked again for what it
// has refused.
const (
	checkEvery = time.Second
	retryEvery = 10
)

// plane is a data plane whose maps we write: ours, or an older one.
type plane struct {
	tables *datapath.Maps
	agent  *writer.Writer
	states chan lb.State
	ended  chan struct{}
}

// open prepares to write the maps at dir.
func open(dir string, o writer.Options) (*plane, error) {
	tables, err := datapath.Open(dir)
	if err != nil {
		return nil, err
	}
	if o.SNAT == (lb.PortRange{}) { // an older one goes on as it is
		c, err := tables.Config()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read config: %w", err), tables.Close())
		}
		o.SNAT = lb.PortRange{First: c.SnatMin, Last: c.SnatMax}
	}
	return &plane{tables, writer.New(tables, o), make(chan lb.State), make(chan struct{})}, nil
}

// run writes what is to be served until the context ends.
func (p *plane) run(ctx context.Context) {
	p.agent.Run(ctx, p.states)
	close(p.ended)
}

func (p *plane) close() {
	if err := p.tables.Close(); err != nil {
		slog.Error("close maps", "error", err)
	}
}

// serve looks at everything, again and again, until the context ends, or the
// program is lost.
func (r *runner) serve(ctx context.Context) (lost, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	defer done.Wait()
	defer cancel(nil)
	if err := r.begin(ctx, &done); err != nil {
		return nil, err
	}
	if r.loaded.Lost != nil {
		done.Go(func() { r.check(ctx, cancel) })
	}
	timer := time.AfterFunc(time.Hour, func() { r.look(ctx) })
	defer timer.Stop()
	if err := watchNetwork(ctx, func() { timer.Reset(settle) }); err != nil {
		return nil, err
	}
	if err := manifest.Watch(ctx, r.Dir, func() { r.look(ctx) }); err != nil {
		return nil, err
	}
	if lost = context.Cause(ctx); errors.Is(lost, context.Canceled) {
		lost = nil
	}
	return lost, nil
}

// begin starts an agent for each data plane.
func (r *runner) begin(ctx context.Context, done *sync.WaitGroup) error {
	r.pass.Lock()
	defer r.pass.Unlock()
	n, err := readNetwork(r.Interfaces)
	if err != nil {
		return err
	}
	o := writer.Options{HostAddresses: r.vips.own(n.addresses)}
	r.ready = make(chan struct{})
	r.planes = nil
	for _, older := range r.loaded.Older {
		o.Log = slog.With("of", older)
		p, err := open(older.Dir(), o)
		if err != nil {
			slog.Warn(older.String()+" serves its flows as it is: backends that go are not taken from it", "error", err)
		} else {
			r.planes = append(r.planes, p)
		}
		done.Go(func() { r.drain(ctx, older, p) })
	}
	o.SNAT = r.loaded.SNATPorts
	o.StateFile, o.Applied, o.Log = StateFile(r.RunDir, r.Name), r.applied, slog.Default()
	p, err := open(r.loaded.Dir(), o)
	if err != nil {
		return err
	}
	r.planes = append(r.planes, p)
	done.Go(func() {
		p.run(ctx)
		p.close()
	})
	return nil
}

// check cancels when the program is lost, and has it attached again where
// somebody has detached it.
func (r *runner) check(ctx context.Context, cancel context.CancelCauseFunc) {
	var failed error
	for i := 0; pause(ctx, checkEvery); i++ {
		if err := r.loaded.Lost(); err != nil {
			cancel(err)
			return
		}
		if failed != nil && i%retryEvery > 0 {
			continue
		}
		r.pass.Lock()
		if r.interfaces != nil && ctx.Err() == nil {
			failed = r.loaded.SetInterfaces(r.interfaces)
			r.said.fault("attach", failed)
		}
		r.pass.Unlock()
	}
}
