// SPDX-License-Identifier: Apache-2.0

// Package controller is the operator. In come the cluster's objects, by
// watches, and what agents report; out go bpfman's objects, the agents'
// DaemonSets, a Service for each Gateway, what the agents are to serve, and the
// status of every object that is Blixt's. It decides nothing: gateway says what
// to serve, and dataplane what to run.
//
//	events → request → read the cache → gateway.Translate → apply, publish → status, once, last
package controller

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	toolsevents "k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	rtcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// batchDelay is how long a burst of events is waited for. It is part of the time
// that a change takes to be served.
const batchDelay = 20 * time.Millisecond

// recheckEvery is how often nodes are looked at without an event, as time alone changes
// what is true of them: an agent that is not heard of, a program that has drained.
const recheckEvery = 10 * time.Second

// Fleet is the agents' end: fleet.Server.
type Fleet interface {
	Publish(fleet.Snapshot) lb.Version
	SetNodes([]fleet.Node)
	SetSettings(application string, s fleet.Settings)
	Forget(application string)
	Reports() []lb.Report
	// Changed wakes up when reports have changed.
	Changed() <-chan struct{}
}

// Options of the operator.
type Options struct {
	// Release is what was installed, and where.
	Release rollout.Release
	Fleet   Fleet
	// Verify asks registries about signatures: controller.Verify.
	Verify VerifyFunc
	// ReservedPorts of nodes, besides those that BlixtConfigs name.
	ReservedPorts []gateway.ReservedRange
	// Grace is how long after its start a leader waits for agents before it
	// calls them missing.
	Grace time.Duration
	// Leads is called once, before the first pass; nil: nobody is interested.
	Leads func()
	Clock func() time.Time
	Log   *slog.Logger
}

// Controller is the operator of one cluster. One goroutine runs all its passes.
type Controller struct {
	Options
	client     client.Client
	reader     client.Reader // past the cache, for Secrets
	cache      cache.Cache
	controller rtcontroller.TypedController[request]
	recorder   toolsevents.EventRecorder
	ownWrites  *ownWrites
	interest   interest
	images     *images

	// What the passes know, and nobody else touches.
	started     time.Time
	kinds       kinds
	watched     watchedKinds
	world       *world
	translation gateway.Translation
	good        map[string]*v1alpha1.BlixtConfig // what each was when it was last valid
	endpoints   gateway.Endpoints
	addresses   map[types.NamespacedName][]gwv1.GatewayStatusAddress
	published   published
	settled     map[string]bool // the applications whose agents have settings
	problems    []rollout.Problem
	said        map[string]string
}

// writes counts them, so that it shows when statuses flap.
var writes = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "blixt_operator_writes_total", Help: "Writes to the API server, by kind and verb.",
}, []string{"kind", "verb"})

func init() { metrics.Registry.MustRegister(writes) }

// Cache returns how the operator's cache must be made: without what nobody
// reads, and with the index that it needs.
func Cache(namespace string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                        {Namespaces: map[string]cache.Config{namespace: {}}},
			&appsv1.DaemonSet{}:                  {Namespaces: map[string]cache.Config{namespace: {}}},
			&apiextv1.CustomResourceDefinition{}: {Transform: stripSchemas},
			&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{gateway.KubeProxy.Namespace: {
				FieldSelector: fields.OneTermEqualSelector("metadata.name", gateway.KubeProxy.Name),
			}}},
			&corev1.Event{}: {Field: fields.SelectorFromSet(fields.Set{"type": corev1.EventTypeWarning, "involvedObject.kind": "Service"})},
		},
	}
}

// stripSchemas leaves of a CRD what readKinds reads: the schemas are megabytes.
func stripSchemas(o any) (any, error) {
	if crd, ok := o.(*apiextv1.CustomResourceDefinition); ok {
		crd.ManagedFields = nil
		noteLinkIDs(crd)
		for i := range crd.Spec.Versions {
			v := &crd.Spec.Versions[i]
			v.Schema, v.AdditionalPrinterColumns = nil, nil
		}
	}
	return o, nil
}

// Add adds the operator to a manager that was made with Cache and kube.Scheme.
func Add(m manager.Manager, o Options) error {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Controller{
		Options: o, client: m.GetClient(), reader: m.GetAPIReader(), cache: m.GetCache(), recorder: m.GetEventRecorder("blixt"),
		ownWrites: newOwn(), watched: watchedKinds{}, said: map[string]string{},
		addresses: map[types.NamespacedName][]gwv1.GatewayStatusAddress{},
		good:      map[string]*v1alpha1.BlixtConfig{},
		published: newPublished(),
	}
	wake := make(chan event.TypedGenericEvent[struct{}], 1)
	c.images = newImages(o.Verify, o.Clock, func() { wake <- event.TypedGenericEvent[struct{}]{} })
	err := m.GetCache().IndexField(context.Background(), &discoveryv1.EndpointSlice{}, byService, func(o client.Object) []string {
		return []string{o.GetLabels()[discoveryv1.LabelServiceName]}
	})
	if err != nil {
		return fmt.Errorf("index EndpointSlices: %w", err)
	}
	c.controller, err = rtcontroller.NewTyped("blixt", m, rtcontroller.TypedOptions[request]{
		Reconciler:         reconcile.TypedFunc[request](c.reconcile),
		RateLimiter:        workqueue.NewTypedItemExponentialFailureRateLimiter[request](100*time.Millisecond, 30*time.Second),
		SkipNameValidation: new(true), // tests run several
		EnableWarmup:       new(true),
		LogConstructor:     func(*request) logr.Logger { return logr.Discard() }, // errors are logged here, once
	})
	if err != nil {
		return fmt.Errorf("make controller: %w", err)
	}
	for _, o := range []client.Object{
		&corev1.Service{}, &discoveryv1.EndpointSlice{}, &corev1.Namespace{}, &corev1.Node{}, &corev1.Pod{}, &appsv1.DaemonSet{}, &apiextv1.CustomResourceDefinition{},
		&corev1.ConfigMap{}, &corev1.Event{},
	} {
		if err := c.controller.Watch(c.source(o)); err != nil {
			return fmt.Errorf("watch %s: %w", kube.KindOf(o), err)
		}
	}
	if err := c.controller.Watch(source.TypedChannel(wake, c.always(request{part: reports}))); err != nil {
		return fmt.Errorf("watch reports: %w", err)
	}
	return m.Add(manager.RunnableFunc(func(ctx context.Context) error { return c.follow(ctx, wake) }))
}

// always makes one request of every event.
func (c *Controller) always(r request) handler.TypedEventHandler[struct{}, request] {
	return handler.TypedFuncs[struct{}, request]{
		GenericFunc: func(_ context.Context, _ event.TypedGenericEvent[struct{}], q queue) { q.AddAfter(r, batchDelay) },
	}
}

// follow passes on that agents have reported, or that time has passed.
func (c *Controller) follow(ctx context.Context, wake chan<- event.TypedGenericEvent[struct{}]) error {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.Fleet.Changed():
		}
		select {
		case wake <- event.TypedGenericEvent[struct{}]{}:
		case <-ctx.Done():
		}
	}
}
