// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"testing"
	"time"
)

func TestMonotonicOffset(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"monotonic           0         0\nboottime            0         0\n": 0,
		"monotonic      -86400       500\nboottime            7         0\n": -24*time.Hour + 500,
		"boottime            7         0\n":                                  0,
		"":                                                                   0,
		"monotonic 1 2 3\n":                                                  0,
		"monotonic much 0\n":                                                 0,
	} {
		if got := monotonicOffset(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
