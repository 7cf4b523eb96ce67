// SPDX-License-Identifier: Apache-2.0

// Package clock is the machine's clock that nobody sets: the data plane's.
package clock

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Monotonic returns for how long the machine has been awake since its start. It tells the
// time between two processes, which the wall clock does not: somebody may set that.
func Monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil { // cannot happen
		panic(err)
	}
	return time.Duration(ts.Nano()) - timeNamespaceOffset()
}

// timeNamespaceOffset returns by how much the monotonic clock of this process is ahead
// of the machine's: a container may have a time namespace (time_namespaces(7)), but the
// data plane has none. It is read once, since a process cannot change its own.
var timeNamespaceOffset = sync.OnceValue(func() time.Duration {
	text, err := os.ReadFile("/proc/self/timens_offsets")
	if err != nil {
		return 0 // a kernel without time namespaces
	}
	return monotonicOffset(string(text))
})

// monotonicOffset parses timens_offsets: lines of clock, seconds and nanoseconds.
func monotonicOffset(text string) time.Duration {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "monotonic" {
			continue
		}
		seconds, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return 0
		}
		nanoseconds, err := strconv.ParseInt(f[2], 10, 64)
		if err != nil {
			return 0
		}
		return time.Duration(seconds)*time.Second + time.Duration(nanoseconds)
	}
	return 0
}
