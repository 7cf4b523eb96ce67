// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietTime is how long the network must be quiet before it is looked at: an
	// interface that comes up causes several events. Where it never is quiet,
	// busyTime has it looked at all the same.
	quietTime = 50 * time.Millisecond
	busyTime  = 500 * time.Millisecond
	// fullEvery is how often everything is read again, whatever the events said.
	fullEvery = 5 * time.Minute
	// retryEvery is how often to try again what has failed.
	retryEvery = time.Second
)

// Watcher follows the network of a namespace. Its methods may be called concurrently,
// from threads of that namespace.
type Watcher struct {
	mu     sync.Mutex
	events *events // nil: none can be had, so each look reads everything
	table  *table
	broken bool      // events must be replaced
	full   bool      // everything must be read
	last   *Snapshot // nil: something has changed since
	// pending: Run has not told of a change yet.
	pending bool
}

// Watch returns a Watcher. It subscribes to events when it first looks.
func Watch() *Watcher { return &Watcher{table: newTable(), full: true} }

// Close ends the subscription. Run must have returned.
func (w *Watcher) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.events != nil {
		w.events.close()
		w.events = nil
	}
}

// Look returns the network as it is now.
func (w *Watcher) Look() (*Snapshot, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.look(); err != nil {
		w.full, w.pending = true, true
		return nil, err
	}
	if w.last == nil {
		w.last = w.table.snapshot()
	}
	return w.last, nil
}

func (w *Watcher) look() error {
	if w.broken && w.events != nil {
		go w.events.close() // which waits for Run to leave it
		w.events = nil
	}
	if w.events == nil {
		// Events come before lists: what changes in between is told of. Without
		// events, lists have to do.
		w.full = true
		if events, err := subscribe(); err == nil {
			w.events, w.broken = events, false
		}
	}
	w.drain()
	var err error
	if w.full {
		w.full, w.last = false, nil
		err = w.table.readAll()
		w.drain()
	}
	if w.table.stale[unix.AF_INET] || w.table.stale[unix.AF_INET6] {
		w.last = nil
	}
	err = cmp.Or(err, w.table.readDefaults())
	if errors.Is(err, errInterrupted) { // events tell of most; look again soon
		w.full, w.pending = true, true
		return nil
	}
	return err
}

// drain applies the events that have come. It returns false if there were none.
func (w *Watcher) drain() (any bool) {
	for w.events != nil && !w.broken {
		all, err := w.events.receive()
		switch {
		case errors.Is(err, unix.EAGAIN):
			return any
		case errors.Is(err, errLost):
			w.full, w.pending = true, true
		case err != nil:
			w.broken, w.full, w.pending = true, true, true
			return true
		}
		any = true
		for m := range messages(all) {
			if w.table.apply(m) {
				w.last, w.pending = nil, true
			}
		}
	}
	return any
}

// Run calls changed after each change of the network, and now and then without one,
// until the context ends. changed is to look.
func (w *Watcher) Run(ctx context.Context, changed func()) {
	full := time.Now().Add(fullEvery)
	for ctx.Err() == nil {
		w.wait(ctx, full)
		due := !time.Now().Before(full)
		if due {
			full = time.Now().Add(fullEvery)
		}
		w.mu.Lock()
		w.full = w.full || due
		tell := w.pending || w.full || w.events == nil
		w.pending = false
		w.mu.Unlock()
		if tell && ctx.Err() == nil {
			changed()
		}
	}
}

// wait returns when events have come and the network is quiet, or has been busy for
// long, or at until.
func (w *Watcher) wait(ctx context.Context, until time.Time) {
	w.mu.Lock()
	pending, failed, events := w.pending, w.events == nil || w.broken || w.full && w.pending, w.events
	w.mu.Unlock()
	if failed { // is tried again
		sleep(ctx, retryEvery)
		return
	}
	if !pending && !events.wait(ctx, until, w.receive) {
		if ctx.Err() == nil && time.Now().Before(until) { // it can wait for nothing
			w.mu.Lock()
			w.broken, w.full, w.pending = true, true, true
			w.mu.Unlock()
		}
		return
	}
	// Thousands of events a second wake this process twenty times.
	for busy := time.Now().Add(busyTime); time.Now().Before(busy) && ctx.Err() == nil; {
		sleep(ctx, quietTime)
		if !w.receive() {
			return
		}
	}
}

// receive is drain.
func (w *Watcher) receive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drain()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
