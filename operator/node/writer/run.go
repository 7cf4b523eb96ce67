// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// VersionedState is a state, and the version under which to apply it.
type VersionedState struct {
	State lb.State
	// Version is nil for the next version.
	Version *lb.Version
}

// Run applies the states that it receives, retries those that fail, checks at
// intervals that nobody else has written the maps, and sweeps flows, until ctx
// ends. Of several pending states, only the newest is applied. states must not
// be closed.
func (w *Writer) Run(ctx context.Context, states <-chan VersionedState) {
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		w.sweepForever(ctx)
	}()
	defer func() { <-swept }()

	var last *VersionedState    // received last
	var pending *VersionedState // last, until it is applied
	retry, check := time.NewTimer(time.Hour), time.NewTicker(w.o.CheckEvery)
	defer retry.Stop()
	defer check.Stop()
	pause := firstPause
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-states:
			pending, last, pause = &s, &s, firstPause
		case <-retry.C:
		case <-check.C:
			if pending != nil || last == nil {
				break
			}
			unchanged, err := w.unchanged()
			if err != nil {
				w.o.Log.Error("check maps", "error", err)
			} else if !unchanged {
				w.o.Log.Warn("another writer has changed the maps, writing them again")
				w.recordForeign()
				pending = last
			}
		}
		if pending == nil {
			continue
		}
		res, err := w.apply(ctx, pending.State, pending.Version)
		if ctx.Err() != nil {
			return
		}
		w.o.Applied(res, err)
		if err == nil {
			pending = nil
			continue
		}
		w.o.Log.Error("apply state", "error", err, "retry", pause)
		retry.Reset(pause)
		pause = min(2*pause, lastPause)
	}
}

func (w *Writer) recordForeign() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foreign = w.o.Clock()
}

// The pauses before retries. Most failures are a table that is full, for a
// moment or for good: retry soon, and then less and less often.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

func (w *Writer) sweepForever(ctx context.Context) {
	for w.o.Sleep(ctx, w.o.SweepEvery) == nil {
		swept, err := w.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			w.o.Log.Error("sweep flows", "error", err)
		case swept.Removed() > 0:
			w.o.Log.Debug("swept flows", "seen", swept.Entries, "idle", swept.Idle, "closed", swept.Closed, "gone", swept.Gone, "took", swept.Duration)
		}
	}
}
