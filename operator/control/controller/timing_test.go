// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

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

// metric returns a series of the operator that runs, by the values of its labels in
// order; for a histogram its count.
func (o *operator) metric(name string, labels ...string) (float64, bool) {
	o.Helper()
	families, err := o.metrics.Gather()
	o.must(err)
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			var values []string
			for _, l := range m.Label {
				values = append(values, l.GetValue())
			}
			if slices.Equal(values, labels) {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

// What is, is as objects say it; what is not, has no series.
func TestOperatorMetrics(t *testing.T) {
	o := start(t)
	o.serve()
	is := func(name string, want float64, labels ...string) {
		t.Helper()
		o.eventually(fmt.Sprint(name, labels), func() error {
			if got, ok := o.metric(name, labels...); got != want || ok != (want != 0) {
				return fmt.Errorf("%v, %v, want %v", got, ok, want)
			}
			return nil
		})
	}
	is("blixt_fleet_nodes", 2, "Serving")
	is("blixt_pool_addresses", 8, "IPv4", "blixt")
	is("blixt_pool_addresses_in_use", 1, "IPv4", "blixt")
	is("blixt_problems", 0, "TCPRoute", "BackendNotFound")
	for _, phase := range []string{"read", "translate", "endpoints", "publish", "rollout"} {
		if n, _ := o.metric("blixt_pass_duration_seconds", phase); n == 0 {
			t.Errorf("phase %s was never measured", phase)
		}
	}
	if n, _ := o.metric("blixt_passes_total", "ok"); n == 0 {
		t.Error("no pass was counted")
	}

	o.must(o.kube.Delete(t.Context(), named[corev1.Service]("default", "web")))
	is("blixt_problems", 1, "TCPRoute", "BackendNotFound")
	gw := named[gwv1.Gateway]("default", "web")
	o.eventually("condition of another controller", func() error {
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(gw), gw))
		for kind, reason := range map[string]string{"example.com/Audited": "Theirs", "blixt.x-k8s.io/Test": "Ours"} {
			meta.SetStatusCondition(&gw.Status.Conditions, metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason})
		}
		return o.kube.Status().Update(t.Context(), gw)
	})
	o.agents.change(func(a *agents) { a.reports[0].Connected = false })
	is("blixt_fleet_nodes", 1, "AgentLost")
	is("blixt_fleet_nodes", 1, "Serving")
	is("blixt_problems", 1, "Gateway", "Ours")
	is("blixt_problems", 0, "Gateway", "Theirs")
	o.must(o.kube.Delete(t.Context(), gw))
	o.eventually("address", func() error {
		if n, ok := o.metric("blixt_pool_addresses_in_use", "IPv4", "blixt"); n != 0 || !ok {
			return fmt.Errorf("%v addresses are in use", n)
		}
		return nil
	})
	is("blixt_problems", 0, "TCPRoute", "BackendNotFound")

	problems, err := testutil.GatherAndLint(o.metrics)
	o.must(err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
