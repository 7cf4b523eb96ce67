// SPDX-License-Identifier: Apache-2.0

package uninstall

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// removeAll lists and deletes objects, and returns those that are not gone yet.
func (r *remover) removeAll(ctx context.Context, list client.ObjectList, o ...client.ListOption) ([]client.Object, error) {
	if err := kube.List(ctx, r.client, list, o...); err != nil {
		return nil, err
	}
	var left []client.Object
	err := meta.EachListItem(list, func(item runtime.Object) error {
		object := item.(client.Object)
		left = append(left, object)
		return r.remove(ctx, object)
	})
	return left, err
}

// remove deletes an object, unless it is already being deleted.
func (r *remover) remove(ctx context.Context, object client.Object) error {
	if object.GetDeletionTimestamp() != nil {
		return nil
	}
	uid := object.GetUID()
	err := r.client.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy(metav1.DeletePropagationBackground))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // it is gone, or replaced: the next list shows which
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", kube.NameOf(object), err)
	}
	r.say("deleted %s", kube.NameOf(object))
	return nil
}

// removeUntilGone deletes the operator's objects of some kinds in a namespace, "": in
// all, until none is left.
func (r *remover) removeUntilGone(ctx context.Context, namespace, remedy string, lists ...client.ObjectList) error {
	return r.until(ctx, func(ctx context.Context) ([]blocker, error) {
		var blockers []blocker
		for _, list := range lists {
			left, err := r.removeAll(ctx, list, client.InNamespace(namespace), ours)
			if err != nil {
				return nil, err
			}
			for _, object := range left {
				blockers = append(blockers, blocker{Object: kube.NameOf(object), Why: held(object), Remedy: remedy})
			}
		}
		return blockers, nil
	})
}

// held returns why a deleted object still exists.
func held(object client.Object) string {
	if f := object.GetFinalizers(); len(f) > 0 {
		return "it is being deleted, and waits for whoever has its finalizer " + strings.Join(f, ", ")
	}
	return "it is being deleted"
}
