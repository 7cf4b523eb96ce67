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
