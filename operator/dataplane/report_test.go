// SPDX-License-Identifier: Apache-2.0

package dataplane_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/datapath"
	"github.com/kubernetes-sigs/blixt/operator/dataplane"
	"github.com/kubernetes-sigs/blixt/operator/fleet"
)

// What the fleet reports is what is judged.
var _ = dataplane.Report(fleet.Report{})

// TestTableFullIsUnderstood holds the words of datapath, which come by way of
// an agent, against those that are looked for.
func TestTableFullIsUnderstood(t *testing.T) {
	for _, full := range []*datapath.TableFullError{
		{Table: "frontends", Size: 1024, Needed: 2000},
		{Table: "rings", Size: 4096, Needed: 509, Largest: 100},
	} {
		c := readCase(t, caseOf("serving"))
		c.cluster.Reports[0].Error = "write state 8: " + full.Error()
		rollout := dataplane.Plan(c.now(), c.spec(), c.cluster)
		v := dataplane.Judge(c.now(), c.spec(), rollout, c.cluster)[0]
		ready := v.Status.Conditions[0]
		if ready.Status != metav1.ConditionFalse || ready.Reason != dataplane.TableFull || !strings.Contains(ready.Message, full.Table) {
			t.Errorf("%v: condition %+v, want reason %s", full, ready, dataplane.TableFull)
		}
		if len(v.Events) == 0 || v.Events[0].Type != corev1.EventTypeWarning {
			t.Errorf("%v: events %+v, want a warning", full, v.Events)
		}
	}
}
