// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// patchStatus writes what change makes of an object's status, if that is
// something else than what is stored. Nothing is written over what somebody
// else has written since: the object's next event brings the next try.
func (c *Controller) patchStatus(ctx context.Context, stored client.Object, change func(client.Object)) error {
	object := stored.DeepCopyObject().(client.Object)
	change(object)
	if equality.Semantic.DeepEqual(stored, object) {
		return nil
	}
	writes.WithLabelValues(kube.KindOf(stored), "status").Inc()
	err := c.client.Status().Patch(ctx, object, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // changed or gone meanwhile
		return nil
	case err != nil:
		return fmt.Errorf("write status of %s: %w", kube.NameOf(stored), err)
	}
	c.ownWrites.wrote(object)
	c.tell(object, told(stored), told(object))
	return nil
}

// merge returns stored conditions with ours in place. Those of other types are
// others', and stay. A condition that has not changed its status keeps its time.
func (c *Controller) merge(stored, ours []metav1.Condition) []metav1.Condition {
	merged := slices.Clone(stored)
	for _, condition := range ours {
		condition.LastTransitionTime = metav1.NewTime(c.Clock())
		i := slices.IndexFunc(merged, func(m metav1.Condition) bool { return m.Type == condition.Type })
		if i < 0 {
			merged = append(merged, condition)
			continue
		}
		if merged[i].Status == condition.Status {
			condition.LastTransitionTime = merged[i].LastTransitionTime
		}
		merged[i] = condition
	}
	return merged
}

func (c *Controller) writeClass(ctx context.Context, stored *gwv1.GatewayClass, status gwv1.GatewayClassStatus) error {
	return c.patchStatus(ctx, stored, func(o client.Object) {
		object := o.(*gwv1.GatewayClass)
		object.Status.Conditions = c.merge(stored.Status.Conditions, status.Conditions)
		object.Status.SupportedFeatures = status.SupportedFeatures
	})
}

func (c *Controller) writeGateway(ctx context.Context, stored *gwv1.Gateway, status gwv1.GatewayStatus) error {
	return c.patchStatus(ctx, stored, func(o client.Object) {
		status.Conditions = c.merge(stored.Status.Conditions, status.Conditions)
		status.Listeners = mergeListeners(c, stored.Status.Listeners, status.Listeners,
			func(l *gwv1.ListenerStatus) (gwv1.SectionName, *[]metav1.Condition) { return l.Name, &l.Conditions })
		o.(*gwv1.Gateway).Status = status
	})
}

func (c *Controller) writeListenerSet(ctx context.Context, stored *gwv1.ListenerSet, status gwv1.ListenerSetStatus) error {
	return c.patchStatus(ctx, stored, func(o client.Object) {
		status.Conditions = c.merge(stored.Status.Conditions, status.Conditions)
		status.Listeners = mergeListeners(c, stored.Status.Listeners, status.Listeners,
			func(l *gwv1.ListenerEntryStatus) (gwv1.SectionName, *[]metav1.Condition) {
				return l.Name, &l.Conditions
			})
		o.(*gwv1.ListenerSet).Status = status
	})
}

// mergeListeners returns our listeners, each with its conditions merged into
// those of the stored one of its name.
func mergeListeners[L any](c *Controller, stored, ours []L, parts func(*L) (gwv1.SectionName, *[]metav1.Condition)) []L {
	before := map[gwv1.SectionName][]metav1.Condition{}
	for i := range stored {
		name, conditions := parts(&stored[i])
		before[name] = *conditions
	}
	merged := slices.Clone(ours)
	for i := range merged {
		name, conditions := parts(&merged[i])
		*conditions = c.merge(before[name], *conditions)
	}
	return merged
}

// writeRoute writes the parents that are ours, among those of other
// controllers. A parent that is not ours any more goes.
func (c *Controller) writeRoute(ctx context.Context, stored client.Object, wanted []gwv1.RouteParentStatus) error {
	return c.patchStatus(ctx, stored, func(object client.Object) {
		status := routeStatus(object)
		parents := []gwv1.RouteParentStatus{} // the field is required
		for _, p := range status.Parents {
			if p.ControllerName != gateway.ControllerName {
				parents = append(parents, p)
			}
		}
		for _, p := range wanted {
			before := slices.IndexFunc(status.Parents, func(s gwv1.RouteParentStatus) bool {
				return s.ControllerName == gateway.ControllerName && equality.Semantic.DeepEqual(s.ParentRef, p.ParentRef)
			})
			var conditions []metav1.Condition
			if before >= 0 {
				conditions = status.Parents[before].Conditions
			}
			p.Conditions = c.merge(conditions, p.Conditions)
			parents = append(parents, p)
		}
		status.Parents = parents
	})
}

// routeStatus is where a TCPRoute or UDPRoute has its status.
func routeStatus(route client.Object) *gwv1.RouteStatus {
	switch r := route.(type) {
	case *gwv1.TCPRoute:
		return &r.Status.RouteStatus
	case *gwv1.UDPRoute:
		return &r.Status.RouteStatus
	}
	panic(fmt.Sprintf("%T is no route", route))
}
