// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// fieldManager owns the fields that the operator sets. Whoever sets another
// one keeps it.
const fieldManager = v1alpha1.Manager

// appliedAnnotation has the hash of what was applied last, so that what is as
// it should be is not applied again.
const appliedAnnotation = "blixt.x-k8s.io/applied"

// apply makes the fields that are set in an object what they are there, unless
// stored, which is what the cache has, or nil, shows that they are. Returns
// whether it has written them: the cache does not have that yet.
func (c *Controller) apply(ctx context.Context, object, stored client.Object) (wrote bool, err error) {
	u, err := applied(object)
	if err != nil {
		return false, fmt.Errorf("convert %s: %w", kube.NameOf(object), err)
	}
	if stored != nil {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
		if err != nil {
			return false, fmt.Errorf("convert stored %s: %w", kube.NameOf(object), err)
		}
		fields["apiVersion"], fields["kind"] = u.Object["apiVersion"], u.Object["kind"] // which the cache leaves out
		if within(u.Object, fields) {
			return false, nil
		}
	}
	writes.WithLabelValues(kube.KindOf(object), "apply").Inc()
	if err := c.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
		return false, fmt.Errorf("apply %s: %w", kube.NameOf(object), err)
	}
	c.ownWrites.wrote(u)
	c.Log.Info("applied", "object", kube.NameOf(object))
	return true, nil
}

// applied is an object as it is sent: with its kind and hash, without what only
// the API server sets.
func applied(object client.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	u := &unstructured.Unstructured{Object: fields}
	gvk, err := apiutil.GVKForObject(object, kube.Scheme)
	if err != nil {
		return nil, err
	}
	u.SetGroupVersionKind(gvk)
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(u.Object, "spec", "template", "metadata", "creationTimestamp")
	text, err := json.Marshal(u.Object)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[appliedAnnotation] = hex.EncodeToString(sum[:8])
	u.SetAnnotations(annotations)
	return u, nil
}

// within tells whether a stored value has all that a wanted one says. The hash
// among the annotations tells of fields that are no longer wanted.
func within(want, stored any) bool {
	switch want := want.(type) {
	case map[string]any:
		have, _ := stored.(map[string]any)
		for key, value := range want {
			if !within(value, have[key]) {
				return false
			}
		}
		return true
	case []any:
		have, _ := stored.([]any)
		if len(have) != len(want) {
			return false
		}
		for i := range want {
			if !within(want[i], have[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(want, stored)
}

// remove deletes an object of ours.
func (c *Controller) remove(ctx context.Context, object client.Object) error {
	if object.GetDeletionTimestamp() != nil {
		return nil
	}
	writes.WithLabelValues(kube.KindOf(object), "delete").Inc()
	uid := object.GetUID()
	err := c.client.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy("Background"))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", kube.NameOf(object), err)
	}
	c.Log.Info("deleted", "object", kube.NameOf(object))
	return nil
}
