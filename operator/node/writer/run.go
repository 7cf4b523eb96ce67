// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// VersionedState is a state, normalized, and the version under which to apply it.
// What it refers to must not be modified any more.
type VersionedState struct {
	State lb.State
	// Changed, unless nil, are the frontends in which the state differs from the
	// last one that was sent, and Sources are the sets that differ or are new; GoneSources
	// are the policies whose sets are gone. State is not used then.
	Changed     []lb.Frontend
	Sources     []lb.SourceSet
	GoneSources []string
	// Version is nil for the next version.
	Version *lb.Version
}

// Run applies the states that it receives, retries those that fail, checks at
// intervals that nobody else has written the maps, and sweeps flows, until ctx
// ends. A state that fails or waits gives way to a newer one. states must not be
// closed.
func (w *Writer) Run(ctx context.Context, states <-chan VersionedState) {
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		w.sweepForever(ctx)
	}()
	enforced := make(chan struct{})
	go func() {
		defer close(enforced)
		w.enforceForever(ctx)
	}()
	defer func() { <-swept; <-enforced }()

	received, pending := false, false // a state, and whether it has to be written
	retry, check := time.NewTimer(time.Hour), time.NewTicker(w.o.CheckEvery)
	defer retry.Stop()
	defer check.Stop()
	pause := firstPause
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-states:
			if err := w.want(s); err != nil { // a mistake of the program, which no retry mends
				w.o.Log.Error("refuse state", "error", err)
				w.o.Applied(Result{Wanted: s.Version}, err)
				continue
			}
			received, pending, pause = true, true, firstPause
		case <-w.hearsChanged:
			w.mu.Lock()
			w.target.HearsChanged()
			w.mu.Unlock()
			if !received { // what was read from the maps keeps its flags
				continue
			}
			pending = true
		case <-retry.C:
		case <-check.C:
			if pending || !received {
				break
			}
			unchanged, err := w.unchanged()
			if err != nil {
				w.o.Log.Error("check maps", "error", err)
			} else if !unchanged {
				w.o.Log.Warn("another writer has changed the maps, writing them again")
				w.recordForeign()
				pending = true
			}
		}
		if !pending {
			continue
		}
		res, err := w.write()
		if ctx.Err() != nil {
			return
		}
		w.o.Applied(res, err)
		switch {
		case err != nil:
			w.o.Log.Error("apply state", "error", err, "retry", pause)
			retry.Reset(pause)
			pause = min(2*pause, lastPause)
		case !res.Again.IsZero():
			retry.Reset(max(res.Again.Sub(w.o.Clock()), 0))
		default:
			pending = false
		}
	}
}

func (w *Writer) recordForeign() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign = w.o.Clock()
}

// The pauses before retries after a failure: soon, and then less and less often.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

func (w *Writer) sweepForever(ctx context.Context) {
	rejected := w.rejectedGone(0)
	for w.awaitSweep(ctx) == nil {
		swept, err := w.Sweep(ctx)
		if w.o.Swept != nil && ctx.Err() == nil {
			before := rejected
			rejected = w.rejectedGone(before)
			w.o.Swept(swept.Gone + int(max(rejected, before)-before))
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.o.Log.Error("sweep flows", "error", err)
		case swept.Removed() > 0:
			w.o.Log.Debug("swept flows", "seen", swept.Entries, "idle", swept.Idle, "closed", swept.Closed, "gone", swept.Gone, "denied", swept.Denied, "too old", swept.TooOld, "took", swept.Duration)
		}
	}
}

// rejectedGone returns how many flows the program has reset because their backend is gone:
// one packet of each. If that cannot be read, it is as many as before.
func (w *Writer) rejectedGone(before uint64) uint64 {
	const counter = int(bpf.BlixtCounterCOUNTER_REJECT_BACKEND_GONE)
	all, err := w.tables.Counters()
	if err != nil || counter >= len(all) {
		return before
	}
	return all[counter]
}

// soonAfter is how long after a change of backends a sweep begins that has something to
// tell: changes come in bursts.
const soonAfter = 500 * time.Millisecond

// awaitSweep waits until the next sweep is due: at intervals, and soon after backends
// have changed if connections can be reset.
func (w *Writer) awaitSweep(ctx context.Context) error {
	if w.o.Reset == nil {
		return w.o.Sleep(ctx, w.o.SweepEvery)
	}
	interval, cancel := context.WithCancel(ctx)
	defer cancel()
	slept := make(chan error, 1)
	go func() { slept <- w.o.Sleep(interval, w.o.SweepEvery) }()
	select {
	case err := <-slept:
		return err
	case <-w.backendsChanged:
		return w.o.Sleep(ctx, soonAfter)
	}
}

// sweepSoon has the next sweep begin soon.
func (w *Writer) sweepSoon() {
	select {
	case w.backendsChanged <- struct{}{}:
	default: // it does already
	}
}
