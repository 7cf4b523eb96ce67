// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// request is what to do. There are three, so that what happens most costs
// least: of a burst of events of one kind one request is left.
type request struct {
	part part
	// service has other endpoints, if part is that.
	service types.NamespacedName
}

type part int

const (
	// everything reads all objects.
	everything part = iota
	// endpoints reads those of one Service.
	endpoints
	// reports reads what nodes and bpfman report, and writes statuses.
	reports
)

type queue = workqueue.TypedRateLimitingInterface[request]

// interest is what of the cluster's common objects concerns us. Events of all
// others cause no work.
type interest struct {
	mu sync.Mutex
	// referred are the Services that routes name, there or not.
	referred map[types.NamespacedName]bool
}

func (i *interest) set(referred map[types.NamespacedName]bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.referred = referred
}

func (i *interest) has(service types.NamespacedName) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.referred[service]
}

// watch begins to watch the kinds that have appeared, and stops with those
// that are gone.
func (c *Controller) watch(ctx context.Context, k kinds) error {
	for _, kind := range customs {
		gvk, err := apiutil.GVKForObject(kind.object, kube.Scheme)
		if err != nil {
			return fmt.Errorf("find kind of %T: %w", kind.object, err)
		}
		switch {
		case k.present[gvk] && !c.watched[gvk]:
			if err := c.controller.Watch(c.source(kind.object)); err != nil {
				return fmt.Errorf("watch %s: %w", gvk.Kind, err)
			}
		case !k.present[gvk] && c.watched[gvk]:
			if err := c.cache.RemoveInformer(ctx, kind.object); err != nil {
				return fmt.Errorf("stop watching %s: %w", gvk.Kind, err)
			}
		}
		c.watched[gvk] = k.present[gvk]
	}
	return nil
}

// watchedKinds are the custom kinds that are watched.
type watchedKinds map[schema.GroupVersionKind]bool

// source turns the events of a kind into requests.
func (c *Controller) source(object client.Object) source.TypedSource[request] {
	return source.TypedKind(c.cache, object, &events{controller: c})
}

// events turns events into requests.
type events struct{ controller *Controller }

func (e *events) Create(_ context.Context, ev event.TypedCreateEvent[client.Object], q queue) {
	if !e.controller.ownWrites.is(ev.Object) {
		e.add(q, nil, ev.Object)
	}
}

func (e *events) Update(_ context.Context, ev event.TypedUpdateEvent[client.Object], q queue) {
	if !e.controller.ownWrites.is(ev.ObjectNew) {
		e.add(q, ev.ObjectOld, ev.ObjectNew)
	}
}

func (e *events) Delete(_ context.Context, ev event.TypedDeleteEvent[client.Object], q queue) {
	e.controller.ownWrites.forget(ev.Object)
	e.add(q, nil, ev.Object)
}

func (e *events) Generic(context.Context, event.TypedGenericEvent[client.Object], queue) {}

// add queues what an event asks for. The pause makes one of a burst.
func (e *events) add(q queue, before, object client.Object) {
	if r, concerns := e.controller.concerns(before, object); concerns {
		q.AddAfter(r, batchDelay)
	}
}

// concerns tells what an event asks for; before is nil but for an update.
func (c *Controller) concerns(before, object client.Object) (request, bool) {
	key := client.ObjectKeyFromObject(object)
	switch o := object.(type) {
	case *discoveryv1.EndpointSlice:
		service := types.NamespacedName{Namespace: o.Namespace, Name: o.Labels[discoveryv1.LabelServiceName]}
		return request{part: endpoints, service: service}, c.interest.has(service)
	case *corev1.Service:
		return request{}, c.interest.has(key) || v1alpha1.Managed(o)
	case *corev1.Namespace:
		return request{}, before == nil || !maps.Equal(before.GetLabels(), o.Labels)
	case *corev1.Node:
		return request{}, before == nil || !sameNode(before.(*corev1.Node), o)
	case *corev1.Event:
		return request{}, strings.HasPrefix(o.InvolvedObject.Name, servicePrefix) && (before == nil || before.(*corev1.Event).Message != o.Message)
	case *corev1.Pod:
		return request{part: reports}, true
	case *apiextv1.CustomResourceDefinition: // a kind is there when its status says so
		return request{}, before == nil || !equality.Semantic.DeepEqual(before.(*apiextv1.CustomResourceDefinition).Status, o.Status)
	}
	// Only a status has changed: somebody reports, or has overwritten ours.
	if before != nil && before.GetGeneration() == object.GetGeneration() && object.GetGeneration() != 0 &&
		maps.Equal(before.GetLabels(), object.GetLabels()) && maps.Equal(before.GetAnnotations(), object.GetAnnotations()) &&
		equality.Semantic.DeepEqual(before.GetDeletionTimestamp(), object.GetDeletionTimestamp()) {
		return request{part: reports}, true
	}
	return request{}, true
}

// sameNode compares what of a node matters: not its heartbeats.
func sameNode(a, b *corev1.Node) bool {
	return maps.Equal(a.Labels, b.Labels) && a.Spec.Unschedulable == b.Spec.Unschedulable && kube.Ready(a) == kube.Ready(b) &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		maps.Equal(rollout.Tunnels(a), rollout.Tunnels(b)) &&
		equality.Semantic.DeepEqual(a.Status.Addresses, b.Status.Addresses) &&
		a.Status.NodeInfo.KernelVersion == b.Status.NodeInfo.KernelVersion
}
