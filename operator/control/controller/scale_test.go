// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// A bigCluster has Gateways with 40 listeners each, and a Service with 15 pods behind
// each listener. It is the client of its own publisher.
type bigCluster struct {
	client.Client
	slices map[types.NamespacedName][]discoveryv1.EndpointSlice
	// policies are of addPolicies.
	policies map[types.NamespacedName]*v1alpha1.BlixtPolicy

	*publisher
	writes int
}

const (
	listenersEach = 40
	endpointsEach = 15
)

func newBigCluster(tb testing.TB, frontends int) *bigCluster {
	tb.Helper()
	c := &bigCluster{slices: map[types.NamespacedName][]discoveryv1.EndpointSlice{}}
	a := &api{client: c, clock: time.Now, log: slog.New(slog.DiscardHandler), once: newOnceLog(slog.New(slog.DiscardHandler), time.Now)}
	server := fleet.NewServer(fleet.ServerOptions{
		TLS: &tls.Config{MinVersion: tls.VersionTLS13}, Registerer: prometheus.NewRegistry(), Log: a.log, Clock: time.Now,
		Authenticate: func(context.Context, string) (fleet.Identity, error) { return fleet.Identity{}, nil },
	})
	server.Lead(1)
	o := &Options{Fleet: server, Clock: time.Now, measures: newMeasures(prometheus.NewRegistry())}
	store := func() toolscache.Indexer {
		return toolscache.NewIndexer(toolscache.MetaNamespaceKeyFunc, toolscache.Indexers{byAddress: func(o any) ([]string, error) {
			return addressesOf(o.(client.Object)), nil
		}})
	}
	endpoints := &endpointStore{}
	c.publisher = &publisher{
		api: a, Options: o, addressed: &addressIndex{store(), store(), store()}, endpoints: endpoints, services: newServiceWriter(a, endpoints),
		rollout: newRolloutLoop(a, o, newStatusWriter(a), endpoints), causes: &causes{},
	}
	t := &translated{snapshot: &snapshot{}}
	strip := stripPod("blixt-system")
	for i := range frontends {
		gw, service := i/listenersEach, types.NamespacedName{Namespace: "shop", Name: fmt.Sprint("s", i)}
		t.Frontends = append(t.Frontends, gateway.Frontend{
			Key:     lb.Key{Addr: netip.AddrFrom4([4]byte{192, 0, byte(gw >> 8), byte(gw)}), Protocol: lb.TCP, Port: uint16(1000 + i%listenersEach)},
			Gateway: fmt.Sprint("shop/g", gw), Listener: fmt.Sprint("l", i%listenersEach), Route: fmt.Sprint("TCPRoute/shop/r", i),
			Refs: []gateway.Ref{{Service: service, PortName: "web", Weight: 1}},
		})
		s := discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: service.Name, Labels: map[string]string{discoveryv1.LabelServiceName: service.Name}},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("web"), Port: new(int32(8080)), Protocol: new(corev1.ProtocolTCP)}},
		}
		for e := range endpointsEach {
			addr := netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(e)}).String()
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{addr}})
			pod, _ := strip(aPod("shop", fmt.Sprint("p", i, "-", e), addr))
			if err := c.addressed.pods.Add(pod); err != nil {
				tb.Fatal(err)
			}
		}
		c.slices[service] = []discoveryv1.EndpointSlice{s}
	}
	cluster := &gateway.Cluster{Nodes: []gateway.Node{{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}}
	t.policy = gateway.NewEndpointPolicy(&t.Translation, cluster, nil, c.addressed)
	t.users = gateway.NewUsers(&t.Translation, t.policy)
	known, err := c.readAllEndpoints(context.Background(), t)
	if err != nil {
		tb.Fatal(err)
	}
	endpoints.replace(known)
	t.published = c.record(published{}, server.Publish(fleet.Snapshot{Unresolved: t.Unresolved, Endpoints: known}))
	c.current = t
	return c
}

// List has the EndpointSlices of a Service.
func (c *bigCluster) List(_ context.Context, list client.ObjectList, o ...client.ListOption) error {
	var options client.ListOptions
	options.ApplyOptions(o)
	name, _ := options.FieldSelector.RequiresExactMatch(byService)
	list.(*discoveryv1.EndpointSliceList).Items = c.slices[types.NamespacedName{Namespace: options.Namespace, Name: name}]
	return nil
}

// Get has the Service of a Gateway, and policies.
func (c *bigCluster) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	if p, is := object.(*v1alpha1.BlixtPolicy); is {
		c.policies[key].DeepCopyInto(p)
		return nil
	}
	s := object.(*corev1.Service)
	s.Namespace, s.Name, s.UID = key.Namespace, key.Name, "1"
	s.Labels = map[string]string{v1alpha1.ManagedByLabel: v1alpha1.Manager}
	s.OwnerReferences = []metav1.OwnerReference{{Name: key.Name[len(servicePrefix):], Controller: new(true)}}
	for i := range listenersEach {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", i), Protocol: corev1.ProtocolTCP, Port: int32(1000 + i)})
	}
	return nil
}

func (c *bigCluster) Apply(context.Context, k8sruntime.ApplyConfiguration, ...client.ApplyOption) error {
	c.writes++
	return nil
}

// change changes an endpoint of a Service, and publishes it.
func (c *bigCluster) change(tb testing.TB) {
	tb.Helper()
	service := types.NamespacedName{Namespace: "shop", Name: "s7"}
	ready := &c.slices[service][0].Endpoints[0].Conditions.Ready
	*ready = new(*ready != nil && !**ready)
	before := c.current.published.version
	if err := c.publishEndpoints(tb.Context(), service); err != nil {
		tb.Fatal(err)
	}
	if c.current.published.version == before {
		tb.Fatal("nothing was published")
	}
}

// addPolicies publishes a policy of 100 networks for each of 2,000 frontends.
func (c *bigCluster) addPolicies(tb testing.TB) {
	tb.Helper()
	c.policies = map[types.NamespacedName]*v1alpha1.BlixtPolicy{}
	t := *c.current
	t.snapshot, t.Sources = &snapshot{}, nil
	for i := range 2000 {
		p := v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("p%04d", i)}, Spec: v1alpha1.BlixtPolicySpec{
			TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{{LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: "TCPRoute", Name: gwv1.ObjectName(fmt.Sprint("r", i))}}},
			Sources:    &v1alpha1.PolicySources{},
		}}
		for net := range 100 {
			p.Spec.Sources.Deny = append(p.Spec.Sources.Deny, fmt.Sprintf("10.%d.%d.%d/32", i>>8, i&255, net))
		}
		set, err := gateway.SourcesOf(&p)
		if err != nil {
			tb.Fatal(err)
		}
		t.objects.Policies, t.Sources = append(t.objects.Policies, p), append(t.Sources, set)
		t.Frontends[i].Restrictions = []lb.Restriction{{Policy: set.Policy, Target: t.Frontends[i].Route, Sources: true}}
		c.policies[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p.DeepCopy()
	}
	t.published = c.record(published{}, c.Fleet.Publish(fleet.Snapshot{Unresolved: t.Unresolved, Endpoints: c.endpoints.all()}))
	c.current = &t
}

// changePolicy changes the networks of a policy, and publishes them.
func (c *bigCluster) changePolicy(tb testing.TB) {
	tb.Helper()
	name := types.NamespacedName{Namespace: "shop", Name: "p0007"}
	deny := c.policies[name].Spec.Sources.Deny
	deny[0] = map[bool]string{true: "192.0.2.1/32", false: "192.0.2.2/32"}[deny[0] != "192.0.2.1/32"]
	before := c.current.published.version
	if err := c.publishSources(tb.Context(), name); err != nil {
		tb.Fatal(err)
	}
	if c.current.published.version == before {
		tb.Fatal("nothing was published")
	}
}

// Of 2,000 policies of 100 networks, one that changes is published in a few milliseconds.
func TestPolicyChangeIsPublishedSoonInLargeClusters(t *testing.T) {
	c := newBigCluster(t, 50*listenersEach)
	c.addPolicies(t)
	var took []time.Duration
	for range 21 {
		start := time.Now()
		c.changePolicy(t)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("median %s, slowest %s", took[len(took)/2], took[len(took)-1])
	if took[len(took)/2] > 10*time.Millisecond {
		t.Errorf("it takes %s", took[len(took)/2])
	}
}

// mirror writes the slices of a Gateway that show a Service, as run does.
func (c *bigCluster) mirror(tb testing.TB) {
	tb.Helper()
	gw := &corev1.Service{}
	if err := c.Get(tb.Context(), types.NamespacedName{Namespace: "shop", Name: "blixt-g0"}, gw); err != nil {
		tb.Fatal(err)
	}
	changed := c.services.pending[client.ObjectKeyFromObject(gw)]
	if err := c.services.mirror(tb.Context(), c.current, gw, changed); err != nil || len(changed) != 1 {
		tb.Fatal(changed, err)
	}
}

// allocated returns how many bytes a run of f allocates.
func allocated(f func()) uint64 {
	const runs = 50
	var before, after runtime.MemStats
	f()
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

// One endpoint's change costs the same whatever else is served. What it allocates
// stands for what it does.
func TestEndpointChangeCostsTheSameInLargeClusters(t *testing.T) {
	small, large := newBigCluster(t, 5*listenersEach), newBigCluster(t, 50*listenersEach)
	for _, c := range []struct {
		what string
		of   func(c *bigCluster) func()
	}{
		{"publishing", func(c *bigCluster) func() { return func() { c.change(t) } }},
		{"mirroring", func(c *bigCluster) func() {
			return func() { c.mirror(t) }
		}},
	} {
		few, many := allocated(c.of(small)), allocated(c.of(large))
		t.Logf("%s: %d bytes with %d frontends, %d with %d", c.what, few, len(small.current.Frontends), many, len(large.current.Frontends))
		if many > few*3/2 {
			t.Errorf("%s costs more with more frontends", c.what)
		}
	}
	// Of the Gateway's 40 Services, the slice of one is written, once a change.
	large.writes = 0
	large.change(t)
	large.mirror(t)
	if large.writes != 1 {
		t.Errorf("a change wrote %d slices, want 1", large.writes)
	}
}

// BenchmarkPublishEvent is from an EndpointSlice's event to the published update,
// without the pause that collects a burst; mirrored is what makes the
// slice that is written later, without the API server's time.
func BenchmarkPublishEvent(b *testing.B) {
	c := newBigCluster(b, 4000)
	b.Run("published", func(b *testing.B) {
		for b.Loop() {
			c.change(b)
		}
	})
	b.Run("mirrored", func(b *testing.B) {
		for b.Loop() {
			c.mirror(b)
		}
	})
}
