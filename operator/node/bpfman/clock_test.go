// SPDX-License-Identifier: Apache-2.0

package bpfman

import (
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// A program that drains has its time, whatever the wall clock was set to since then.
func TestDrainingOutlastsTheWallClock(t *testing.T) {
	const year = 366 * 24 * time.Hour
	set := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		began, awake time.Duration
		stepped      time.Duration
		want         time.Duration // ago
	}{
		"ten minutes later":                  {time.Hour, time.Hour + 10*time.Minute, 0, 10 * time.Minute},
		"set forward":                        {time.Hour, time.Hour + 10*time.Minute, year, 10 * time.Minute},
		"set back":                           {time.Hour, time.Hour + 10*time.Minute, -year, 10 * time.Minute},
		"the machine has started since then": {time.Hour, time.Minute, 0, 0},
		"right after the machine's start":    {time.Millisecond, time.Second, 0, 999 * time.Millisecond},
	} {
		p := Previous{Draining: lb.DrainingSince(set, time.Hour), Began: c.began}
		now := set.Add(c.awake - c.began + c.stepped)
		if got := now.Sub(p.since(now, c.awake)); got != c.want {
			t.Errorf("%s: it drains since %s, want %s", name, got, c.want)
		}
	}
	now := set.Add(5 * time.Minute)
	if got := now.Sub((&Previous{Draining: lb.DrainingSince(set, time.Hour)}).since(now, time.Hour)); got != 5*time.Minute {
		t.Errorf("by a record of an earlier version it drains since %s, want 5m", got)
	}
	if got := now.Sub((&Previous{}).since(now, time.Hour)); got != 0 {
		t.Errorf("what did not drain drains since %s", got)
	}
}
