// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
)

// Each check has a guide, in the same order, and no guide is of a check that there is not.
// It explains the verdicts that cases have the check give, and no others.
func TestGuides(t *testing.T) {
	var names, explained []string
	for _, f := range doctor.Check(healthy(t)) {
		names = append(names, f.Check)
	}
	for _, g := range doctor.Guides {
		explained = append(explained, g.Check)
		var given []doctor.Level
		for _, level := range []doctor.Level{doctor.Failed, doctor.Warning} {
			for _, c := range defects {
				if c.check == g.Check && c.verdict == level && !slices.Contains(given, level) {
					given = append(given, level)
				}
			}
		}
		if !slices.Equal(given, g.Verdicts()) {
			t.Errorf("%s: cases show %v, the guide explains %v", g.Check, given, g.Verdicts())
		}
		if g.Looks == "" || g.Cause == "" || g.Cure == "" {
			t.Errorf("%s: the guide says too little", g.Check)
		}
	}
	if !slices.Equal(names, explained) {
		t.Errorf("checks are\n%v, and guides\n%v", names, explained)
	}
}
