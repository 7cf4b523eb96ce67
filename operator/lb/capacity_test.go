// SPDX-License-Identifier: Apache-2.0

package lb

import "testing"

// TestSmallest checks that agents that have left or said nothing do not count.
func TestSmallest(t *testing.T) {
	tables := func(addresses, frontends int) map[string]Use {
		return map[string]Use{"addresses": {Size: addresses}, "frontends": {Size: frontends}}
	}
	reports := []Report{
		{Connected: true, Tables: tables(4096, 8192)}, {Connected: true}, {Connected: true, Tables: tables(5000, 6000)},
		{Tables: tables(1, 1)},
	}
	if got, want := Smallest(reports), (Capacity{Addresses: 4096, Frontends: 6000}); got != want {
		t.Errorf("smallest is %+v, want %+v", got, want)
	}
	if got := Smallest(nil); got.OrDefault() != DefaultCapacity {
		t.Errorf("without reports: %+v, want the default", got.OrDefault())
	}
}
