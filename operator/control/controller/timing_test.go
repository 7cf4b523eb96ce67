// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// A version that agents are sent knows since when the endpoints of a Service were to
// change, and since when the operator knows. What the operator has found when it began,
// however old, is no change.
func TestCauseOfEndpoints(t *testing.T) {
	o := prepare(t)
	trigger := func(at time.Time) map[string]string {
		return map[string]string{corev1.EndpointsLastChangeTriggerTime: at.UTC().Format(time.RFC3339Nano)}
	}
	s := o.slice("web-2", "10.3.0.7")
	s.Annotations = trigger(time.Now().Add(-time.Hour))
	o.must(o.kube.Update(t.Context(), s))
	o.run()
	o.serve()
	o.endpoint("10.3.0.7", true)
	began := time.Now()
	o.agents.change(func(a *agents) {
		for v, c := range a.causes {
			if len(c.Changes) > 0 || c.Seen.After(began) {
				t.Errorf("%v was caused by %+v", v, c)
			}
		}
	})

	// Again if a pass that ran anyway has read the slice a moment before its event came.
	addr := 0
	o.eventually("cause", func() error {
		addr++
		changed := time.Now().Truncate(time.Millisecond)
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(s), s))
		s.Annotations = trigger(changed)
		s.Endpoints[0].Addresses = []string{fmt.Sprint("10.3.1.", addr)}
		o.must(o.kube.Update(t.Context(), s))
		o.endpoint(s.Endpoints[0].Addresses[0], true)
		var cause fleet.Cause
		o.agents.change(func(a *agents) { cause = a.causes[a.version] })
		if len(cause.Changes) != 1 || !cause.Changes[0].At.Equal(changed) || cause.Seen.Before(changed) {
			return fmt.Errorf("%+v, want a change of %v", cause, changed)
		}
		return nil
	})
	o.must(o.kube.Delete(t.Context(), s))
	o.endpoint(s.Endpoints[0].Addresses[0], false)
	o.agents.change(func(a *agents) {
		if c := a.causes[a.version]; len(c.Changes) > 0 || c.Seen.Before(began) {
			t.Errorf("a removal was caused by %+v", c)
		}
	})
}
