// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
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
	queue   workqueue.TypedRateLimitingInterface[objectKey]
	retries *retries[objectKey]

	mu     sync.Mutex
	wanted map[objectKey]wantedStatus
	// clipped are the objects of which the API server did not store all.
	clipped map[objectKey]clipped
}

// clipped is an object of which the API server has stored less than was written: its
// kind is of a release that does not have each field. Written again, it would be
// stored as it is, again and again.
type clipped struct {
	// stored is a hash of what is stored, wanted one of what was written.
	stored, wanted string
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
	return &statusWriter{api: a, queue: newQueue[objectKey]("blixt-status"), retries: newRetries[objectKey](a.clock), wanted: map[objectKey]wantedStatus{}, clipped: map[objectKey]clipped{}}
}

// set replaces the wanted statuses of all objects of some kinds.
func (w *statusWriter) set(kinds []string, all []wantedStatus) {
	w.mu.Lock()
	gone := map[objectKey]bool{}
	for key := range w.wanted {
		if slices.Contains(kinds, key.kind) {
			delete(w.wanted, key)
			gone[key] = true
		}
	}
	for _, s := range all {
		w.wanted[keyOf(s.object)] = s
		delete(gone, keyOf(s.object))
	}
	w.mu.Unlock()
	for key := range gone {
		w.setClipped(key, nil, wantedStatus{})
		w.retries.forget(key)
		w.once.result(key.subject(), nil)
	}
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

// recheckAll compares all statuses with what is wanted. Kinds may have got the fields
// that they did not have.
func (w *statusWriter) recheckAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.clipped)
	for key := range w.wanted {
		w.queue.Add(key)
	}
}

// recheck compares an object whose status somebody else has changed with what is
// wanted.
func (w *statusWriter) recheck(object client.Object) { w.queue.AddAfter(keyOf(object), batchDelay) }

// run writes until the context ends.
func (w *statusWriter) run(ctx context.Context) error {
	work(ctx, w.queue, statusWorkers, func(ctx context.Context, key objectKey) error {
		ctx, cancel := context.WithTimeout(ctx, writeLimit)
		defer cancel()
		pause, err := w.write(ctx, key)
		if pause > 0 {
			w.queue.AddAfter(key, pause)
		}
		switch {
		case apierrors.IsConflict(err) || errors.Is(ctx.Err(), context.Canceled):
		case err != nil && isRefusal(err):
			w.once.refused(key.kind, key.subject(), err)
		case err != nil || pause <= 0:
			w.once.result(key.subject(), err)
		}
		return nil
	})
	return nil
}

// subject is the key's name in the log.
func (k objectKey) subject() string { return "status of " + k.kind + " " + k.String() }

// write gives an object the status that is wanted now. If that fails, or has failed
// a moment ago, it returns how long to wait before the next try.
func (w *statusWriter) write(ctx context.Context, key objectKey) (pause time.Duration, err error) {
	w.mu.Lock()
	wanted, ok := w.wanted[key]
	w.mu.Unlock()
	if !ok {
		return 0, nil
	}
	object := reflect.New(reflect.TypeOf(wanted.object).Elem()).Interface().(client.Object)
	if err := w.client.Get(ctx, key.NamespacedName, object); err != nil {
		if apierrors.IsNotFound(err) { // it is gone, or not in the cache yet: its event comes
			return 0, nil
		}
		return w.retries.failed(key, ""), err
	}
	if object.GetUID() != wanted.object.GetUID() {
		return 0, nil // another object of that name: its own status comes
	}
	if w.isClipped(key, object, wanted) {
		return 0, nil
	}
	failed := w.retries.fails(key)
	if failed {
		if pause := w.retries.pause(key, wanted.content(object)); pause > 0 {
			return pause, nil
		}
	}
	stored, err := w.writeNow(ctx, object, wanted)
	if err != nil {
		if isRefusal(err) && !failed {
			w.event(object, corev1.EventTypeWarning, "StatusRefused", err.Error())
		}
		return w.retries.failed(key, wanted.content(object)), err
	}
	w.retries.forget(key)
	w.setClipped(key, stored, wanted)
	return 0, nil
}

// isClipped reports whether an object is as the API server has stored it when this was
// written.
func (w *statusWriter) isClipped(key objectKey, object client.Object, wanted wantedStatus) bool {
	w.mu.Lock()
	c, is := w.clipped[key]
	w.mu.Unlock()
	return is && c == clipped{hashOf(object), wanted.content(object)}
}

// setClipped records what the API server has stored, if that is not all that was
// written. A nil object means that there is none.
func (w *statusWriter) setClipped(key objectKey, stored client.Object, wanted wantedStatus) {
	var c clipped
	if stored != nil {
		c = clipped{hashOf(stored), wanted.content(stored)}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.stored == c.wanted {
		delete(w.clipped, key)
	} else {
		w.clipped[key] = c
	}
}

// content returns what the object would become, but for times.
func (s *wantedStatus) content(stored client.Object) string {
	object := stored.DeepCopyObject().(client.Object)
	if s.changeMetadata != nil {
		s.changeMetadata(object)
	}
	s.change(object, metav1.Time{})
	return hashOf(object)
}

// hashOf returns a hash of an object, but for what counts its versions.
func hashOf(stored client.Object) string {
	object := stored.DeepCopyObject().(client.Object)
	object.SetResourceVersion("")
	object.SetManagedFields(nil)
	text, err := json.Marshal(object)
	if err != nil { // plain data
		panic(err)
	}
	sum := sha256.Sum256(text)
	return string(sum[:])
}

// writeNow writes to an object, and returns it as it is stored then.
func (w *statusWriter) writeNow(ctx context.Context, object client.Object, wanted wantedStatus) (client.Object, error) {
	if wanted.changeMetadata != nil {
		var err error
		if object, err = w.patchMetadata(ctx, object, wanted.changeMetadata); err != nil {
			return nil, err
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
	return object, nil
}

// patchStatus writes what change makes of an object's status, if that differs
// from what is stored. Returns a conflict if somebody else has written the object
// since: nothing is written then. Returns the object as it is then; if it is gone, as
// it was.
func (a *api) patchStatus(ctx context.Context, stored client.Object, change statusChange) (client.Object, error) {
	object := stored.DeepCopyObject().(client.Object)
	change(object, metav1.NewTime(a.clock()))
	if equality.Semantic.DeepEqual(stored, object) {
		return stored, nil
	}
	// The answer is decoded into the object, which must share nothing with what was
	// handed over.
	object = object.DeepCopyObject().(client.Object)
	writes.WithLabelValues(kube.KindOf(stored), "status").Inc()
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	err := a.client.Status().Patch(ctx, object, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if err != nil {
		return stored, writeError("status", stored, err)
	}
	a.emitChanges(object, conditionsOf(stored), conditionsOf(object))
	return object, nil
}

func writeError(what string, object client.Object, err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("write %s of %s: %w", what, kube.NameOf(object), err)
}
