// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// request is what the publisher is to do: publish everything, or only the
// endpoints of one Service, so that what happens most costs least, or only the sources of
// one BlixtPolicy. What the routes of that Service say of its endpoints is written later.
// A burst of events leaves one request of a kind.
type request struct{ endpointsOf, conditionsOf, sourcesOf types.NamespacedName }

var everything = request{}

type queue = workqueue.TypedRateLimitingInterface[request]

// safetyNet has all loops do everything every few minutes, and the publisher say
// what is wrong with Services.
func (p *publisher) safetyNet(ctx context.Context, q queue) error {
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-p.services.changed:
				q.AddAfter(everything, problemDelay)
			case <-p.rollout.changed:
				q.Add(everything)
			case <-time.After(wait.Jitter(p.ReconcileEvery, 0.2)):
				q.Add(everything)
				p.statuses.recheckAll()
				p.rollout.wake()
			}
		}
	}()
	return nil
}

// problemDelay collects the problems of Services: they are no reason for a pass each.
const problemDelay = time.Second

// watch starts to watch the kinds that have appeared, and stops watching those that
// are gone.
func (p *publisher) watch(ctx context.Context, k kinds) error {
	for _, kind := range customs {
		gvk, err := apiutil.GVKForObject(kind.object, kube.Scheme)
		if err != nil {
			return fmt.Errorf("find kind of %T: %w", kind.object, err)
		}
		switch {
		case k.present[gvk] && !p.watched[gvk]:
			if err := p.controller.Watch(p.source(kind.object)); err != nil {
				return fmt.Errorf("watch %s: %w", gvk.Kind, err)
			}
		case !k.present[gvk] && p.watched[gvk]:
			if err := p.cache.RemoveInformer(ctx, kind.object); err != nil {
				return fmt.Errorf("stop watching %s: %w", gvk.Kind, err)
			}
		}
		p.watched[gvk] = k.present[gvk]
	}
	return nil
}

// watchedKinds are the custom kinds that are watched.
type watchedKinds map[schema.GroupVersionKind]bool

// source turns the events of a kind into work.
func (p *publisher) source(object client.Object) source.TypedSource[request] {
	return source.TypedKind(p.cache, object, p.events)
}

// events gives each event to the loop that it concerns.
type events struct {
	namespace string // the operator's own
	rollout   *rolloutLoop
	statuses  *statusWriter
	addressed *addressIndex
	endpoints *endpointStore
	services  *serviceWriter
	causes    *causes

	mu       sync.Mutex
	referred map[types.NamespacedName]bool
}

// setReferred sets the Services that routes name, whether they exist or not.
// Events of other Services cause no work.
func (e *events) setReferred(services map[types.NamespacedName]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.referred = services
}

func (e *events) isReferred(service types.NamespacedName) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.referred[service]
}

func (e *events) Create(_ context.Context, ev event.TypedCreateEvent[client.Object], q queue) {
	e.statuses.recheck(ev.Object) // it was not in the cache before
	e.recordCause(nil, slice(ev.Object))
	e.add(q, nil, ev.Object)
}

func (e *events) Update(_ context.Context, ev event.TypedUpdateEvent[client.Object], q queue) {
	e.recordCause(slice(ev.ObjectOld), slice(ev.ObjectNew))
	e.add(q, ev.ObjectOld, ev.ObjectNew)
}

func (e *events) Delete(_ context.Context, ev event.TypedDeleteEvent[client.Object], q queue) {
	e.recordCause(slice(ev.Object), nil)
	e.add(q, nil, ev.Object)
}

func (e *events) Generic(context.Context, event.TypedGenericEvent[client.Object], queue) {}

// recordCause records the change of an EndpointSlice, of Services that routes name. If
// both are nil, the event was of another kind.
func (e *events) recordCause(previous, current *discoveryv1.EndpointSlice) {
	if current != nil && e.isReferred(serviceOfSlice(current)) {
		e.causes.endpoints(serviceOfSlice(current), previous, current)
	}
	if previous != nil && e.isReferred(serviceOfSlice(previous)) && (current == nil || serviceOfSlice(current) != serviceOfSlice(previous)) {
		e.causes.endpoints(serviceOfSlice(previous), previous, nil)
	}
}

// add queues the work for an event. previous is nil but for an update. The delay
// makes one request of a burst.
func (e *events) add(q queue, previous, object client.Object) {
	publish := false
	switch o := object.(type) {
	case *corev1.Pod:
		if o.Namespace == e.namespace { // an agent, maybe
			e.rollout.wake()
		}
		if holding(previous) != holding(o) {
			e.recheckEndpoints(q, previous, o)
		}
		var before []gateway.HostPort
		if previous != nil {
			before = hostPorts(previous.(*corev1.Pod))
		}
		publish = !slices.Equal(before, hostPorts(o))
	case *appsv1.DaemonSet, *v1alpha1.NodeDataplane, *bpfmanv1.ClusterBpfApplication, *bpfmanv1.ClusterBpfApplicationState:
		e.rollout.wake()
	case *discoveryv1.EndpointSlice:
		e.endpointsChanged(q, serviceOfSlice(o))
		if previous != nil { // the label may name another Service now
			e.endpointsChanged(q, serviceOfSlice(previous.(*discoveryv1.EndpointSlice)))
		}
		if v1alpha1.Managed(o) { // somebody may have changed what we mirror
			e.services.addAfter(serviceOfSlice(o), batchDelay)
		}
	case *corev1.Service:
		publish = e.isReferred(client.ObjectKeyFromObject(o)) || v1alpha1.Managed(o) || previous != nil && v1alpha1.Managed(previous) || strings.HasPrefix(o.Name, servicePrefix)
		if previous == nil || !slices.Equal(addressesOf(previous), addressesOf(o)) {
			e.recheckEndpoints(q, previous, o)
		}
	case *corev1.Namespace:
		publish = previous == nil || !maps.Equal(previous.GetLabels(), o.Labels)
	case *corev1.Node:
		publish = previous == nil || !sameNode(previous.(*corev1.Node), o)
	case *corev1.Event:
		publish = strings.HasPrefix(o.InvolvedObject.Name, servicePrefix) && (previous == nil || previous.(*corev1.Event).Message != o.Message)
	case *apiextv1.CustomResourceDefinition: // a kind is there when spec and status say so
		publish = previous == nil || previous.GetGeneration() != o.Generation || !equality.Semantic.DeepEqual(previous.(*apiextv1.CustomResourceDefinition).Status, o.Status)
	case *v1alpha1.BlixtPolicy:
		switch {
		case previous != nil && sameButStatus(previous, o):
			e.statuses.recheck(o) // somebody has overwritten ours
		case previous != nil && sameButSources(previous.(*v1alpha1.BlixtPolicy), o):
			e.causes.sources(client.ObjectKeyFromObject(o))
			q.AddAfter(request{sourcesOf: client.ObjectKeyFromObject(o)}, batchDelay)
			q.AddAfter(everything, sourcesDelay)
		default:
			publish = true
		}
	default:
		if publish = previous == nil || !sameButStatus(previous, o); !publish { // somebody has overwritten ours
			e.statuses.recheck(o)
		}
	}
	if publish {
		e.causes.event()
		q.AddAfter(everything, batchDelay)
	}
}

// endpointsChanged queues the work for a Service, if a route names it.
func (e *events) endpointsChanged(q queue, service types.NamespacedName) {
	if e.isReferred(service) {
		q.AddAfter(request{endpointsOf: service}, e.endpointDelay(service))
		q.AddAfter(request{conditionsOf: service}, ConditionDelay)
	}
}

// endpointDelay is how long to wait for further events of a Service. It grows with
// what the Service takes to read, so that none takes much of the publisher's time.
func (e *events) endpointDelay(service types.NamespacedName) time.Duration {
	known, _ := e.endpoints.get(service)
	n := known.MoreProblems + len(known.Problems)
	for _, port := range known.Ports {
		n += len(port.Endpoints)
	}
	return batchDelay * time.Duration(1+n/1000)
}

// recheckEndpoints queues the Services with endpoints at the addresses that an
// object has or had: whose an address is decides whether it is served.
func (e *events) recheckEndpoints(q queue, previous, object client.Object) {
	all := addressesOf(object)
	if previous != nil {
		all = append(all, addressesOf(previous)...)
	}
	for _, addr := range all {
		for _, service := range e.addressed.servicesWith(addr) {
			if e.isReferred(service) {
				e.causes.endpoints(service, nil, nil)
			}
			e.endpointsChanged(q, service)
		}
	}
}

// holding returns what of a pod decides whether it has its addresses.
func holding(pod client.Object) string {
	if pod == nil {
		return ""
	}
	return fmt.Sprint(addressesOf(pod), pod.GetDeletionTimestamp() != nil)
}

// sameButStatus reports whether an update has changed nothing but a status.
func sameButStatus(previous, object client.Object) bool {
	return previous.GetGeneration() == object.GetGeneration() && object.GetGeneration() != 0 &&
		maps.Equal(previous.GetLabels(), object.GetLabels()) && maps.Equal(previous.GetAnnotations(), object.GetAnnotations()) &&
		equality.Semantic.DeepEqual(previous.GetDeletionTimestamp(), object.GetDeletionTimestamp())
}

// sameNode reports whether nothing that matters of a node has changed. Its
// heartbeats do not matter.
func sameNode(a, b *corev1.Node) bool {
	return maps.Equal(a.Labels, b.Labels) && a.Spec.Unschedulable == b.Spec.Unschedulable && kube.Ready(a) == kube.Ready(b) &&
		equality.Semantic.DeepEqual(a.Spec.Taints, b.Spec.Taints) &&
		maps.Equal(rollout.Tunnels(a), rollout.Tunnels(b)) && slices.Equal(rollout.NodeAddresses(a), rollout.NodeAddresses(b)) &&
		equality.Semantic.DeepEqual(a.Status.Addresses, b.Status.Addresses) && slices.Equal(a.Spec.PodCIDRs, b.Spec.PodCIDRs) &&
		a.Status.NodeInfo.KernelVersion == b.Status.NodeInfo.KernelVersion
}
