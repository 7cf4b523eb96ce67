// SPDX-License-Identifier: Apache-2.0

package oracle

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// difference is a step after which other packets arrive.
type difference struct {
	kind            kind
	step            string
	blixt, nftables []string
}

func (d difference) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s: when %s\n", d.kind.name, d.step)
	list := func(who string, lines []string) {
		if len(lines) == 0 {
			lines = []string{"nothing arrives"}
		}
		for _, l := range lines {
			fmt.Fprintf(&s, "    %-9s %s\n", who, l)
		}
	}
	list("nftables:", d.nftables)
	list("Blixt:", d.blixt)
	return s.String()
}

// TestBlixtDoesWhatNftablesDoes sends every kind of packet through both networks.
func TestBlixtDoesWhatNftablesDoes(t *testing.T) {
	l, err := lab.New("blixt-e2e-oracle")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	theirs, ours := newNetwork(t, l, "nftables"), newNetwork(t, l, "blixt")
	// Without offloads, every kernel computes the checksums of what it sends.
	l.Offloads(false)
	if err := l.Err(); err != nil {
		t.Fatal(err)
	}
	theirs.useNftables(t)
	ours.useBlixt(t, l)
	t.Cleanup(func() {
		if t.Failed() {
			status, err := ours.blixt.Run("status")
			t.Logf("blixt said:\n%s\nand its status is, %v:\n%s", ours.blixt.Log(), err, status)
		}
	})
	bind(t)

	all := kinds()
	t.Logf("%d kinds of packets", len(all))
	var differences []difference
	for i, k := range all {
		// Each has a port of the client of its own, and so flows of its own.
		port := cmp.Or(k.clientPort, uint16(20000+i))
		a, b := newSession(theirs, k, port), newSession(ours, k, port)
		k.run(a)
		k.run(b)
		if err := cmp.Or(a.err, b.err); err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		differences = append(differences, compare(k, a.steps, b.steps)...)
	}
	report(t, all, differences)
}

// bind keeps the test on one processor: the kernel handles packets there, in order.
func bind(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var was, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	for cpu := range 1024 {
		if was.IsSet(cpu) {
			set.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if unix.SchedSetaffinity(0, &was) == nil {
			runtime.UnlockOSThread()
		}
	})
}

// compare returns the steps after which different packets arrived.
func compare(k kind, nftables, blixt []step) (differences []difference) {
	for i := range max(len(nftables), len(blixt)) {
		var a, b step
		if i < len(nftables) {
			a = nftables[i]
		}
		if i < len(blixt) {
			b = blixt[i]
		}
		if !slices.Equal(a.arrived, b.arrived) || a.what != b.what {
			what := a.what
			if b.what != what {
				what += " (Blixt: " + b.what + ")"
			}
			differences = append(differences, difference{kind: k, step: what, nftables: a.arrived, blixt: b.arrived})
		}
	}
	return differences
}

var reportTo = flag.String("report", "", "file to write all differences to, with their reasons")

// report fails the test for each difference that is not expected, and each expectation
// that nothing meets.
func report(t *testing.T, all []kind, differences []difference) {
	t.Helper()
	var file strings.Builder
	unexpected := 0
	for _, d := range differences {
		why := explain(d)
		fmt.Fprintf(&file, "%s  %s\n", d, cmp.Or(why, "UNEXPECTED"))
		if why != "" {
			continue
		}
		if unexpected++; unexpected <= 20 {
			t.Errorf("unexpected: %s", d)
		}
	}
	t.Logf("%d kinds of packets, %d differences, %d unexpected ones", len(all), len(differences), unexpected)
	check := func(used int, why string) {
		t.Logf("%4d times: %s", used, why)
		if used == 0 {
			t.Errorf("remove it from the list, this difference is not there any more: %s", why)
		}
	}
	for _, d := range details {
		check(d.used, d.why)
	}
	for _, e := range expected {
		check(e.used, e.why)
	}
	if *reportTo != "" {
		if err := os.WriteFile(*reportTo, []byte(file.String()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// explain returns why a difference is expected, or nothing.
func explain(d difference) (why string) {
	theirs, ours := without(d.nftables, d.blixt), without(d.blixt, d.nftables)
	if len(theirs) > 0 && same(theirs, ours, -1) {
		var all []string
		for i := range details {
			if x := &details[i]; (x.concerns(theirs) || x.concerns(ours)) && !same(theirs, ours, i) {
				x.used++
				all = append(all, x.why)
			}
		}
		return strings.Join(all, "; ")
	}
	for i := range expected {
		if e := &expected[i]; e.matches(d) {
			e.used++
			return e.why
		}
	}
	return ""
}

// same reports whether packets differ in nothing but details, of which one is left out.
func same(theirs, ours []string, except int) bool {
	for i := range details {
		if x := &details[i]; i != except {
			theirs, ours = x.apply(theirs), x.apply(ours)
		}
	}
	return slices.Equal(theirs, ours)
}

// without returns the lines that are not among the others.
func without(lines, others []string) (rest []string) {
	others = slices.Clone(others)
	for _, l := range lines {
		if i := slices.Index(others, l); i >= 0 {
			others = slices.Delete(others, i, i+1)
		} else {
			rest = append(rest, l)
		}
	}
	return rest
}
