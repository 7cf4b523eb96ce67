// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// server is the API server of all tests.
var server *kube.Server

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	os.Exit(kube.Run(m, kube.Options{WideLinkIDs: true}, &server))
}

// hostPortRest is that of the tests' operators.
const hostPortRest = time.Second

// patience is how long the operator may take for anything.
const patience = 20 * time.Second

const (
	namespace = "blixt-system"
	firstCode = "registry.example.com/bytecode@sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

// agents play all agents: they hold whatever they are told to.
type agents struct {
	mu        sync.Mutex
	epoch     uint64
	snapshot  fleet.Snapshot
	version   lb.Version
	settings  map[string]fleet.Settings
	reports   []lb.Report
	changed   chan struct{}
	published int // how often
	// sources is how often a set of sources was published alone.
	sources atomic.Int32
	// boots are the boot numbers that are stored, firstBoots those before anything was
	// published.
	boots, firstBoots map[string]lb.Boot
	// judged is what was decided about backends.
	judged health.Decision
	// silent agents confirm nothing.
	silent bool
	// cause is that of the next version, causes are those of versions.
	cause  fleet.Cause
	causes map[lb.Version]fleet.Cause
}

func newAgents(epoch uint64) *agents {
	return &agents{epoch: epoch, settings: map[string]fleet.Settings{}, causes: map[lb.Version]fleet.Cause{}, changed: make(chan struct{}, 1)}
}

func (a *agents) CausedBy(c fleet.Cause) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cause = c
}

func (a *agents) Publish(s fleet.Snapshot) lb.Version {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.published++
	if a.version.Sequence == 0 || !reflect.DeepEqual(s, a.snapshot) {
		a.version = lb.Version{Epoch: a.epoch, Sequence: a.version.Sequence + 1}
		a.snapshot, a.causes[a.version] = s, a.cause
		a.confirm()
	}
	return a.version
}

func (a *agents) PublishEndpoints(service types.NamespacedName, e gateway.ServiceEndpoints) lb.Version {
	a.mu.Lock()
	s := a.snapshot
	a.mu.Unlock()
	all := gateway.Endpoints{service: e}
	for name, known := range s.Endpoints {
		if name != service {
			all[name] = known
		}
	}
	s.Endpoints = all
	return a.Publish(s)
}

func (a *agents) PublishSources(set lb.SourceSet) lb.Version {
	a.mu.Lock()
	s := a.snapshot
	a.mu.Unlock()
	s.Sources = slices.Clone(s.Sources)
	for i := range s.Sources {
		if s.Sources[i].Policy == set.Policy {
			s.Sources[i] = set
		}
	}
	a.sources.Add(1)
	return a.Publish(s)
}

func (a *agents) SetNodes([]fleet.Node) {}

func (a *agents) SetBoots(stored map[string]lb.Boot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.boots = stored; a.published == 0 {
		a.firstBoots = stored
	}
}

func (a *agents) SetOccupied(func(netip.Addr) bool) {}

func (a *agents) SetSettings(application string, s fleet.Settings) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settings[application] = s
	a.confirm()
}

func (a *agents) Forget(application string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.settings, application)
}

func (a *agents) Changed() <-chan struct{} { return a.changed }

func (a *agents) Health() health.Decision {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.judged
}

func (a *agents) Reports() []lb.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	reports := slices.Clone(a.reports)
	for i := range reports {
		if reports[i].Connected {
			reports[i].LastContact = time.Now()
		}
	}
	return reports
}

// confirm has each agent hold what was published.
func (a *agents) confirm() {
	if a.silent {
		return
	}
	for i := range a.reports {
		r := &a.reports[i]
		if r.Version != a.version {
			r.Version, r.AckedAt = a.version, time.Now()
		}
		s := a.settings[r.Application]
		r.SNAT = s.SNAT
		if drain, known := s.Drain[r.Node]; known {
			r.Draining = drain
		}
		r.Frontends = len(a.snapshot.Frontends)
	}
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// connect has an agent come.
func (a *agents) connect(node, application string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reports = append(a.reports, lb.Report{
		Node: node, Application: application, Pod: namespace + "/agent-" + node, Connected: true,
		Layout: bpf.Layout, Kernel: "6.18.0", PacketsSeenAt: time.Now(), Announcing: &lb.Announcing{}, EnforcesPolicies: true,
	})
	a.confirm()
}

func (a *agents) change(f func(*agents)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f(a)
	a.confirm()
}

// operator is a running one, with the cluster that it serves.
type operator struct {
	*testing.T
	agents *agents
	stop   func()
	kube   client.Client
	// metrics are those of the operator that runs.
	metrics *prometheus.Registry
	// every is Options.ReconcileEvery.
	every time.Duration
	// wrap is between the operator and the API server, or nil.
	wrap func(http.RoundTripper) http.RoundTripper
}

// start starts an operator in an empty cluster with two nodes.
func start(t *testing.T) *operator {
	t.Helper()
	o := prepare(t)
	o.run()
	return o
}

// prepare makes the cluster.
func prepare(t *testing.T) *operator {
	t.Helper()
	o := &operator{T: t, kube: server.Client, agents: newAgents(1)}
	o.clear()
	t.Cleanup(o.clear)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}} // none can be deleted without its controller
	o.must(client.IgnoreAlreadyExists(o.kube.Create(t.Context(), ns)))
	o.create(node("n1", "192.0.2.11"), node("n2", "192.0.2.12"))
	return o
}

// grant gives the operator its permissions, once.
var grant = sync.OnceValue(func() error {
	return server.GrantOperator(context.Background(), "../../../charts/blixt", namespace, "--set=config.addresses.source=Node")
})

// run starts the operator, again. It may do what its ServiceAccount may.
func (o *operator) run() {
	o.Helper()
	o.must(grant())
	config, err := server.AsServiceAccount(o.Context(), namespace, "blixt-operator")
	o.must(err)
	config.QPS = -1
	if o.wrap != nil {
		config.Wrap(o.wrap)
	}
	o.stop = o.runAs(config, o.agents)
	o.Cleanup(func() { o.stop() })
}

func (o *operator) runAs(config *rest.Config, a controller.Fleet) (stop func()) {
	o.Helper()
	m, err := manager.New(config, manager.Options{
		Scheme: kube.Scheme, Cache: controller.Cache(namespace),
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0",
	})
	o.must(err)
	o.metrics = prometheus.NewRegistry()
	o.must(controller.Add(m, controller.Options{
		Registerer: o.metrics,
		Release: rollout.Release{
			Namespace: namespace, AgentImage: "registry.example.com/blixt@sha256:0", Bytecode: firstCode,
			ServiceAccount: "blixt-agent", CAConfigMap: "blixt-ca", Operator: "blixt-operator:8443", Audience: fleet.Audience,
		},
		ReservedPorts: []gateway.ReservedRange{{First: 30000, Last: 32767}, {First: 32768, Last: 60999}},
		Fleet:         a, Verify: controller.Verify, Grace: time.Second, ReconcileEvery: o.every, HostPortRest: hostPortRest, Log: slog.New(slog.NewTextHandler(o.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})),
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- m.Start(ctx) }()
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				o.Errorf("operator: %v", err)
			}
		})
	}
}

func (o *operator) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

func (o *operator) create(objects ...client.Object) {
	o.Helper()
	for _, object := range objects {
		if err := o.kube.Create(o.Context(), object); err != nil {
			o.Fatalf("create %T %s: %v", object, object.GetName(), err)
		}
		if n, is := object.(*corev1.Node); is {
			o.must(o.kube.Status().Update(o.Context(), n))
		}
	}
}

// apply applies YAML as kubectl does.
func (o *operator) apply(text string) {
	o.Helper()
	o.must(server.ApplyYAML(o.Context(), []byte(text)))
}

// clear removes all that tests and operators make.
func (o *operator) clear() {
	o.must(client.IgnoreNotFound(o.kube.Delete(context.Background(), named[corev1.ConfigMap](namespace, v1alpha1.IncumbentsConfigMap))))
	server.Clear(o,
		&gwv1.TCPRouteList{}, &gwv1.UDPRouteList{}, &gwv1.ListenerSetList{}, &gwv1.GatewayList{}, &gwv1.GatewayClassList{}, &gwv1.ReferenceGrantList{},
		&v1alpha1.BlixtConfigList{}, &v1alpha1.BlixtGatewayConfigList{}, &v1alpha1.BlixtPolicyList{}, &v1alpha1.NodeDataplaneList{},
		&bpfmanv1.ClusterBpfApplicationStateList{}, &bpfmanv1.ClusterBpfApplicationList{},
		&discoveryv1.EndpointSliceList{}, &corev1.ServiceList{}, &appsv1.DaemonSetList{}, &corev1.PodList{}, &corev1.NodeList{}, &corev1.EventList{},
	)
}

// eventually waits until a condition holds, and fails the test with what it
// says last if it never does.
func (o *operator) eventually(what string, f func() error) {
	o.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			o.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// condition waits for one of an object's: "True Programmed" and a part of its
// message.
func (o *operator) condition(object client.Object, kind, want, says string) {
	o.Helper()
	key := client.ObjectKeyFromObject(object)
	o.eventually(fmt.Sprintf("%T %s", object, key), func() error {
		if err := o.kube.Get(o.Context(), key, object); err != nil {
			return err
		}
		c := meta.FindStatusCondition(conditions(object), kind)
		if c == nil {
			return fmt.Errorf("it has no condition %s", kind)
		}
		if got := string(c.Status) + " " + c.Reason; got != want || !strings.Contains(c.Message, says) {
			return fmt.Errorf("%s is %s: %q, want %s with %q", kind, got, c.Message, want, says)
		}
		if c.ObservedGeneration != object.GetGeneration() {
			return fmt.Errorf("%s is of generation %d, want %d", kind, c.ObservedGeneration, object.GetGeneration())
		}
		return nil
	})
}

func conditions(object client.Object) []metav1.Condition {
	switch o := object.(type) {
	case *gwv1.GatewayClass:
		return o.Status.Conditions
	case *gwv1.Gateway:
		return o.Status.Conditions
	case *gwv1.ListenerSet:
		return o.Status.Conditions
	case *gwv1.TCPRoute:
		return parent(o.Status.Parents)
	case *gwv1.UDPRoute:
		return parent(o.Status.Parents)
	case *v1alpha1.NodeDataplane:
		for i := range o.Status.Conditions { // it has no spec
			o.Status.Conditions[i].ObservedGeneration = o.Generation
		}
		return o.Status.Conditions
	}
	return nil
}

func parent(parents []gwv1.RouteParentStatus) []metav1.Condition {
	for _, p := range parents {
		if p.ControllerName == "gateway.networking.k8s.io/blixt" {
			return p.Conditions
		}
	}
	return nil
}

func named[T any, P interface {
	*T
	client.Object
}](namespace, name string) P {
	o := P(new(T))
	o.SetNamespace(namespace)
	o.SetName(name)
	return o
}

func node(name, address string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}},
		Status: corev1.NodeStatus{
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}},
			NodeInfo:   corev1.NodeSystemInfo{KernelVersion: "6.18.0"},
		},
	}
}
