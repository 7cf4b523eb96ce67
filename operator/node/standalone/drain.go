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

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// Older is a data plane of another version, before ours.
type Older interface {
	fmt.Stringer
	// Dir is where its maps are pinned.
	Dir() string
	// Begin notes that it drains, and returns from when until when.
	Begin() (since, until time.Time, err error)
	// Unload removes it, and notes how many flows it still had, nil: nobody knows.
	Unload(cut *uint64) error
	// Forget notes that somebody else has removed it.
	Forget() error
}

// drain has an older data plane serve no new flows as soon as ours does, and
// removes it when its flows have ended, or may last no longer. Without p its
// maps are not for us to read.
func (r *runner) drain(ctx context.Context, o Older, p *plane) {
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
		return
	}
	d := drain{Older: o, plane: p}
	for {
		began := time.Now()
		gone, err := d.step()
		r.said.fault("drain "+o.String(), err)
		// Flows are counted often, but not so that it would be noticed.
		if gone || !pause(ctx, max(time.Second, 20*time.Since(began))) {
			return
		}
	}
}

// drain is an older data plane on its way out.
type drain struct {
	Older
	plane        *plane
	drains       bool
	since, until time.Time
}

// step does what is to be done now. Returns true when the data plane is gone.
func (d *drain) step() (gone bool, err error) {
	if _, err := os.Stat(d.Dir()); errors.Is(err, fs.ErrNotExist) {
		slog.Warn("somebody else has unloaded " + d.String())
		return true, d.Forget()
	}
	if !d.drains {
		if err := d.begin(); err != nil {
			return false, fmt.Errorf("have %s drain: %w", d, err)
		}
	}
	now := time.Now()
	flows, err := d.flows()
	switch {
	case err != nil && now.Before(d.until):
		return false, fmt.Errorf("count flows of %s: %w", d, err)
	case flows != nil && *flows == 0 && now.After(d.since.Add(writer.Linger)):
	case now.Before(d.until):
		return false, nil
	}
	if err := d.Unload(flows); err != nil {
		return false, err
	}
	switch {
	case flows == nil:
		slog.Warn("unloaded " + d.String() + " when its time was up: nobody knows whether it still had flows")
	case *flows > 0:
		slog.Warn("unloaded "+d.String()+" when its time was up", "cut", *flows)
	default:
		slog.Info("unloaded " + d.String() + ", its flows have ended")
	}
	return true, nil
}

func (d *drain) begin() (err error) {
	if d.since, d.until, err = d.Begin(); err != nil {
		return err
	}
	if d.plane != nil {
		err = d.plane.agent.Drain(true) // which knows who else writes the config
	} else {
		err = datapath.Drain(d.Dir(), true)
	}
	if err != nil {
		return err
	}
	d.drains = true
	slog.Info(d.String()+" drains: it serves the flows that it has", "until", d.until.Local().Format(time.DateTime))
	return nil
}

// flows returns how many flows there are, nil: nobody knows.
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
