// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

func isOurs(c gwv1.GatewayClass) bool { return c.Spec.ControllerName == gateway.ControllerName }

// classes checks each class by translating it, so that errors show before the operator
// runs.
func classes(f *Facts) (string, []Finding) {
	t := f.translation()
	if len(t.Classes) == 0 {
		return "", []Finding{warning("GatewayClass", "none has spec.controllerName "+string(gateway.ControllerName)+": no Gateway is Blixt's, and nothing is loaded", "helm upgrade with gatewayClass.create=true, or create one.")}
	}
	var wrong []Finding
	for _, s := range t.Classes {
		c := meta.FindStatusCondition(s.Status.Conditions, string(gwv1.GatewayClassConditionStatusAccepted))
		stored := meta.FindStatusCondition(kube.Named(f.Classes, s.Name).Status.Conditions, c.Type)
		switch {
		case c.Status != metav1.ConditionTrue:
			wrong = append(wrong, failed("GatewayClass "+s.Name, c.Message, "Correct spec.parametersRef, or its BlixtConfig: kubectl explain blixtconfig.spec"))
		case stored == nil || stored.Status != metav1.ConditionTrue:
			wrong = append(wrong, failed("GatewayClass "+s.Name, "condition Accepted is not True: no operator has accepted it", "See operator and leader above."))
		}
	}
	return fmt.Sprintf("%d classes are accepted", len(t.Classes)), wrong
}

// dataplanes reports the conditions of each node's NodeDataplane.
func dataplanes(f *Facts) (string, []Finding) {
	var wrong []Finding
	if !slices.ContainsFunc(f.Classes, isOurs) {
		return "there is no class, so nodes have nothing to serve", nil
	}
	known := map[string]bool{}
	for i := range f.Dataplanes {
		n := &f.Dataplanes[i]
		known[n.Name] = true
		for _, c := range n.Status.Conditions {
			bad := metav1.ConditionFalse
			if c.Type == v1alpha1.NodeDrifted {
				bad = metav1.ConditionTrue
			}
			seen := fmt.Sprintf("condition %s is %s, %s: %s", c.Type, c.Status, c.Reason, c.Message)
			remedy := "kubectl describe nodedataplane " + n.Name
			switch {
			case c.Status == metav1.ConditionUnknown, c.Reason == rollout.NotSelected:
				wrong = append(wrong, warning("NodeDataplane "+n.Name, seen, remedy))
			case c.Status == bad:
				wrong = append(wrong, failed("NodeDataplane "+n.Name, seen, remedy))
			}
		}
	}
	for _, n := range f.selected() {
		if !known[n.Name] && kube.Ready(n) {
			wrong = append(wrong, failed("Node "+n.Name, "it has no NodeDataplane: no operator manages it", "See operator and leader above."))
		}
	}
	return fmt.Sprintf("%d nodes serve what they should", len(f.Dataplanes)), wrong
}
