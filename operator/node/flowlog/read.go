// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// readRings reads the ring buffers until ctx ends.
func (l *Log) readRings(ctx context.Context, s *source) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range s.Maps.FlowLogs() {
		group.Go(func() error {
			if err := l.readRing(ctx, m); err != nil {
				return fmt.Errorf("read %s: %w", m, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// pollEvery is how long a reader waits to be woken: whoever writes without waking it is
// heard then.
const pollEvery = 200 * time.Millisecond

// readRing reads one ring buffer until ctx ends. It is mapped into memory, twice and as a whole,
// when it has a record: that of a CPU that takes no packets never is.
func (l *Log) readRing(ctx context.Context, m *ebpf.Map) error {
	if err := awaitRecord(ctx, m); err != nil {
		return fmt.Errorf("wait for a record: %w", err)
	}
	r, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()                         // it was opened for this alone
	defer context.AfterFunc(ctx, func() { _ = r.Flush() })() // what has come is read, and then no more
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
			return err
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

// awaitRecord returns when a ring buffer has a record, or ctx ends.
func awaitRecord(ctx context.Context, m *ebpf.Map) error {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(epoll) }()
	ask := time.NewTicker(pollEvery)
	defer ask.Stop()
	// To add and to change what is waited for asks the ring buffer: waiting would not, if
	// nobody wakes.
	ready := make([]unix.EpollEvent, 1)
	for change := unix.EPOLL_CTL_ADD; ; change = unix.EPOLL_CTL_MOD {
		if err := unix.EpollCtl(epoll, change, m.FD(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
			return err
		}
		n, err := unix.EpollWait(epoll, ready, 0)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 || ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done(): // what has come by now is read
		case <-ask.C:
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
