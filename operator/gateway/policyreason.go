// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// policyReasons are those of conditions Programmed, the worst first. Those of Accepted are
// worse.
var policyReasons = []string{
	v1alpha1.PolicyReasonNoCapacity, v1alpha1.PolicyReasonReconciling, v1alpha1.PolicyReasonOverridden,
	v1alpha1.PolicyReasonPartiallyProgrammed, v1alpha1.PolicyReasonProgrammed,
}

// PolicyReason returns the reason of what is worst of the conditions Accepted and Programmed
// of a policy: of all its ancestors and, if it has none, of its targets. "": it has no status.
func PolicyReason(s *v1alpha1.BlixtPolicyStatus) string {
	var all []metav1.Condition
	for _, a := range s.Ancestors {
		if a.ControllerName == ControllerName {
			all = append(all, a.Conditions...)
		}
	}
	if all == nil {
		for _, t := range s.Targets {
			all = append(all, t.Conditions...)
		}
	}
	worst := len(policyReasons)
	reason := ""
	for _, c := range all {
		switch {
		case c.Type == string(gwv1.PolicyConditionAccepted) && c.Status != metav1.ConditionTrue:
			return c.Reason
		case c.Type == v1alpha1.PolicyProgrammed:
			if i := slices.Index(policyReasons, c.Reason); i >= 0 && i < worst {
				worst, reason = i, c.Reason
			}
		case c.Type == string(gwv1.PolicyConditionAccepted) && reason == "":
			reason = c.Reason
		}
	}
	return reason
}
