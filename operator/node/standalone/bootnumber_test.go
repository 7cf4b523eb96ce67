// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// boots are the boots of a host, whose directories may be lost.
type boots struct {
	*testing.T
	state, run string
	clock      time.Time
	id         string
	n          int
}

func newBoots(t *testing.T) *boots {
	b := &boots{T: t, state: filepath.Join(t.TempDir(), "state"), clock: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	b.boot(0)
	return b
}

// boot boots the host a while after it began to boot last.
func (b *boots) boot(after time.Duration) {
	b.n++
	b.id, b.run, b.clock = string(rune('a'+b.n)), filepath.Join(b.TempDir(), "run"), b.clock.Add(after)
}

// number returns the boot number that a process gets now.
func (b *boots) number() *bootNumber {
	b.Helper()
	got, err := newBootNumber(b.state, b.run, b.id, b.clock)
	if err != nil {
		b.Fatal(err)
	}
	return got
}

func TestBootNumberGoesForwardWithEachBoot(t *testing.T) {
	b := newBoots(t)
	last := b.number().Number
	for _, after := range []time.Duration{time.Second, time.Minute, time.Hour, 100 * time.Hour, time.Minute,
		-time.Hour, -20 * 365 * 24 * time.Hour, 0, 20 * 365 * 24 * time.Hour, time.Minute, 3 * 365 * 24 * time.Hour, 5 * 365 * 24 * time.Hour} {
		b.boot(after)
		now := b.number().Number
		if !isAhead(now, last) {
			t.Errorf("a boot %s after the last one has number %d, after %d", after, now, last)
		}
		b.clock = b.clock.Add(90 * time.Minute) // somebody sets the clock
		if again := b.number().Number; again != now {
			t.Errorf("another process of the same boot has %d, after %d", again, now)
		}
		last = now
	}
}

func TestBootNumberGoesRoundTheCircle(t *testing.T) {
	b := newBoots(t)
	b.clock = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	for range 3 {
		last := &bootNumber{BootID: "an earlier one", Number: 65535, paths: []string{filepath.Join(b.state, bootFile)}}
		must(t, last.write())
		if now := b.number(); now.Number != 0 || now.Unsure {
			t.Errorf("after 65535 comes %+v", now)
		}
	}
}

// TestLoadBalancersOfAHostHaveOneBootNumber, whatever their directories have of the past.
func TestLoadBalancersOfAHostHaveOneBootNumber(t *testing.T) {
	b := newBoots(t)
	for range 3 { // within an hour: the number is ahead of the clock
		b.boot(0)
		b.number()
	}
	first := b.number().Number
	b.state = filepath.Join(t.TempDir(), "another")
	if second := b.number().Number; second != first {
		t.Errorf("the second one has %d, the first one %d", second, first)
	}
}

// TestBootNumberWithoutAFile: the hour keeps it going forward.
func TestBootNumberWithoutAFile(t *testing.T) {
	b := newBoots(t)
	before := b.number()
	must(t, os.RemoveAll(b.state))
	b.boot(time.Hour)
	after := b.number()
	if !isAhead(after.Number, before.Number) || !after.Unsure {
		t.Errorf("the file is lost: %+v after %+v", after, before)
	}
	b.boot(time.Hour)
	if now := b.number(); !isAhead(now.Number, after.Number) || now.Unsure {
		t.Errorf("the file is back: %+v after %+v", now, after)
	}
}

// TestBootNumberOfAnEarlierDisk: the file is of the past, as after a restored backup.
func TestBootNumberOfAnEarlierDisk(t *testing.T) {
	b := newBoots(t)
	b.number()
	file := filepath.Join(b.state, bootFile)
	backup, err := os.ReadFile(file)
	must(t, err)
	for range 10 {
		b.boot(time.Hour)
		b.number()
	}
	last := b.number().Number
	must(t, os.WriteFile(file, backup, 0o600))
	b.boot(time.Hour)
	if now := b.number().Number; !isAhead(now, last) {
		t.Errorf("%d after %d", now, last)
	}
}

func TestBootNumberThatCannotBeKept(t *testing.T) {
	b := newBoots(t)
	must(t, os.WriteFile(b.state, nil, 0o600)) // a file, where a directory is to be made
	first, err := newBootNumber(b.state, b.run, b.id, b.clock)
	if err == nil {
		t.Error("nobody is told")
	}
	b.clock = b.clock.Add(2 * time.Hour)
	if again, _ := newBootNumber(b.state, b.run, b.id, b.clock); again.Number != first.Number {
		t.Errorf("another process of the same boot has %d, after %d", again.Number, first.Number)
	}
	b.boot(time.Hour)
	if next, _ := newBootNumber(b.state, b.run, b.id, b.clock); !isAhead(next.Number, first.Number) {
		t.Errorf("the next boot has %d, after %d", next.Number, first.Number)
	}
}

func TestDamagedBootNumber(t *testing.T) {
	b := newBoots(t)
	before := b.number().Number
	for _, text := range []string{"", "{", "null", "[]", `{"number": 70000}`} {
		must(t, os.WriteFile(filepath.Join(b.state, bootFile), []byte(text), 0o600))
		b.boot(time.Hour)
		now, err := newBootNumber(b.state, b.run, b.id, b.clock)
		if err == nil {
			t.Errorf("%q: nobody is told", text)
		}
		if !isAhead(now.Number, before) {
			t.Errorf("%q: %d after %d", text, now.Number, before)
		}
		before = now.Number
	}
}

// TestSkippingIsHeardByAll: whatever number of the circle a peer knows, and whether or not
// it has heard all the others, it hears one of two numbers in a row.
func TestSkippingIsHeardByAll(t *testing.T) {
	b := newBoots(t)
	number := b.number()
	first := number.Number
	for skips := range 7 {
		before := number.Number
		must(t, number.skip())
		if !isAhead(number.Number, before) {
			t.Fatalf("who knows %d does not hear %d", before, number.Number)
		}
		deaf := 0
		for known := range 1 << 16 {
			if !isAhead(before, uint16(known)) && !isAhead(number.Number, uint16(known)) {
				deaf++
			}
		}
		if deaf > 3 { // the numbers themselves, and the one that is exactly opposite
			t.Fatalf("after %d skips from %d, %d of the circle hear neither %d nor %d", skips+1, first, deaf, before, number.Number)
		}
		if again := b.number(); again.Number != number.Number || !again.Unsure {
			t.Errorf("another process of the same boot has %+v, want %d", again, number.Number)
		}
	}
	last := number.Number
	b.boot(time.Second)
	if next := b.number(); !isAhead(next.Number, last) || next.Unsure {
		t.Errorf("the next boot has %+v, after %d", next, last)
	}
}

func TestBootNumberOfAHostWithoutAClock(t *testing.T) {
	b := newBoots(t)
	b.clock = time.Unix(0, 0)
	differ := map[uint16]bool{}
	for range 20 {
		must(t, os.RemoveAll(b.state))
		b.boot(0)
		differ[b.number().Number] = true
	}
	if len(differ) < 2 {
		t.Error("each boot has the same number, so that peers reject what is sent in the second")
	}
}
