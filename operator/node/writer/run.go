// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Want is a state that the maps are to hold, of a version.
type Want struct {
	State lb.State
	// Version is as in ApplyVersion; nil: the next one.
	Version *lb.Version
}

// Run applies each state that comes, tries again those that fail, checks on
// a timer that nobody else has written the maps, and sweeps flows, until ctx
// ends. Only the newest of several states is applied.
func (a *Writer) Run(ctx context.Context, states <-chan lb.State) { a.run(ctx, states, nil) }

// RunWants is Run for states with versions.
func (a *Writer) RunWants(ctx context.Context, wants <-chan Want) { a.run(ctx, nil, wants) }

func (a *Writer) run(ctx context.Context, states <-chan lb.State, wants <-chan Want) {
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		a.sweepForever(ctx)
	}()
	defer func() { <-swept }()

	var want *Want // known, but not applied
	var last *Want
	retry, check := time.NewTimer(time.Hour), time.NewTicker(a.o.CheckEvery)
	defer retry.Stop()
	defer check.Stop()
	pause := firstPause
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-states:
			if !ok {
				states = nil
				continue
			}
			want, pause = &Want{State: s}, firstPause
			last = want
		case w := <-wants:
			want, last, pause = &w, &w, firstPause
		case <-retry.C:
		case <-check.C:
			if want != nil || last == nil {
				break
			}
			ours, err := a.ours()
			if err != nil {
				a.o.Log.Error("check maps", "error", err)
			} else if !ours {
				a.o.Log.Warn("maps were written by another, writing them again")
				a.noteForeign()
				want = last
			}
		}
		if want == nil {
			continue
		}
		res, err := a.apply(ctx, want.State, want.Version)
		if ctx.Err() != nil {
			return
		}
		a.o.Applied(res, err)
		if err == nil {
			want = nil
			continue
		}
		a.o.Log.Error("apply state", "error", err, "retry", pause)
		retry.Reset(pause)
		pause = min(2*pause, lastPause)
	}
}

func (a *Writer) noteForeign() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.foreign = a.o.Clock()
}

// A failed write is most often a table that is full for a moment, or for
// good: tried again soon, then ever more rarely.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

func (a *Writer) sweepForever(ctx context.Context) {
	for a.o.Sleep(ctx, a.o.SweepEvery) == nil {
		swept, err := a.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			a.o.Log.Error("sweep flows", "error", err)
		case swept.Removed() > 0:
			a.o.Log.Debug("swept flows", "seen", swept.Entries, "idle", swept.Idle, "closed", swept.Closed, "gone", swept.Gone, "took", swept.Duration)
		}
	}
}
