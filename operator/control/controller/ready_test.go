// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A replica whose clock is wrong, by a year in either direction, sees that somebody leads.
func TestLeaseOfAMachineWithAnotherClock(t *testing.T) {
	holder, duration := "replica", int32(15)
	lease := func(renewed time.Time) *coordinationv1.LeaseSpec {
		at := metav1.NewMicroTime(renewed)
		return &coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &at, LeaseDurationSeconds: &duration}
	}
	leader := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, wrong := range []time.Duration{366 * 24 * time.Hour, time.Hour, 0, -366 * 24 * time.Hour} {
		l := leases{}
		first := l.held(lease(leader), leader.Add(wrong))
		second := l.held(lease(leader.Add(2*time.Second)), leader.Add(wrong+2*time.Second))
		if first != (wrong <= 0) || !second {
			t.Errorf("with a clock that is %s ahead: held %t, and after it was renewed %t", wrong, first, second)
		}
	}
	l := leases{}
	for range 3 { // nobody renews it
		if l.held(lease(leader), leader.Add(time.Hour)) {
			t.Error("a Lease that nobody renews counts as held")
		}
	}
	if l.held(&coordinationv1.LeaseSpec{}, leader) {
		t.Error("an empty Lease counts as held")
	}
}
