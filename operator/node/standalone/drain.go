// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Previous is a program of another version, in front of ours.
type Previous interface {
	fmt.Stringer
	// Dir is where its maps are pinned.
	Dir() string
	// StartDraining records that it drains, and returns the time that it has.
	StartDraining() (lb.Draining, error)
	// Unload unloads it, and records how many flows it still had, nil: unknown.
	Unload(cut *uint64) error
	// Forget records that somebody else has unloaded it.
	Forget() error
}

// drain makes a previous program drain as soon as ours serves, and unloads it
// when its flows have ended or its time is up. p writes its maps until then; nil:
// they are of another layout. It returns false if the context ends before.
//
// rollout decides the same for a cluster. There the previous program serves again
// where the new one fails; here it goes on draining, and ours is loaded again.
func (r *runner) drain(ctx context.Context, previous Previous, p *plane) (gone bool) {
	if p != nil {
		defer p.close()
		ctx, cancel := context.WithCancel(ctx)
		var done sync.WaitGroup
		defer done.Wait()
		defer cancel()
		done.Go(func() { p.run(ctx) })
	}
	select {
	case <-r.ready:
	case <-ctx.Done():
		return false
	}
	d := drain{Previous: previous, plane: p}
	for {
		began := time.Now()
		gone, err := d.step()
		r.log.failure("drain "+previous.String(), err)
		// Counting flows takes a twentieth of the time at most.
		if gone || !pause(ctx, max(time.Second, 20*time.Since(began))) {
			return gone
		}
	}
}

// drain is the state of a previous program on its way out.
type drain struct {
	Previous
	plane  *plane
	drains bool
	time   lb.Draining
}

// step does what is due now. It returns true when the program is gone.
func (d *drain) step() (gone bool, err error) {
	if _, err := os.Stat(d.Dir()); errors.Is(err, fs.ErrNotExist) {
		slog.Warn("somebody else has unloaded " + d.String())
		return true, d.Forget()
	}
	if !d.drains {
		if err := d.start(); err != nil {
			return false, fmt.Errorf("have %s drain: %w", d, err)
		}
	}
	now := time.Now()
	flows, err := d.flows()
	switch {
	case err != nil && !d.time.Expired(now):
		return false, fmt.Errorf("count flows of %s: %w", d, err)
	case flows != nil && *flows == 0 && d.time.Settled(now, writer.Linger):
	case !d.time.Expired(now):
		return false, nil
	}
	if err := d.Unload(flows); err != nil {
		return false, err
	}
	switch {
	case flows == nil:
		slog.Warn("unloaded " + d.String() + " when its time was up: it is unknown whether it still had flows")
	case *flows > 0:
		slog.Warn("unloaded "+d.String()+" when its time was up", "cut", *flows)
	default:
		slog.Info("unloaded " + d.String() + ", its flows have ended")
	}
	return true, nil
}

// start switches the program to draining.
func (d *drain) start() (err error) {
	if d.time, err = d.StartDraining(); err != nil {
		return err
	}
	if d.plane != nil {
		err = d.plane.writer.Drain(true) // it writes the config as well
	} else {
		err = datapath.Drain(d.Dir(), true)
	}
	if err != nil {
		return err
	}
	d.drains = true
	slog.Info(d.String()+" drains: it serves the flows that it has", "until", d.time.Until.Local().Format(time.DateTime))
	return nil
}

// flows returns how many flows there are, nil: unknown.
func (d *drain) flows() (*uint64, error) {
	if d.plane == nil {
		return nil, nil
	}
	n, err := writer.Unfinished(d.plane.tables)
	if err != nil {
		return nil, err
	}
	return &n, nil
}
