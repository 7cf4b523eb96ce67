// SPDX-License-Identifier: Apache-2.0

// Package writer keeps the maps of a node as they should be. In come states,
// from files or from the operator; out go writes to the maps, and the status
// that is read from them. The maps are the only truth: the writer remembers
// what it has read, and reads again whenever that is in doubt.
package writer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Tables are all the maps that a writer uses: datapath.Maps, or datapath.Fake
// in tests.
type Tables interface {
	datapath.Tables
	datapath.Counts
	datapath.Flows
}

// Options configure a writer. The zero value of each field is usable.
type Options struct {
	// SNAT are the source ports of translated flows; zero: lb.DefaultSNATPorts.
	// They must be outside the host's ephemeral range.
	SNAT lb.PortRange
	// HostAddresses are the node's own. The first of each family is the source
	// of translated flows on kernels that cannot choose one.
	HostAddresses []netip.Addr
	// Seed keys the hash of clients. Nodes with the same one choose the same
	// backend for a client. nil: that of the maps is kept.
	Seed *uint64
	// StateFile is the path of the file for what the maps have no place for;
	// "": none.
	StateFile string
	// SweepEvery is the pause between sweeps; 0: ten seconds.
	SweepEvery time.Duration
	// CheckEvery is how often the maps are checked for another writer; 0: ten
	// seconds.
	CheckEvery time.Duration
	// Applied is called by Run after each attempt.
	Applied func(Result, error)
	Log     *slog.Logger

	// Clock, Ticks and Sleep are for tests.
	Clock func() time.Time
	Ticks func() uint32
	Sleep func(context.Context, time.Duration) error
}

// Result is the result of Apply.
type Result struct {
	Version   lb.Version       `json:"version"`
	StateHash string           `json:"stateHash"`
	Written   datapath.Written `json:"written"`
	// Changed is true if anything was written.
	Changed  bool          `json:"changed"`
	Duration time.Duration `json:"duration"`
	// Wanted is the requested version, whether or not the maps hold it now.
	Wanted *lb.Version `json:"-"`
}

// Writer writes the maps of one data plane. Its methods may be called
// concurrently. There must be no second writer for the same maps.
type Writer struct {
	tables Tables
	o      Options

	mu       sync.Mutex // of all below, and of writing
	contents *datapath.Contents
	record   Record
	foreign  time.Time // when another writer was last noticed

	sweep  sync.Mutex // held while a sweep runs
	counts struct {
		sync.Mutex
		flows FlowCounts
	}
}

// New returns a writer that has not touched the maps yet.
func New(t Tables, o Options) *Writer {
	if o.SNAT == (lb.PortRange{}) {
		o.SNAT = lb.DefaultSNATPorts
	}
	if o.SweepEvery == 0 {
		o.SweepEvery = 10 * time.Second
	}
	if o.CheckEvery == 0 {
		o.CheckEvery = 10 * time.Second
	}
	if o.Applied == nil {
		o.Applied = func(Result, error) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Ticks == nil {
		o.Ticks = ticks
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return &Writer{tables: t, o: o}
}

// Apply makes the maps hold a state, under the next version. It returns once
// they do, which takes a second longer if it has to wait for ids or slots that
// were freed. On error, each frontend is served in its previous or its new
// form, and Apply may be tried again. It returns an error wrapping
// lb.TableFullError if the state does not fit.
func (w *Writer) Apply(ctx context.Context, s lb.State) (Result, error) {
	return w.apply(ctx, s, nil)
}

// apply is Apply for a state with a version; nil: the next one. It returns an
// error if the maps hold a later version of the same epoch.
func (w *Writer) apply(ctx context.Context, s lb.State, v *lb.Version) (Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	start := w.o.Clock()
	s = clone(s)
	s.Normalize()
	hash := s.Hash()
	res, err := w.write(ctx, s, hash, v)
	res.Duration, res.Wanted = w.o.Clock().Sub(start), v
	if err != nil {
		if _, full := errors.AsType[*lb.TableFullError](err); !full {
			w.contents = nil // in doubt: read the maps again
		}
		return res, err
	}
	if res.Changed || w.record.Hash != res.StateHash {
		w.record = Record{Version: res.Version, Hash: res.StateHash, Time: w.o.Clock(), State: s}
		if err := w.record.save(w.o.StateFile); err != nil {
			return res, err
		}
	}
	return res, nil
}

func (w *Writer) write(ctx context.Context, s lb.State, hash uint64, v *lb.Version) (Result, error) {
	res := Result{StateHash: hashText(hash)}
	config, err := w.tables.Config()
	if err != nil {
		return res, fmt.Errorf("read config: %w", err)
	}
	res.Version = lb.Version{Epoch: config.Epoch, Sequence: config.Sequence}
	switch {
	case v == nil:
		if hash != config.StateHash {
			res.Version.Sequence++
		}
	case v.Epoch == config.Epoch && v.Sequence < config.Sequence:
		return res, fmt.Errorf("state %d of epoch %d is older than state %d, which is served", v.Sequence, v.Epoch, res.Version.Sequence)
	default:
		res.Version = *v
	}
	// Options come before the state, and the version after it.
	merged := w.withState(w.mergeOptions(config), &s)
	if merged != config {
		if err := w.tables.SetConfig(merged); err != nil {
			return res, fmt.Errorf("write config: %w", err)
		}
		res.Changed = true
	}
	for complete := false; !complete; {
		plan, err := w.plan(s)
		if err != nil {
			return res, err
		}
		written, err := datapath.Apply(w.tables, w.contents, plan, w.o.Clock)
		res.Written.Add(written)
		res.Changed = res.Changed || len(plan.Ops) > 0
		if err != nil {
			return res, fmt.Errorf("write maps: %w", err)
		}
		if complete = plan.Complete(); !complete {
			if err := w.o.Sleep(ctx, plan.Again.Sub(w.o.Clock())); err != nil {
				return res, err
			}
		}
	}
	done := merged
	done.Epoch, done.Sequence, done.StateHash = res.Version.Epoch, res.Version.Sequence, hash
	if done != merged {
		if err := w.tables.SetConfig(done); err != nil {
			return res, fmt.Errorf("write config: %w", err)
		}
		res.Changed = true
	}
	return res, nil
}

func (w *Writer) plan(s lb.State) (*datapath.Plan, error) {
	if w.contents == nil {
		contents, err := datapath.Read(w.tables, w.o.Clock())
		if err != nil {
			return nil, fmt.Errorf("read maps: %w", err)
		}
		w.contents = contents
	}
	return datapath.NewPlan(w.contents, s, w.o.Clock())
}

// clone copies everything that Normalize modifies.
func clone(s lb.State) lb.State {
	s.Addresses = slices.Clone(s.Addresses)
	s.Frontends = slices.Clone(s.Frontends)
	for i := range s.Frontends {
		s.Frontends[i].Backends = slices.Clone(s.Frontends[i].Backends)
	}
	return s
}

func hashText(h uint64) string { return fmt.Sprintf("%016x", h) }

// ticks returns the time by the data plane's clock.
func ticks() uint32 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil { // cannot happen
		panic(err)
	}
	return uint32(ts.Nano() >> datapath.TickShift)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// MarshalJSON shows the duration as text.
func (r Result) MarshalJSON() ([]byte, error) {
	type plain Result
	return json.Marshal(struct {
		plain
		Duration string `json:"duration"`
	}{plain(r), r.Duration.String()})
}
