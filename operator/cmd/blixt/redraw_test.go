// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestWhatIsDrawnFitsOnTheScreen(t *testing.T) {
	lines := []string{"a", strings.Repeat("b", 80), strings.Repeat("ä", 81), "", "d"} // 1, 1, 2, 1 and 1 rows
	for height, want := range map[int]int{0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 4, 6: 5, 100: 5} {
		if got := fitting(lines, 80, height); !slices.Equal(got, lines[:want]) {
			t.Errorf("%d rows have %q", height, got)
		}
	}
	if got := fitting(lines, 0, 3); len(got) > 3 {
		t.Errorf("a terminal that does not know its width has %q", got)
	}
	var out bytes.Buffer
	if err := redraw(&terminal{out: &out}, "a\x1b[2J\n"); err != nil || out.String() != "a\\u001b[2J\n\n" {
		t.Errorf("no terminal gets %q, %v", out.String(), err)
	}
}
