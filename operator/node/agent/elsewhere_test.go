// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"
	"time"
)

func TestElsewhere(t *testing.T) {
	start := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var e elsewhere
	for i, sample := range []struct {
		count uint64
		last  int // of the samples; -1: none
	}{{7, -1}, {7, -1}, {8, 2}, {8, 2}, {0, 2}, {1, 5}} {
		e.sample(start.Add(time.Duration(i)*time.Second), sample.count)
		want := time.Time{}
		if sample.last >= 0 {
			want = start.Add(time.Duration(sample.last) * time.Second)
		}
		if !e.last.Equal(want) {
			t.Errorf("after sample %d, of %d flows: the last one began at %v, want %v", i, sample.count, e.last, want)
		}
	}
}
