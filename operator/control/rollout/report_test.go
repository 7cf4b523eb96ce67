// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// What the fleet reports is what is judged.
var _ = rollout.Report(fleet.Report{})

// TestTableFullIsUnderstood holds the words of datapath, which come by way of
// an agent, against those that are looked for.
func TestTableFullIsUnderstood(t *testing.T) {
	for _, full := range []*datapath.TableFullError{
		{Table: "frontends", Size: 1024, Needed: 2000},
		{Table: "rings", Size: 4096, Needed: 509, Largest: 100},
	} {
		c := readCase(t, caseOf("serving"))
		c.cluster.Reports[0].Error = "write state 8: " + full.Error()
		desired := rollout.Plan(c.now(), c.spec(), c.cluster)
		v := rollout.Judge(c.now(), c.spec(), desired, c.cluster)[0]
		ready := v.Status.Conditions[0]
		if ready.Status != metav1.ConditionFalse || ready.Reason != rollout.TableFull || !strings.Contains(ready.Message, full.Table) {
			t.Errorf("%v: condition %+v, want reason %s", full, ready, rollout.TableFull)
		}
		if len(v.Events) == 0 || v.Events[0].Type != corev1.EventTypeWarning {
			t.Errorf("%v: events %+v, want a warning", full, v.Events)
		}
	}
}
