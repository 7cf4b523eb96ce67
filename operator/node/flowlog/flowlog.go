// SPDX-License-Identifier: Apache-2.0

// Package flowlog remembers who talked to whom. In come records that the data plane
// writes to its ring buffers when a flow ends, samples of packets that it rejects or
// drops, and records of flows that ended where it did not see it. Out go answers to
// questions, and lines of JSON. It is the one reader of the ring buffers.
package flowlog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Options configure a log. The zero value of each field is usable.
type Options struct {
	// Node is the name of this node in records.
	Node string
	// Lines gets a line of JSON for each record; nil: nobody does. What it has no time
	// for is lost, and counted.
	Lines io.Writer
	// Interface returns the name of an interface; nil: it is not known.
	Interface func(index uint32) string
	Log       *slog.Logger

	// Clocks, Sleep and sizes are for tests.
	Clock, BootClock func() time.Time
	Ticks            func() uint32
	sizes            [parts]int
}

// Source is a data plane whose records a log reads.
type Source struct {
	Maps datapath.Records
	// Frontends are those that are served: see writer.Writer.
	Frontends func(known uint64) (all []*lb.Frontend, hash uint64, changed bool)
}

// Log remembers records. Its methods may be called concurrently.
type Log struct {
	o       Options
	names   names
	memory  memory
	wall    wallClock
	invalid atomic.Uint64 // records that could not be decoded
	unsaid  atomic.Uint64 // records that Lines did not get

	sources struct {
		sync.RWMutex // held for reading while maps are read, never while a piece is sent
		all          []*source
		past         programCounts // of those that are not read any more
	}
}

// source is a Source that is being read.
type source struct {
	Source

	mu    sync.Mutex
	known uint64 // hash of the frontends that names knows
}

// New returns an empty log.
func New(o Options) *Log {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.BootClock == nil {
		o.BootClock = bootClock
	}
	if o.Ticks == nil {
		o.Ticks = ticks
	}
	if o.sizes == ([parts]int{}) {
		o.sizes = partSizes
	}
	l := &Log{o: o, wall: wallClock{clock: o.Clock, boot: o.BootClock}}
	l.memory.init(o.sizes, o.Clock())
	return l
}

// Run writes lines until ctx ends.
func (l *Log) Run(ctx context.Context) {
	if l.o.Lines != nil {
		l.writeLines(ctx)
	}
}

// Read reads the records of a data plane until ctx ends. The maps must stay open until it
// returns. Of an earlier program it reads what has no records.
func (l *Log) Read(ctx context.Context, from Source) error {
	s := &source{Source: from}
	l.sources.Lock()
	l.sources.all = append(l.sources.all, s)
	l.sources.Unlock()
	defer l.forget(s)
	l.refreshNames(s)
	var done sync.WaitGroup
	defer done.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done.Go(func() { l.followNames(ctx, s) })
	if len(s.Maps.FlowLogs()) == 0 {
		<-ctx.Done()
		return nil
	}
	done.Go(func() { l.sweepForever(ctx, s) })
	return l.readRings(ctx, s)
}

// programCounts are what programs have counted: records for which a buffer, or `recorded`,
// had no room.
type programCounts struct{ ring, full uint64 }

func (c *programCounts) add(from *source) error {
	counters, err := from.Maps.Counters()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	c.ring += counters[bpf.BlixtCounterCOUNTER_RECORD_LOST]
	c.full += counters[bpf.BlixtCounterCOUNTER_RECORD_NO_ROOM]
	return nil
}

// forget waits for answers that read the source's maps. What its program has counted
// stays: counters never fall.
func (l *Log) forget(s *source) {
	l.sources.Lock()
	defer l.sources.Unlock()
	if err := l.sources.past.add(s); err != nil {
		l.o.Log.Error("count lost records", "error", err)
	}
	for i, o := range l.sources.all {
		if o == s {
			l.sources.all = append(l.sources.all[:i:i], l.sources.all[i+1:]...)
		}
	}
}

// eachSource calls read for each source, whose maps stay open meanwhile.
func (l *Log) eachSource(read func(*source) error) error {
	l.sources.RLock()
	defer l.sources.RUnlock()
	var errs []error
	for _, s := range l.sources.all {
		errs = append(errs, read(s))
	}
	return errors.Join(errs...)
}

// namesEvery is how often a log looks whether the names of frontends have changed.
const namesEvery = time.Second

func (l *Log) followNames(ctx context.Context, s *source) {
	tick := time.NewTicker(namesEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.refreshNames(s)
		}
	}
}

func (l *Log) refreshNames(s *source) {
	if s.Frontends == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if all, hash, changed := s.Frontends(s.known); changed {
		s.known = hash
		l.names.replace(all, l.o.Clock())
	}
}

// refreshAllNames is for when names are missing, or asked for.
func (l *Log) refreshAllNames() {
	l.sources.RLock()
	defer l.sources.RUnlock()
	for _, s := range l.sources.all {
		l.refreshNames(s)
	}
}

// Stats are how many records a log has got, and lost.
type Stats struct {
	// Records is how many were remembered, by part: flows, attempts, packets.
	Records map[string]uint64
	// Lost is how many were lost, by where: ring (the buffer was full), full (there was no
	// room for a flow's record), invalid, log (lines were not written fast enough).
	Lost map[string]uint64
}

// Stats reads what the programs and the log have counted.
func (l *Log) Stats() (Stats, error) {
	s := Stats{Records: map[string]uint64{}, Lost: map[string]uint64{"invalid": l.invalid.Load(), "log": l.unsaid.Load()}}
	for p, n := range l.memory.counts() {
		s.Records[partNames[p]] = n
	}
	l.sources.RLock()
	defer l.sources.RUnlock()
	lost := l.sources.past
	for _, from := range l.sources.all {
		if err := lost.add(from); err != nil {
			return Stats{}, err
		}
	}
	s.Lost["ring"], s.Lost["full"] = lost.ring, lost.full
	return s, nil
}
