// SPDX-License-Identifier: Apache-2.0

// Package phrase puts names into sentences that people read.
package phrase

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Join returns "a, b and c".
func Join(all []string) string {
	if n := len(all); n > 1 {
		return strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
	return strings.Join(all, "")
}

// Sample returns the names in order as Join does or, of more than five, the
// first five and how many more there are.
func Sample(names []string) string {
	const most = 5
	names = slices.Sorted(slices.Values(names))
	if n := len(names) - most; n > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), n)
	}
	return Join(names)
}

// Number returns the number with commas between thousands, like 4,096.
func Number(n int) string {
	text := strconv.Itoa(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
