// SPDX-License-Identifier: Apache-2.0

package phrase

import "testing"

func TestNumber(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 4096: "4,096", 1234567: "1,234,567", -100: "-100", -4096: "-4,096"} {
		if got := Number(n); got != want {
			t.Errorf("Number(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 checks", 1: "1 check", 2000: "2,000 checks"} {
		if got := Count(n, "check"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
