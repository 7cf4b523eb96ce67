// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	toolsevents "k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// api reads and writes the cluster's objects. All loops share it.
type api struct {
	client   client.Client // reads from the cache
	direct   client.Reader // reads past the cache
	recorder toolsevents.EventRecorder
	events   eventLimit
	clock    func() time.Time
	log      *slog.Logger
	once     *onceLog
}

// writeLimit is how long one write may take. Without a limit, an object that the API
// server never answers for would stop a loop, or a worker.
const writeLimit = 20 * time.Second

// list lists objects of the cache as they are, or nothing of a kind that the
// cluster lacks. They must not be modified.
func (a *api) list(ctx context.Context, k kinds, list client.ObjectList, o ...client.ListOption) error {
	if !k.has(list) {
		return nil
	}
	if err := a.client.List(ctx, list, append(o, client.UnsafeDisableDeepCopy)...); err != nil {
		return fmt.Errorf("list %T: %w", list, err)
	}
	return nil
}

// fieldManager owns the fields that the operator sets. Fields that others have
// set stay as they are.
const fieldManager = v1alpha1.Manager

// appliedAnnotation has the hash of what was applied last. By it an object differs
// from what is wanted even if a field is only no longer wanted.
const appliedAnnotation = "blixt.x-k8s.io/applied"

// apply writes the fields that are set in an object. It does nothing if stored
// has them already: stored is the object in the cache, or nil. Returns whether it
// has written: the cache does not have that yet.
func (a *api) apply(ctx context.Context, object, stored client.Object) (wrote bool, err error) {
	u, err := applied(object)
	if err != nil {
		return false, fmt.Errorf("convert %s: %w", kube.NameOf(object), err)
	}
	if stored != nil {
		fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(stored)
		if err != nil {
			return false, fmt.Errorf("convert stored %s: %w", kube.NameOf(object), err)
		}
		fields["apiVersion"], fields["kind"] = u.Object["apiVersion"], u.Object["kind"] // the cache leaves them out
		if within(u.Object, fields) {
			return false, nil
		}
	}
	writes.WithLabelValues(kube.KindOf(object), "apply").Inc()
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	if err := a.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(fieldManager), client.ForceOwnership); err != nil {
		return false, fmt.Errorf("apply %s: %w", kube.NameOf(object), err)
	}
	a.log.Info("applied", "object", kube.NameOf(object))
	return true, nil
}

// applied returns an object as it is sent: with its kind and hash, without the
// fields that only the API server sets.
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
	data, err := json.Marshal(u.Object)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[appliedAnnotation] = hex.EncodeToString(sum[:8])
	u.SetAnnotations(annotations)
	return u, nil
}

// within reports whether a stored value has everything that a wanted one has.
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

// remove deletes an object that the operator has made.
func (a *api) remove(ctx context.Context, object client.Object) error {
	if object.GetDeletionTimestamp() != nil {
		return nil
	}
	writes.WithLabelValues(kube.KindOf(object), "delete").Inc()
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	uid := object.GetUID()
	err := a.client.Delete(ctx, object, client.Preconditions{UID: &uid}, client.PropagationPolicy("Background"))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", kube.NameOf(object), err)
	}
	a.log.Info("deleted", "object", kube.NameOf(object))
	return nil
}
