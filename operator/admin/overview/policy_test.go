// SPDX-License-Identifier: Apache-2.0

package overview

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// What does not hold of a policy fails, what others decide is a warning, and what all
// Gateways say alike is said once.
func TestCheckPolicy(t *testing.T) {
	is := func(kind, status, reason string, generation int64) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: "why", ObservedGeneration: generation}
	}
	accepted := is("Accepted", "True", "Accepted", 2)
	for name, c := range map[string]struct {
		conditions [][]metav1.Condition
		want       string
	}{
		"well":          {[][]metav1.Condition{{accepted, is("Programmed", "True", "Programmed", 2)}}, ""},
		"in part":       {[][]metav1.Condition{{accepted, is("Programmed", "True", "PartiallyProgrammed", 2)}}, ""},
		"no status":     {nil, "failed it has no status: no operator has looked at it"},
		"no room twice": {[][]metav1.Condition{{accepted, is("Programmed", "False", "NoCapacity", 2)}, {accepted, is("Programmed", "False", "NoCapacity", 2)}}, "failed condition Programmed is False, NoCapacity: why"},
		"no target":     {[][]metav1.Condition{{is("Accepted", "False", "TargetNotFound", 2), is("Programmed", "False", "Reconciling", 2)}}, "failed condition Accepted is False, TargetNotFound: why"},
		"overridden":    {[][]metav1.Condition{{accepted, is("Programmed", "False", "Overridden", 2)}}, "warning condition Programmed is False, Overridden: why"},
		"stale":         {[][]metav1.Condition{{is("Accepted", "True", "Accepted", 1)}}, "failed condition Accepted is of generation 1, and the policy has 2: the operator has not seen its last change"},
		"warning":       {[][]metav1.Condition{{accepted, is("Warning", "True", "Nobody", 2)}}, "warning why"},
	} {
		p := &v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Generation: 2}}
		for _, conditions := range c.conditions {
			p.Status.Ancestors = append(p.Status.Ancestors, gwv1.PolicyAncestorStatus{ControllerName: gateway.ControllerName, Conditions: conditions})
		}
		var got []string
		for _, f := range CheckPolicy(p) {
			got = append(got, string(f.Verdict)+" "+f.Seen)
		}
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%s: %q, want %q", name, text, c.want)
		}
	}
}
