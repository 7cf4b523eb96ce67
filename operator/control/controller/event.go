// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// event emits an event about an object.
func (a *api) event(object client.Object, kind, reason, message string) {
	if !a.events.allows(object.GetUID(), a.clock()) {
		return
	}
	a.recorder.Eventf(object, nil, kind, reason, "Reconcile", "%s", phrase.Clip(message, maxEvent))
}

// maxEvent is how many bytes of an event's message the API server accepts.
const maxEvent = 1024

// emit emits the events of the data plane whose objects exist.
func (a *api) emit(ctx context.Context, all []rollout.Event) {
	for _, e := range all {
		var object client.Object = &v1alpha1.NodeDataplane{}
		if e.Kind == "ClusterBpfApplication" {
			object = &bpfmanv1.ClusterBpfApplication{}
		}
		if err := a.direct.Get(ctx, types.NamespacedName{Name: e.Name}, object); err == nil {
			a.event(object, e.Type, e.Reason, e.Message)
		}
	}
}

// emitChanges emits an event for each condition that has become False, for each
// warning, and for a Gateway that is now served, or a policy that is now enforced.
func (a *api) emitChanges(object client.Object, previous, current []metav1.Condition) {
	for _, now := range current {
		before := meta.FindStatusCondition(previous, now.Type)
		changed := before == nil || before.Status != now.Status || before.Reason != now.Reason
		switch {
		case !changed:
		case isProblem(now):
			a.event(object, corev1.EventTypeWarning, now.Reason, now.Type+": "+now.Message)
		case strings.HasPrefix(now.Type, v1alpha1.ListenerPortWarning):
			a.event(object, corev1.EventTypeWarning, now.Reason, now.Message)
		case strings.HasPrefix(now.Type, v1alpha1.PolicyWarning):
			a.event(object, corev1.EventTypeWarning, now.Reason, now.Message)
		case now.Status == metav1.ConditionTrue && strings.HasPrefix(now.Type, string(gwv1.GatewayConditionProgrammed)):
			a.event(object, corev1.EventTypeNormal, now.Reason, now.Message)
		}
	}
}

// isProblem reports whether a condition says that something is wrong. One that is
// pending does not.
func isProblem(c metav1.Condition) bool {
	return c.Status == metav1.ConditionFalse && c.Reason != string(gwv1.GatewayReasonPending) && c.Reason != v1alpha1.PolicyReasonReconciling &&
		c.Type != string(gwv1.ListenerConditionConflicted) && !gateway.KeepsNode(c)
}

// conditionsOf returns the conditions of an object that events are emitted for.
func conditionsOf(object client.Object) []metav1.Condition {
	switch o := object.(type) {
	case *gwv1.GatewayClass:
		return o.Status.Conditions
	case *gwv1.Gateway:
		all := slices.Clone(o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			all = append(all, warnings(l.Name, l.Conditions)...)
		}
		return all
	case *gwv1.ListenerSet:
		all := slices.Clone(o.Status.Conditions)
		for _, l := range o.Status.Listeners {
			all = append(all, warnings(l.Name, l.Conditions)...)
		}
		return all
	case *v1alpha1.BlixtPolicy:
		return policyEvents(o)
	case *gwv1.TCPRoute, *gwv1.UDPRoute:
		var all []metav1.Condition
		for _, p := range statusOfRoute(object).Parents {
			if p.ControllerName == gateway.ControllerName {
				all = append(all, p.Conditions...)
			}
		}
		return all
	}
	return nil
}

// warnings returns the warnings among the conditions of a listener, with its name.
func warnings(listener gwv1.SectionName, conditions []metav1.Condition) (all []metav1.Condition) {
	for _, c := range conditions {
		if c.Type == v1alpha1.ListenerPortWarning {
			c.Type, c.Message = c.Type+" "+string(listener), fmt.Sprintf("Listener %s: %s", listener, c.Message)
			all = append(all, c)
		}
	}
	return all
}
