// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

const printTicks = "BLIXT_TEST_PRINT_TICKS"

// A process in a time namespace of its own has the data plane's time nevertheless: else
// its sweep would end every flow, or none.
func TestTicksInTimeNamespace(t *testing.T) {
	if os.Getenv(printTicks) != "" {
		fmt.Printf("ticks=%d\n", ticks())
		return
	}
	if _, err := os.Stat("/proc/self/ns/time"); err != nil {
		t.Skip("kernel lacks: time namespaces: ", err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &up); err != nil {
		t.Fatal(err)
	}
	// No clock goes below zero: a machine that has just booted has little to subtract.
	for _, offset := range []string{"0", "31536000", fmt.Sprint(-up.Sec / 2)} {
		before := ticks()
		cmd := exec.Command("unshare", "--time", "--monotonic", offset, self, "-test.run=^TestTicksInTimeNamespace$", "-test.v")
		cmd.Env = append(os.Environ(), printTicks+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("in a time namespace: %v\n%s", err, out)
		}
		_, rest, found := strings.Cut(string(out), "ticks=")
		digits, _, _ := strings.Cut(rest, "\n")
		got, err := strconv.ParseUint(digits, 10, 32)
		if !found || err != nil {
			t.Fatalf("it printed %q", out)
		}
		if after := ticks(); uint32(got) < before || uint32(got) > after {
			t.Errorf("with a clock that is %s s ahead ticks are %d, want %d to %d", offset, got, before, after)
		}
	}
}

// The wall clock may be set while the sweep runs, by years: flows age by ticks alone.
func TestSweepWhileTheWallClockIsSet(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 366 * 24 * time.Hour, "back": -366 * 24 * time.Hour} {
		fake := datapath.NewFake(testSizes)
		w := newSweeping(t, fake)
		addFlow(fake, flowSpec{backend: 1, generation: 1, forwardAge: testIdle, replyAge: testIdle})
		addFlow(fake, flowSpec{client: 1, backend: 1, generation: 1, forwardAge: testIdle + 1, replyAge: testIdle + 1})
		var slept []time.Duration
		w.o.Sleep = func(_ context.Context, d time.Duration) error { slept = append(slept, d); return nil }
		now := time.Now().Round(0) // without the monotonic clock that it would have
		w.o.Clock = func() time.Time { now = now.Add(step); return now }
		got, err := w.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Removed() != 1 || len(fake.FlowTable) != 2 {
			t.Errorf("%s: removed %+v, and %d entries are left", name, got, len(fake.FlowTable))
		}
		for _, d := range slept {
			if d > time.Minute {
				t.Errorf("%s: it sleeps for %s", name, d)
			}
		}
	}
}

// A process may start seconds after the machine: then all time-outs are longer than the
// machine has been up, and flows seem to be from before its start.
func TestSweepRightAfterBoot(t *testing.T) {
	for now := range uint32(5) {
		fake := datapath.NewFake(testSizes)
		w := newSweeping(t, fake)
		w.o.Ticks = func() uint32 { return now }
		for i, ago := range []uint32{0, 1, 2, 5} {
			flags := []bpf.BlixtFlowFlag{0, bpf.BlixtFlowFlagFLOW_FIN}[i%2]
			forward, reply := addFlow(fake, flowSpec{client: uint16(i), backend: 1, generation: 1, forwardFlags: flags})
			for _, key := range []bpf.BlixtFlowKey{forward, reply} {
				f := fake.FlowTable[key]
				f.LastSeen = now - ago // the data plane begins flows a tick ago
				fake.FlowTable[key] = f
			}
		}
		got, err := w.Sweep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.Removed() != 0 {
			t.Errorf("%d ticks after the start of the machine it removed %+v", now, got)
		}
	}
}
