// SPDX-License-Identifier: Apache-2.0

package lb

import "testing"

func TestPortRangesThatShareAPort(t *testing.T) {
	r := PortRange{First: 100, Last: 200}
	for o, want := range map[PortRange]bool{
		{}: false, {First: 1, Last: 99}: false, {First: 1, Last: 100}: true, {First: 150, Last: 160}: true, {First: 50, Last: 300}: true, {First: 200, Last: 300}: true, {First: 201, Last: 300}: false,
	} {
		if r.Overlaps(o) != want || o.Overlaps(r) != want {
			t.Errorf("%s and %s overlap: %v, want %v", r, o, !want, want)
		}
	}
	if (PortRange{}).Overlaps(PortRange{}) {
		t.Error("no range has no port")
	}
}
