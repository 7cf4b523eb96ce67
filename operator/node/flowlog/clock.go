// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// bootClock returns CLOCK_BOOTTIME, the time of records, since its own epoch.
func bootClock() time.Time { return kernelClock(unix.CLOCK_BOOTTIME) }

// ticks returns the data plane's time: see TICK_SHIFT.
func ticks() uint32 {
	return uint32(kernelClock(unix.CLOCK_MONOTONIC).UnixNano() >> datapath.TickShift)
}

func kernelClock(id int32) time.Time {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil { // only of a clock that there is not
		panic(err)
	}
	return time.Unix(t.Unix())
}

// wallClock turns times of CLOCK_BOOTTIME into those of the wall clock as it was set when
// they were turned: a record that is remembered does not move when somebody sets the clock.
type wallClock struct {
	clock, boot func() time.Time

	mu     sync.Mutex
	offset int64 // of the wall clock, in ns
	at     time.Time
}

// offsetFor is how long an offset holds: NTP changes it slowly, people at once.
const offsetFor = time.Second

// ahead returns by how many ns the wall clock is ahead of CLOCK_BOOTTIME.
func (w *wallClock) ahead() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := w.boot(); w.at.IsZero() || now.Sub(w.at) >= offsetFor || now.Before(w.at) {
		w.offset, w.at = w.measure(), now
	}
	return w.offset
}

// measure reads both clocks, in between of which this thread may have to wait: the
// narrowest of a few attempts counts.
func (w *wallClock) measure() (offset int64) {
	narrowest := time.Duration(1<<63 - 1)
	for range 3 {
		before := w.boot()
		wall := w.clock()
		after := w.boot()
		if width := after.Sub(before); width < narrowest {
			narrowest = width
			offset = wall.UnixNano() - before.UnixNano() - int64(width/2)
		}
	}
	return offset
}
