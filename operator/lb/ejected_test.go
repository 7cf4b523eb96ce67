// SPDX-License-Identifier: Apache-2.0

package lb_test

import (
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

func TestStatesOfUnhealthyBackends(t *testing.T) {
	until := time.Date(2026, 11, 30, 1, 2, 3, 0, time.Local)
	for _, c := range []struct {
		backend     lb.Backend
		state, text string
	}{
		{lb.Backend{Ejected: &lb.Ejected{Why: "refused", Until: until}}, lb.StateEjected, "ejected until 2026-11-30 01:02:03: refused"},
		{lb.Backend{Ejected: &lb.Ejected{Why: "down"}}, lb.StateEjected, "ejected: down"},
		{lb.Backend{Weight: 1, Ejected: &lb.Ejected{Why: "refused", Until: until, Trial: true}}, lb.StateTrial, "trial, ejected before: refused"},
		{lb.Backend{Weight: 1, Ejected: &lb.Ejected{Why: "refused", Panic: true}}, lb.StateServing, "serving, as too few others are healthy: refused"},
		{lb.Backend{Weight: 1, Ejected: &lb.Ejected{Why: "refused", Trial: true, Panic: true}}, lb.StateServing, "serving, as too few others are healthy: refused"},
		{lb.Backend{Standby: true, Ejected: &lb.Ejected{Why: "down"}}, lb.StateStandby, "ejected: down"},
		{lb.Backend{Drained: &lb.Drained{}, Ejected: &lb.Ejected{Why: "down"}}, lb.StateDraining, "ejected: down"},
		{lb.Backend{NotServing: true}, lb.StateNotServing, ""},
	} {
		if got := c.backend.State(); got != c.state {
			t.Errorf("%+v is %s, want %s", c.backend, got, c.state)
		}
		if e := c.backend.Ejected; e != nil && e.String() != c.text {
			t.Errorf("%+v: %q, want %q", *e, e.String(), c.text)
		}
	}
}
