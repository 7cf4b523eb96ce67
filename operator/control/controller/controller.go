// SPDX-License-Identifier: Apache-2.0

// Package controller is the operator: it reads the cluster's objects and the
// agents' reports, and writes what follows from them. It decides nothing: gateway
// decides what is served, rollout what runs.
//
// It has loops of which none waits for a later one:
//
//	                  objects                 reports, time
//	                     |                          |
//	                 publisher  -- translated -> rolloutLoop
//	               /     |     \                /       \
//	         agents     status of        status of     applications, DaemonSets,
//	              \ classes, routes   Gateways, sets   NodeDataplanes
//	    serviceWriter          \          /
//	Services, their slices    statusWriter
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	rtcontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/kube"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// batchDelay is how long to wait for further events of a burst. It is part of the
// time that a change takes to be served.
const batchDelay = 20 * time.Millisecond

// ConditionDelay is how long the routes of a Service keep what they say of its
// endpoints. Endpoints come and go all the time, and each status is a write.
const ConditionDelay = 5 * time.Second

// recheckEvery is how often nodes are judged without an event. Time alone changes
// the verdict: an agent has sent nothing for too long, a program has drained.
const recheckEvery = 10 * time.Second

// reconcileEvery is how often, about, everything is done as if all had changed: the
// safety net for events that were lost or misjudged.
const reconcileEvery = 5 * time.Minute

// Fleet is the server of the agents: fleet.Server.
type Fleet interface {
	// CausedBy says why the next version differs, for measures.
	CausedBy(fleet.Cause)
	Publish(fleet.Snapshot) lb.Version
	// PublishEndpoints publishes those of one Service, at the cost of that Service.
	PublishEndpoints(types.NamespacedName, gateway.ServiceEndpoints) lb.Version
	// PublishSources publishes one set of sources, at the cost of that set.
	PublishSources(lb.SourceSet) lb.Version
	SetNodes([]fleet.Node)
	SetSettings(application string, s fleet.Settings)
	Forget(application string)
	// SetBoots says which boot numbers of nodes are stored.
	SetBoots(map[string]lb.Boot)
	// SetOccupied sets the function that reports whether a pod has an address.
	SetOccupied(func(netip.Addr) bool)
	Reports() []lb.Report
	// Health says which backends are ejected, and where health is not obeyed.
	Health() health.Decision
	// Changed has a value after reports have changed, or Health.
	Changed() <-chan struct{}
}

// Options of the operator.
type Options struct {
	// Release is what is installed, and where.
	Release rollout.Release
	Fleet   Fleet
	// Verify verifies signatures: controller.Verify.
	Verify VerifyFunc
	// ReservedPorts of nodes, besides those that BlixtConfigs name.
	ReservedPorts []gateway.ReservedRange
	// Grace is how long a new leader waits for an agent before it counts it as
	// missing, and how long a node may be missing before Gateways say so.
	Grace time.Duration
	// Liveness is for a check of liveness; nil: there is none.
	Liveness *Liveness
	// ReconcileEvery is how often, about, everything is done; 0: every five minutes.
	ReconcileEvery time.Duration
	// HostPortRest is how long no listener gets a hostPort of a pod that is gone, for
	// the pod's successor; 0: two minutes.
	HostPortRest time.Duration
	// Leads is called once, before the first pass, unless it is nil.
	Leads func()
	Clock func() time.Time
	Log   *slog.Logger
	// Registerer registers the metrics; nil: they are not registered.
	Registerer prometheus.Registerer

	measures *measures
}

// writes shows when statuses flap.
var writes = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "blixt_operator_writes_total", Help: "Writes to the API server, by kind and verb.",
}, []string{"kind", "verb"})

func init() { metrics.Registry.MustRegister(writes) }

// Cache returns the options of the operator's cache. It leaves out what nobody reads.
func Cache(namespace string) cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                        {Transform: stripPod(namespace)},
			&appsv1.DaemonSet{}:                  {Namespaces: map[string]cache.Config{namespace: {}}},
			&apiextv1.CustomResourceDefinition{}: {Transform: stripSchemas},
			&corev1.ConfigMap{}: {Namespaces: map[string]cache.Config{gateway.KubeProxy.Namespace: {
				FieldSelector: fields.OneTermEqualSelector("metadata.name", gateway.KubeProxy.Name),
			}}},
			&corev1.Event{}: {Field: fields.SelectorFromSet(fields.Set{"type": corev1.EventTypeWarning, "involvedObject.kind": "Service"})},
		},
	}
}

// stripSchemas drops what readKinds does not read: the schemas are megabytes.
func stripSchemas(o any) (any, error) {
	if crd, ok := o.(*apiextv1.CustomResourceDefinition); ok {
		crd.ManagedFields = nil
		markNarrowLinkIDs(crd)
		for i := range crd.Spec.Versions {
			v := &crd.Spec.Versions[i]
			v.Schema, v.AdditionalPrinterColumns = nil, nil
		}
	}
	return o, nil
}

// hasServiceCIDRs reports whether the cluster has the kind: from Kubernetes 1.33 on.
// Without it, the ClusterIPs of the Services that exist are known.
func hasServiceCIDRs(m meta.RESTMapper) (bool, error) {
	_, err := m.RESTMapping(schema.GroupKind{Group: networkingv1.GroupName, Kind: "ServiceCIDR"}, "v1")
	if err != nil && !meta.IsNoMatchError(err) {
		return false, fmt.Errorf("find kind ServiceCIDR: %w", err)
	}
	return err == nil, nil
}

// Add adds the operator to a manager that was made with Cache and kube.Scheme.
func Add(m manager.Manager, o Options) error {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.HostPortRest == 0 {
		o.HostPortRest = 2 * time.Minute
	}
	if o.Liveness == nil {
		o.Liveness = &Liveness{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registerer == nil {
		o.Registerer = prometheus.NewRegistry()
	}
	o.measures = newMeasures(o.Registerer)
	o.ReconcileEvery = cmp.Or(o.ReconcileEvery, reconcileEvery)
	a := &api{
		client: m.GetClient(), direct: m.GetAPIReader(), recorder: m.GetEventRecorder("blixt"),
		clock: o.Clock, log: o.Log, once: newOnceLog(o.Log, o.Clock),
	}
	endpoints := &endpointStore{}
	statuses, services := newStatusWriter(a), newServiceWriter(a, endpoints)
	rollouts, keeper := newRolloutLoop(a, &o, statuses, endpoints), newIncumbentsKeeper(a, o.Release.Namespace)
	o.Registerer.MustRegister(&inventory{a, &rollouts.latest})
	causes := &causes{clock: o.Clock}
	p := &publisher{
		causes: causes,
		api:    a, Options: &o, cache: m.GetCache(), statuses: statuses, services: services, endpoints: endpoints, keeper: keeper, rollout: rollouts,
		events:  &events{namespace: o.Release.Namespace, endpoints: endpoints, rollout: rollouts, statuses: statuses, services: services, causes: causes},
		watched: watchedKinds{}, addresses: map[types.NamespacedName][]gwv1.GatewayStatusAddress{},
	}
	err := m.GetCache().IndexField(context.Background(), &discoveryv1.EndpointSlice{}, byService, func(o client.Object) []string {
		return []string{o.GetLabels()[discoveryv1.LabelServiceName]}
	})
	if err != nil {
		return fmt.Errorf("index EndpointSlices: %w", err)
	}
	if p.addressed, err = newAddressIndex(context.Background(), m.GetCache()); err != nil {
		return err
	}
	p.events.addressed = p.addressed
	o.Fleet.SetOccupied(p.addressed.isPods)
	serviceCIDRs, err := hasServiceCIDRs(m.GetRESTMapper())
	if err != nil {
		return err
	}
	p.serviceCIDRs = serviceCIDRs
	if err := m.GetCache().IndexField(context.Background(), &corev1.Pod{}, byHostPort, hasHostPorts); err != nil {
		return fmt.Errorf("index Pods: %w", err)
	}
	p.controller, err = rtcontroller.NewTyped("blixt", m, rtcontroller.TypedOptions[request]{
		Reconciler:  reconcile.TypedFunc[request](p.reconcile),
		RateLimiter: newBackoff[request](),

		ReconciliationTimeout: passLimit,
		SkipNameValidation:    new(true), // tests run several
		EnableWarmup:          new(true),
		LogConstructor:        func(*request) logr.Logger { return logr.Discard() }, // errors are logged here, once
	})
	if err != nil {
		return fmt.Errorf("make controller: %w", err)
	}
	watched := []client.Object{
		&corev1.Service{}, &discoveryv1.EndpointSlice{}, &corev1.Namespace{}, &corev1.Node{}, &corev1.Pod{}, &appsv1.DaemonSet{}, &apiextv1.CustomResourceDefinition{},
		&corev1.ConfigMap{}, &corev1.Event{},
	}
	if serviceCIDRs {
		watched = append(watched, &networkingv1.ServiceCIDR{})
	}
	for _, o := range watched {
		if err := p.controller.Watch(p.source(o)); err != nil {
			return fmt.Errorf("watch %s: %w", kube.KindOf(o), err)
		}
	}
	if err := p.controller.Watch(source.TypedFunc[request](p.safetyNet)); err != nil {
		return fmt.Errorf("start safety net: %w", err)
	}
	return errors.Join(m.Add(manager.RunnableFunc(rollouts.run)), m.Add(manager.RunnableFunc(statuses.run)), m.Add(manager.RunnableFunc(services.run)),
		m.Add(manager.RunnableFunc(keeper.run)))
}
