// SPDX-License-Identifier: Apache-2.0

package live

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// meter measures the CPU time that packets cost which the calling thread sends: its
// own, as the kernel handles a packet in a soft interrupt of the thread that sends it,
// and that of ksoftirqd, which takes over where there is much to do.
type meter struct {
	softirqd string // its schedstat; "": it is not to be seen from here
}

// newMeter keeps the calling thread, which must be locked, on one CPU.
func newMeter() (*meter, error) {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, fmt.Errorf("read CPU affinity: %w", err)
	}
	cpu := 0 // the last: the first one has the interrupts
	for i := range len(all) * 64 {
		if all.IsSet(i) {
			cpu = i
		}
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("set CPU affinity: %w", err)
	}
	// A signal would interrupt a generator, which then begins anew. The runtime sends some.
	signals := unix.Sigset_t{}
	for i := range signals.Val {
		signals.Val[i] = ^signals.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &signals, nil); err != nil {
		return nil, fmt.Errorf("block signals: %w", err)
	}
	m := &meter{}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if comm, _ := os.ReadFile(name); string(bytes.TrimSpace(comm)) == fmt.Sprintf("ksoftirqd/%d", cpu) {
			m.softirqd = filepath.Join(filepath.Dir(name), "schedstat")
		}
	}
	return m, nil
}

func (m *meter) softTime() (d time.Duration, err error) {
	if m.softirqd == "" {
		return 0, nil
	}
	text, err := os.ReadFile(m.softirqd)
	if err == nil {
		_, err = fmt.Fscan(strings.NewReader(string(text)), &d)
	}
	return d, err
}

func threadTime() (int64, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return t.Nano(), err
}

// measure calls send and returns the CPU time that it has cost. send returns when its
// own work is done, and settled when no packet is on its way any more.
func (m *meter) measure(send, settled func() error) (time.Duration, error) {
	soft, err := m.softTime()
	if err != nil {
		return 0, err
	}
	begin, err := threadTime()
	if err != nil {
		return 0, err
	}
	if err := send(); err != nil {
		return 0, err
	}
	end, err := threadTime()
	if err != nil {
		return 0, err
	}
	if err := settled(); err != nil {
		return 0, err
	}
	after, err := m.softTime()
	return time.Duration(end-begin) + after - soft, err
}
