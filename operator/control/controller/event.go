// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
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
)

// event tells of an object.
func (c *Controller) event(object client.Object, kind, reason, message string) {
	c.recorder.Eventf(object, nil, kind, reason, "Reconcile", "%s", note(message))
}

// note is a message as the API server takes it: of 1,024 bytes.
func note(message string) string {
	if len(message) > 1000 {
		return strings.ToValidUTF8(message[:1000], "") + "…"
	}
	return message
}

// emit tells events of the data plane, each about an object that is there.
func (c *Controller) emit(ctx context.Context, all []rollout.Event) {
	for _, e := range all {
		var object client.Object = &v1alpha1.NodeDataplane{}
		if e.Kind == "ClusterBpfApplication" {
			object = &bpfmanv1.ClusterBpfApplication{}
		}
		if err := c.reader.Get(ctx, types.NamespacedName{Name: e.Name}, object); err == nil {
			c.event(object, e.Type, e.Reason, e.Message)
		}
	}
}

// tell tells of conditions that have gone bad, and of a Gateway that is served
// now. That something is pending is no news.
func (c *Controller) tell(object client.Object, before, after []metav1.Condition) {
	for _, now := range after {
		old := meta.FindStatusCondition(before, now.Type)
		changed := old == nil || old.Status != now.Status || old.Reason != now.Reason
		switch {
		case !changed || now.Type == string(gwv1.ListenerConditionConflicted):
		case now.Status == metav1.ConditionFalse && now.Reason != string(gwv1.GatewayReasonPending):
			c.event(object, corev1.EventTypeWarning, now.Reason, now.Type+": "+now.Message)
		case now.Status == metav1.ConditionTrue && now.Type == string(gwv1.GatewayConditionProgrammed):
			c.event(object, corev1.EventTypeNormal, now.Reason, now.Message)
		}
	}
}

// told are the conditions of an object that events tell of.
func told(object client.Object) []metav1.Condition {
	switch o := object.(type) {
	case *gwv1.GatewayClass:
		return o.Status.Conditions
	case *gwv1.Gateway:
		return o.Status.Conditions
	case *gwv1.ListenerSet:
		return o.Status.Conditions
	case *gwv1.TCPRoute, *gwv1.UDPRoute:
		var all []metav1.Condition
		for _, p := range routeStatus(object).Parents {
			if p.ControllerName == gateway.ControllerName {
				all = append(all, p.Conditions...)
			}
		}
		return all
	}
	return nil
}
