// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// takeBack resets statuses to those of objects without a controller, and removes the
// finalizers of classes.
func (r *remover) takeBack(ctx context.Context) error {
	classes, err := r.takeBackClasses(ctx)
	if err != nil {
		return err
	}
	gateways, err := r.takeBackGateways(ctx, classes)
	if err != nil {
		return err
	}
	if err := r.takeBackSets(ctx, gateways); err != nil {
		return err
	}
	return r.takeBackRoutes(ctx)
}

// takeBackClasses resets Blixt's classes, and returns their names.
func (r *remover) takeBackClasses(ctx context.Context) (map[gwv1.ObjectName]bool, error) {
	var list gwv1.GatewayClassList
	if err := kube.List(ctx, r.client, &list); err != nil {
		return nil, err
	}
	names := map[gwv1.ObjectName]bool{}
	for i := range list.Items {
		class := &list.Items[i]
		if class.Spec.ControllerName != gateway.ControllerName {
			continue
		}
		names[gwv1.ObjectName(class.Name)] = true
		// The status comes first: without its finalizer the class may disappear.
		err := r.patchStatus(ctx, class, func() {
			class.Status.Conditions = waiting(class.Status.Conditions, "Accepted")
			class.Status.SupportedFeatures = nil
		})
		if err != nil {
			return nil, err
		}
		stored := class.DeepCopy()
		if !controllerutil.RemoveFinalizer(class, gwv1.GatewayClassFinalizerGatewaysExist) {
			continue
		}
		err = r.client.Patch(ctx, class, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("remove finalizer of %s: %w", kube.NameOf(class), err)
		}
		r.say("removed the finalizer of %s", kube.NameOf(class))
	}
	return names, nil
}

// takeBackGateways resets the Gateways of classes, and returns their names.
func (r *remover) takeBackGateways(ctx context.Context, classes map[gwv1.ObjectName]bool) (map[types.NamespacedName]bool, error) {
	var list gwv1.GatewayList
	if err := kube.List(ctx, r.client, &list); err != nil {
		return nil, err
	}
	names := map[types.NamespacedName]bool{}
	for i := range list.Items {
		g := &list.Items[i]
		if !classes[g.Spec.GatewayClassName] {
			continue
		}
		names[client.ObjectKeyFromObject(g)] = true
		err := r.patchStatus(ctx, g, func() {
			g.Status = gwv1.GatewayStatus{Conditions: waiting(gateway.TakeBackClientAddress(g.Status.Conditions), "Accepted", "Programmed")}
		})
		if err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (r *remover) takeBackSets(ctx context.Context, gateways map[types.NamespacedName]bool) error {
	var list gwv1.ListenerSetList
	if err := kube.List(ctx, r.client, &list); err != nil {
		return err
	}
	for i := range list.Items {
		set := &list.Items[i]
		parent := types.NamespacedName{Namespace: set.Namespace, Name: string(set.Spec.ParentRef.Name)}
		if ns := set.Spec.ParentRef.Namespace; ns != nil {
			parent.Namespace = string(*ns)
		}
		if !gateways[parent] {
			continue
		}
		err := r.patchStatus(ctx, set, func() {
			set.Status = gwv1.ListenerSetStatus{Conditions: waiting(set.Status.Conditions, "Accepted", "Programmed")}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *remover) takeBackRoutes(ctx context.Context) error {
	var tcp gwv1.TCPRouteList
	var udp gwv1.UDPRouteList
	for _, list := range []client.ObjectList{&tcp, &udp} {
		if err := kube.List(ctx, r.client, list); err != nil {
			return err
		}
	}
	listed := gateway.Objects{TCPRoutes: tcp.Items, UDPRoutes: udp.Items}
	for _, route := range listed.Routes() {
		if err := r.patchStatus(ctx, route.Object, func() { leave(route.Status) }); err != nil {
			return err
		}
	}
	return nil
}

// leave removes the parents that Blixt wrote.
func leave(status *gwv1.RouteStatus) {
	if status.Parents != nil {
		status.Parents = slices.DeleteFunc(slices.Clone(status.Parents), func(p gwv1.RouteParentStatus) bool {
			return p.ControllerName == gateway.ControllerName
		})
	}
}

// waiting returns conditions with those of some types reset to the state before a
// controller comes. The other conditions are not Blixt's, and stay.
func waiting(conditions []metav1.Condition, kinds ...string) []metav1.Condition {
	all := slices.Clone(conditions)
	for _, kind := range kinds {
		c := metav1.Condition{
			Type: kind, Status: metav1.ConditionUnknown, Reason: "Pending", Message: "Waiting for controller", LastTransitionTime: metav1.Now(),
		}
		i := slices.IndexFunc(all, func(c metav1.Condition) bool { return c.Type == kind })
		switch {
		case i < 0:
			all = append(all, c)
		case all[i].Reason != c.Reason || all[i].Message != c.Message:
			all[i] = c
		}
	}
	return all
}

// patchStatus applies change to an object that was just read, and writes its status if
// that has changed.
func (r *remover) patchStatus(ctx context.Context, object client.Object, change func()) error {
	stored := object.DeepCopyObject().(client.Object)
	change()
	if equality.Semantic.DeepEqual(stored, object) {
		return nil
	}
	err := r.client.Status().Patch(ctx, object, client.MergeFrom(stored))
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write status of %s: %w", kube.NameOf(object), err)
	}
	r.say("took back the status of %s", kube.NameOf(object))
	return nil
}
