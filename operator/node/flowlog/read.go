// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf/ringbuf"
)

// readRings reads the ring buffers until ctx ends.
func (l *Log) readRings(ctx context.Context, s *source) error {
	var readers []*ringbuf.Reader
	closeAll := func() {
		for _, r := range readers {
			_ = r.Close() // it was opened for this alone
		}
	}
	for _, m := range s.Maps.FlowLogs() {
		r, err := ringbuf.NewReader(m)
		if err != nil {
			closeAll()
			return fmt.Errorf("read %s: %w", m, err)
		}
		readers = append(readers, r)
	}
	for _, r := range readers {
		defer context.AfterFunc(ctx, func() { _ = r.Flush() })() // what has come is read, and then no more
	}
	errs := make([]error, len(readers))
	var done sync.WaitGroup
	for i, r := range readers {
		done.Go(func() { errs[i] = l.readRing(ctx, r) })
	}
	done.Wait()
	closeAll()
	return errors.Join(errs...)
}

// pollEvery is how long a reader waits to be woken: whoever writes without waking it is
// heard then.
const pollEvery = 200 * time.Millisecond

// readRing reads one ring buffer until ctx ends.
func (l *Log) readRing(ctx context.Context, r *ringbuf.Reader) error {
	var sample ringbuf.Record
	batch := make([]entry, 0, chunk)
	for {
		r.SetDeadline(time.Now().Add(pollEvery))
		err := r.ReadInto(&sample)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ringbuf.ErrFlushed):
			if ctx.Err() != nil {
				return nil
			}
			continue
		case err != nil:
			return fmt.Errorf("read ring buffer: %w", err)
		}
		if e, valid := decode(sample.RawSample); valid {
			batch = append(batch, e)
		} else {
			l.invalid.Add(1)
		}
		if len(batch) == cap(batch) || sample.Remaining == 0 {
			l.add(batch)
			batch = batch[:0]
		}
	}
}

// add remembers records.
func (l *Log) add(batch []entry) {
	if len(batch) == 0 {
		return
	}
	ahead, refreshed := l.wall.ahead(), false
	for i := range batch {
		e := &batch[i]
		e.time = int64(e.r.Ended) + ahead
		if e.names, e.was = l.names.of(keyOf(&e.r)); e.names == nil && partOf(&e.r) != partPackets && !refreshed {
			refreshed = true
			l.refreshAllNames()
			e.names, e.was = l.names.of(keyOf(&e.r))
		}
	}
	l.memory.add(batch)
}
