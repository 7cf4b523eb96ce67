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

// Whatever versions follow each other, two programs never share a port, nor has
// one ever had a port that the next one begins with: flows keep their ports.
func TestSuccessivePrograms(t *testing.T) {
	for _, r := range []PortRange{DefaultSNATPorts, {First: 1, Last: 65535}, {First: 1000, Last: 1001}, {First: 1000, Last: 1002}, {First: 7, Last: 106}} {
		own, _ := r.FreeEnd()
		own = r.Alone(own)
		had := []PortRange{own}
		for range 4 {
			next, free := r.FreeEnd(had...)
			if !free || next.First < r.First || next.Last > r.Last || next.First > next.Last {
				t.Fatalf("%s: no port is free beside %v, got %s", r, had, next)
			}
			alone := r.Alone(next)
			if alone.First > next.First || alone.Last < next.Last || r.Alone(alone) != alone {
				t.Errorf("%s: %s becomes %s", r, next, alone)
			}
			had = []PortRange{next, alone}
		}
	}
	if own, _ := DefaultSNATPorts.FreeEnd(); own.Last-own.First+1 != 6333 || DefaultSNATPorts.Alone(own).Last-own.First+1 < 12600 {
		t.Errorf("ports %s, alone %s", own, DefaultSNATPorts.Alone(own))
	}
	// Of the halves that earlier versions had, either becomes two thirds.
	for half, want := range map[PortRange]PortRange{{First: 11000, Last: 20499}: {First: 11000, Last: 23666}, {First: 20500, Last: 29999}: {First: 17333, Last: 29999}} {
		if got := DefaultSNATPorts.Alone(half); got != want {
			t.Errorf("half %s becomes %s, want %s", half, got, want)
		}
	}
	if own := (PortRange{First: 7, Last: 7}); own.Alone(own) != own {
		t.Errorf("a single port becomes %s", own.Alone(own))
	}
}
