// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// statusWorkers is how many objects are written at a time.
const statusWorkers = 8

// statusWriter is the third loop. The others hand it the status that each object
// should have, and never wait for it. Of an object only the newest status is
// written, and one object that cannot be written does not delay the others.
type statusWriter struct {
	*api
	queue workqueue.TypedRateLimitingInterface[objectKey]

	mu     sync.Mutex
	wanted map[objectKey]wantedStatus
}

// objectKey names an object.
type objectKey struct {
	kind string
	types.NamespacedName
}

func keyOf(object client.Object) objectKey {
	return objectKey{kube.KindOf(object), client.ObjectKeyFromObject(object)}
}

// wantedStatus is what the status of one object should be.
type wantedStatus struct {
	// object is the one that the status is about. Nothing is written to another
	// object that has its name now.
	object client.Object
	// change sets the status of the object as it is stored now.
	change statusChange
	// changeMetadata changes its metadata first, or is nil.
	changeMetadata func(client.Object)
}

// statusChange sets the status of an object. It may be called more than once, for
// different versions of the object.
type statusChange func(object client.Object, now metav1.Time)

func newStatusWriter(a *api) *statusWriter {
	return &statusWriter{api: a, queue: newQueue[objectKey]("blixt-status"), wanted: map[objectKey]wantedStatus{}}
}

// set replaces the wanted statuses of all objects of some kinds.
func (w *statusWriter) set(kinds []string, all []wantedStatus) {
	w.mu.Lock()
	for key := range w.wanted {
		if slices.Contains(kinds, key.kind) {
			delete(w.wanted, key)
		}
	}
	for _, s := range all {
		w.wanted[keyOf(s.object)] = s
	}
	w.mu.Unlock()
	for _, s := range all {
		w.queue.Add(keyOf(s.object))
	}
}

// put replaces the wanted status of one object.
func (w *statusWriter) put(s wantedStatus) {
	w.mu.Lock()
	w.wanted[keyOf(s.object)] = s
	w.mu.Unlock()
	w.queue.Add(keyOf(s.object))
}

// recheck compares an object whose status somebody else has changed with what is
// wanted.
func (w *statusWriter) recheck(object client.Object) { w.queue.AddAfter(keyOf(object), batchDelay) }

// run writes until the context ends.
func (w *statusWriter) run(ctx context.Context) error {
	work(ctx, w.queue, statusWorkers, func(ctx context.Context, key objectKey) error {
		ctx, cancel := context.WithTimeout(ctx, writeLimit)
		defer cancel()
		err := w.write(ctx, key)
		if !apierrors.IsConflict(err) && !errors.Is(ctx.Err(), context.Canceled) {
			w.once.result(fmt.Sprintf("status of %s %s", key.kind, key.NamespacedName), err)
		}
		return err
	})
	return nil
}

// write gives an object the status that is wanted now.
func (w *statusWriter) write(ctx context.Context, key objectKey) error {
	w.mu.Lock()
	wanted, ok := w.wanted[key]
	w.mu.Unlock()
	if !ok {
		return nil
	}
	object := reflect.New(reflect.TypeOf(wanted.object).Elem()).Interface().(client.Object)
	if err := w.client.Get(ctx, key.NamespacedName, object); err != nil {
		return client.IgnoreNotFound(err) // it is gone, or not in the cache yet: its event comes
	}
	if object.GetUID() != wanted.object.GetUID() {
		return nil // another object of that name: its own status comes
	}
	if wanted.changeMetadata != nil {
		var err error
		if object, err = w.patchMetadata(ctx, object, wanted.changeMetadata); err != nil {
			return err
		}
	}
	return w.patchStatus(ctx, object, wanted.change)
}

// patchMetadata writes what change makes of an object's metadata, if that differs
// from what is stored. Returns the object as it is then. Errors are those of
// patchStatus.
func (a *api) patchMetadata(ctx context.Context, stored client.Object, change func(client.Object)) (client.Object, error) {
	object := stored.DeepCopyObject().(client.Object)
	change(object)
	if equality.Semantic.DeepEqual(stored, object) {
		return stored, nil
	}
	writes.WithLabelValues(kube.KindOf(stored), "patch").Inc()
	err := a.client.Patch(ctx, object, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return stored, writeError("metadata", stored, err)
	}
	a.ownWrites.wrote(object)
	return object, nil
}

// patchStatus writes what change makes of an object's status, if that differs
// from what is stored. Returns a conflict if somebody else has written the object
// since: nothing is written then. Returns nil if the object is gone.
func (a *api) patchStatus(ctx context.Context, stored client.Object, change statusChange) error {
	object := stored.DeepCopyObject().(client.Object)
	change(object, metav1.NewTime(a.clock()))
	if equality.Semantic.DeepEqual(stored, object) {
		return nil
	}
	// The answer is decoded into the object, which must share nothing with what was
	// handed over.
	object = object.DeepCopyObject().(client.Object)
	writes.WithLabelValues(kube.KindOf(stored), "status").Inc()
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	err := a.client.Status().Patch(ctx, object, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return writeError("status", stored, err)
	}
	a.ownWrites.wrote(object)
	a.emitChanges(object, conditionsOf(stored), conditionsOf(object))
	return nil
}

func writeError(what string, object client.Object, err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("write %s of %s: %w", what, kube.NameOf(object), err)
}
