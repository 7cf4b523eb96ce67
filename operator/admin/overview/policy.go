// SPDX-License-Identifier: Apache-2.0

package overview

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// CheckPolicy returns what is not well with a BlixtPolicy: on each of its Gateways the worst,
// and the targets of which no Gateway tells.
func CheckPolicy(p *v1alpha1.BlixtPolicy) (all []finding.Finding) {
	said := map[string]bool{}
	add := func(verdict finding.Level, seen string) {
		if !said[seen] { // Gateways mostly say the same
			said[seen] = true
			all = append(all, finding.Finding{Check: "policies", Verdict: verdict, Object: "BlixtPolicy " + p.Namespace + "/" + p.Name, Seen: seen,
				Remedy: "kubectl -n " + p.Namespace + " describe blixtpolicy " + p.Name})
		}
	}
	if len(p.Status.Ancestors)+len(p.Status.Targets) == 0 {
		add(finding.Failed, "it has no status: no operator has looked at it")
	}
	check := func(conditions []metav1.Condition) {
		for _, kind := range []string{string(gwv1.PolicyConditionAccepted), v1alpha1.PolicyProgrammed} {
			c := condition(conditions, kind)
			switch {
			case c == nil:
			case c.ObservedGeneration < p.Generation:
				add(finding.Failed, fmt.Sprintf("condition %s is of generation %d, and the policy has %d: the operator has not seen its last change", kind, c.ObservedGeneration, p.Generation))
				return
			case c.Status == metav1.ConditionTrue:
			case c.Reason == v1alpha1.PolicyReasonOverridden || c.Reason == v1alpha1.PolicyReasonForeign:
				add(finding.Warning, fmt.Sprintf("condition %s is %s, %s: %s", kind, c.Status, c.Reason, c.Message))
				return
			default:
				add(finding.Failed, fmt.Sprintf("condition %s is %s, %s: %s", kind, c.Status, c.Reason, c.Message))
				return
			}
		}
		if c := condition(conditions, v1alpha1.PolicyWarning); c != nil && c.Status == metav1.ConditionTrue {
			add(finding.Warning, c.Message)
		}
	}
	for i := range p.Status.Ancestors {
		if a := &p.Status.Ancestors[i]; a.ControllerName == gateway.ControllerName {
			check(a.Conditions)
		}
	}
	for i := range p.Status.Targets {
		check(p.Status.Targets[i].Conditions)
	}
	return all
}
