// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"math"
	"net/netip"
	"testing"
)

// What overlaps counts once, and nothing overflows.
func TestPoolSize(t *testing.T) {
	for _, c := range []struct {
		texts  []string
		v4, v6 float64
	}{
		{nil, 0, 0},
		{[]string{"192.0.2.0/28"}, 16, 0},
		{[]string{"192.0.2.7", "192.0.2.7"}, 1, 0},
		{[]string{"192.0.2.8-192.0.2.20", "192.0.2.0/28", "192.0.2.2", "198.51.100.0/24"}, 21 + 256, 0},
		{[]string{"2001:db8::/64", "2001:db8::1", "192.0.2.1"}, 1, 1 << 64},
		{[]string{"2001:db8::/120", "2001:db8::100"}, 0, 257},
		{[]string{"2001:db8:0:1::/64", "2001:db8::/63"}, 0, 1 << 65},
		{[]string{"2000::/3"}, 0, math.Pow(2, 125)},
	} {
		r, err := parseRanges("pool", c.texts)
		if err != nil {
			t.Fatal(err)
		}
		if v4, v6 := r.size(false), r.size(true); v4 != c.v4 || v6 != c.v6 {
			t.Errorf("%v: %v IPv4, %v IPv6, want %v and %v", c.texts, v4, v6, c.v4, c.v6)
		}
	}
	// The last address of all has none after it.
	if n := (ranges{rangeOf(netip.MustParsePrefix("ffff::/16")), rangeOf(netip.MustParsePrefix("ffff::/17"))}).size(true); n != math.Pow(2, 112) {
		t.Errorf("%v", n)
	}
}
