// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// A policy has one reason for people: of the Gateway on which it does worst.
func TestPolicyReason(t *testing.T) {
	accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"}
	missing := metav1.Condition{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "TargetNotFound"}
	programmed := func(reason string) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.PolicyProgrammed, Status: metav1.ConditionUnknown, Reason: reason}
	}
	on := func(controller gwv1.GatewayController, conditions ...metav1.Condition) gwv1.PolicyAncestorStatus {
		return gwv1.PolicyAncestorStatus{ControllerName: controller, Conditions: conditions}
	}
	for want, s := range map[string]v1alpha1.BlixtPolicyStatus{
		"":               {},
		"Programmed":     {Ancestors: []gwv1.PolicyAncestorStatus{on(ControllerName, accepted, programmed("Programmed")), on("example.com/other", missing)}},
		"NoCapacity":     {Ancestors: []gwv1.PolicyAncestorStatus{on(ControllerName, accepted, programmed("NoCapacity")), on(ControllerName, accepted, programmed("Overridden"))}},
		"Overridden":     {Ancestors: []gwv1.PolicyAncestorStatus{on(ControllerName, accepted, programmed("Programmed")), on(ControllerName, programmed("Overridden"))}},
		"TargetNotFound": {Ancestors: []gwv1.PolicyAncestorStatus{on(ControllerName, accepted, programmed("NoCapacity")), on(ControllerName, missing)}},
		"Foreign":        {Targets: []v1alpha1.PolicyTargetStatus{{Conditions: []metav1.Condition{{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "Foreign"}}}}},
		"Accepted":       {Ancestors: []gwv1.PolicyAncestorStatus{on(ControllerName, accepted)}, Targets: []v1alpha1.PolicyTargetStatus{{Conditions: []metav1.Condition{missing}}}},
	} {
		if got := PolicyReason(&s); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
