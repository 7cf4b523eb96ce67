// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/control/seed"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// goodConfig is the spec of a BlixtConfig that says nothing of reserved ports.
const goodConfig = "{addresses: {source: Pool, pool: [198.51.100.0/29], reservedPorts: []}}"

// replica starts the operator as its command does, listening for agents at an
// address, and returns how to end it.
func (o *operator) replica(address string, change ...func(*controller.ManagerOptions)) (stop func()) {
	o.Helper()
	config, err := server.AsServiceAccount(o.Context(), namespace, "blixt-operator")
	o.must(err)
	_, port, err := net.SplitHostPort(address)
	o.must(err)
	options := controller.ManagerOptions{
		Release: rollout.Release{
			Namespace: namespace, AgentImage: "registry.example.com/blixt@sha256:0", Bytecode: firstCode,
			ServiceAccount: "blixt-agent", CAConfigMap: "blixt-ca", Operator: "operator.test:" + port,
		},
		ConfigFile: o.configFile(goodConfig), FleetAddress: address, TLSSecret: "blixt-tls", MetricsAddress: "0", HealthAddress: "0", LeaderElection: true,
		Registerer: prometheus.NewRegistry(),
		Log:        slog.New(slog.NewTextHandler(o.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&options)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- controller.Run(ctx, config, options) }()
	ended := false
	stop = func() {
		if !ended {
			ended = true
			cancel()
			if err := <-done; err != nil {
				o.Errorf("operator at %s: %v", address, err)
			}
		}
	}
	o.Cleanup(stop)
	return stop
}

// configFile writes a BlixtConfig as the chart gives it to the operator.
func (o *operator) configFile(spec string) string {
	o.Helper()
	path := filepath.Join(o.TempDir(), "blixtconfig.yaml")
	o.must(os.WriteFile(path, []byte("{apiVersion: blixt.x-k8s.io/v1alpha1, kind: BlixtConfig, metadata: {name: blixt}, spec: "+spec+"}"), 0o600))
	return path
}

// maps are those of an agent, and what they hold.
type maps struct {
	backends atomic.Pointer[[]netip.AddrPort]
	seed     atomic.Uint64
	tables   *datapath.Fake // for what Announcing has
}

// agent starts the agent of a node: all but the kernel is real.
func (o *operator) agent(node, application, port string) *maps {
	o.Helper()
	pod := named[corev1.Pod](namespace, "agent-"+node+"-"+application)
	o.must(o.kube.Get(o.Context(), client.ObjectKeyFromObject(pod), pod))
	token, err := server.Token(o.Context(), namespace, "blixt-agent", authenticationv1.TokenRequestSpec{
		Audiences:      []string{fleet.Audience},
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	})
	o.must(err)
	dir := o.TempDir()
	ca := named[corev1.ConfigMap](namespace, "blixt-ca")
	o.eventually("CA", func() error { return o.kube.Get(o.Context(), client.ObjectKeyFromObject(ca), ca) })
	o.must(os.WriteFile(filepath.Join(dir, "ca.crt"), []byte(ca.Data["ca.crt"]), 0o600))
	o.must(os.WriteFile(filepath.Join(dir, "token"), []byte(token), 0o600))
	tables := datapath.NewFake(datapath.Sizes{Addresses: 64, Frontends: 64, Backends: 256, RingSlots: 1 << 16, Flows: 1024})
	m := &maps{tables: tables}
	tables.After = func() { // the fake is for one goroutine
		now := backends(tables)
		m.backends.Store(&now)
		if c, err := tables.Config(); err == nil {
			m.seed.Store(c.Seed)
		}
	}
	c := agent.New(agent.Options{
		Operator: "operator.test:" + port, TokenFile: filepath.Join(dir, "token"), CAFile: filepath.Join(dir, "ca.crt"),
		Application: application, Node: node, Kernel: "6.18.0", BootID: "boot of " + node, Layout: bpf.Layout, Tables: tables,
		Log: slog.New(slog.NewTextHandler(o.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})), Pause: 200 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	o.Cleanup(func() { cancel(); <-done })
	return m
}

// backends are those of the maps.
func backends(t *datapath.Fake) (addrs []netip.AddrPort) {
	im, err := datapath.Read(t, time.Time{})
	if err != nil {
		return nil
	}
	for _, f := range im.Frontends {
		for e := range f.IDs {
			addrs = append(addrs, e.Addr)
		}
	}
	slices.SortFunc(addrs, netip.AddrPort.Compare)
	return addrs
}

// freePort returns one that nothing listens at.
func (o *operator) freePort() string {
	o.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	o.must(err)
	_, port, err := net.SplitHostPort(probe.Addr().String())
	o.must(err)
	o.must(probe.Close())
	return port
}

// TestOperatorAndAgents has two replicas of the operator, agents that connect
// by TLS with tokens of their pods, and a change of leader.
func TestOperatorAndAgents(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	resolve(t, "127.0.0.1", "127.0.0.2")
	port := o.freePort()
	stop := o.replica("127.0.0.1:" + port)
	o.apply(kube.WebGateway)
	application := rollout.Name(firstCode)
	o.loadKernel(firstCode, "n1", "n2")
	o.replica("127.0.0.2:" + port)
	nodes := []*maps{o.agent("n1", application, port), o.agent("n2", application, port)}
	gw := named[gwv1.Gateway]("default", "web")
	o.condition(gw, "Programmed", "True Programmed", "All nodes serve it.")
	o.condition(named[v1alpha1.NodeDataplane]("", "n1"), "Ready", "True Serving", "")
	config := named[v1alpha1.BlixtConfig]("", "blixt")
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(config), config))
	if config.Spec.Addresses.ReservedPorts == nil || len(config.Spec.Addresses.ReservedPorts) > 0 {
		t.Errorf("reservedPorts are %v, want none, as written", config.Spec.Addresses.ReservedPorts)
	}

	slice := named[discoveryv1.EndpointSlice]("default", "web-1")
	var took []time.Duration
	change := func(i int) {
		t.Helper()
		o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(slice), slice))
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 1, byte(i)}), 8080)
		slice.Endpoints = []discoveryv1.Endpoint{{Addresses: []string{addr.Addr().String()}}}
		o.must(o.kube.Update(t.Context(), slice))
		start := time.Now()
		for _, m := range nodes {
			for have := m.backends.Load(); have == nil || !slices.Equal(*have, []netip.AddrPort{addr}); have = m.backends.Load() {
				if time.Since(start) > patience {
					t.Fatalf("change %d is not in the maps, which have %v", i, have)
				}
				time.Sleep(time.Millisecond)
			}
		}
		took = append(took, time.Since(start))
	}
	for i := range 100 {
		change(i + 1)
	}
	slices.Sort(took)
	t.Logf("from an EndpointSlice's change to the maps of both nodes: median %v, p99 %v", took[len(took)/2], took[len(took)*99/100])

	// All nodes have the seed of the Secret. The leader writes it again if it is
	// deleted, and the next leader reads it.
	secret := named[corev1.Secret](namespace, v1alpha1.SeedSecret)
	o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(secret), secret))
	text := string(secret.Data[seed.Key])
	value, err := lb.ParseSeed(text)
	o.must(err)
	seeded := func() {
		t.Helper()
		for _, m := range nodes {
			if got := m.seed.Load(); got != value {
				t.Errorf("a node has seed %d, want %d", got, value)
			}
		}
	}
	seeded()
	o.must(o.kube.Delete(t.Context(), secret))
	o.eventually("seed", func() error { return o.kube.Get(t.Context(), client.ObjectKeyFromObject(secret), secret) })
	if string(secret.Data[seed.Key]) != text {
		t.Error("the leader has made another seed")
	}

	// All nodes have the key of the Secret, and each other's addresses.
	var key datapath.AnnounceKey
	announces := func() {
		t.Helper()
		for i, m := range nodes {
			o.eventually("key", func() error {
				config, err := m.tables.AnnounceConfig()
				if err != nil {
					return err
				}
				keys, _ := m.tables.AnnounceKeys()
				peers, _ := m.tables.Peers()
				signs := keys[config.Key]
				if key == (datapath.AnnounceKey{}) {
					key = signs
				}
				other := netip.AddrFrom4([4]byte{192, 0, 2, byte(12 - i)})
				if p, there := peers[other]; config.Boot != 1 || signs == (datapath.AnnounceKey{}) || signs != key || !there || p.Boot != 1 {
					return fmt.Errorf("node %d has config %+v, peers %v", i, config, peers)
				}
				return nil
			})
		}
	}
	announces()
	for _, name := range []string{"n1", "n2"} {
		n := named[v1alpha1.NodeDataplane]("", name)
		o.eventually("client address", func() error {
			o.must(o.kube.Get(t.Context(), client.ObjectKeyFromObject(n), n))
			if c := n.Status.ClientAddress; c == nil || !c.Announced || c.Peers != 1 || n.Status.Boot == nil {
				return fmt.Errorf("%s: %+v", name, c)
			}
			return nil
		})
	}

	// The leader goes: the other one takes over, and says nothing else.
	before := metav1.Now()
	stop()
	change(200)
	seeded()
	announces()
	o.condition(gw, "Programmed", "True Programmed", "All nodes serve it.")
	for _, c := range gw.Status.Conditions {
		if c.LastTransitionTime.After(before.Time) {
			t.Errorf("%s changed with the leader: %+v", c.Type, c)
		}
	}
}

// A value that is set to null goes, as does one that is not named any more.
func TestConfigTakesAway(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	config := named[v1alpha1.BlixtConfig]("", "blixt")
	usual := []v1alpha1.ProtocolPorts{{First: 53, Last: 53}, {First: 80, Last: 80}, {First: 443, Last: 443}, {First: 1024, Last: 65535}}
	for _, c := range []struct {
		spec string
		want v1alpha1.Addresses
	}{
		{goodConfig, v1alpha1.Addresses{Source: "Pool", Pool: []string{"198.51.100.0/29"}, AllowedPorts: usual, ReservedPorts: []v1alpha1.ProtocolPorts{}}},
		{"{addresses: {source: Node, alsoSources: [LoadBalancer], pool: null, reservedPorts: []}}", v1alpha1.Addresses{Source: "Node", AlsoSources: []v1alpha1.AddressSource{"LoadBalancer"}, AllowedPorts: usual, ReservedPorts: []v1alpha1.ProtocolPorts{}}},
		{"{addresses: {source: Node, reservedPorts: []}}", v1alpha1.Addresses{Source: "Node", AllowedPorts: usual, ReservedPorts: []v1alpha1.ProtocolPorts{}}},
	} {
		stop := o.replica("127.0.0.1:"+o.freePort(), func(m *controller.ManagerOptions) { m.ConfigFile, m.LeaderElection = o.configFile(c.spec), false })
		o.eventually("BlixtConfig", func() error {
			if err := o.kube.Get(t.Context(), client.ObjectKeyFromObject(config), config); err != nil {
				return err
			}
			if diff := cmp.Diff(c.want, config.Spec.Addresses); diff != "" {
				return fmt.Errorf("addresses of %s (-want +got):\n%s", c.spec, diff)
			}
			return nil
		})
		stop()
	}
}

// What the operator registers is what its reference has.
func TestRegisterMetrics(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	running, reference := scrape.NewCatalog(), scrape.NewCatalog()
	controller.RegisterMetrics(reference)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	o.must(err)
	address := l.Addr().String()
	o.must(l.Close())
	o.replica(address, func(m *controller.ManagerOptions) { m.Registerer = running })
	o.eventually("metrics", func() error {
		var missing []string
		for _, d := range reference.Metrics() {
			if !slices.ContainsFunc(running.Metrics(), func(r scrape.Description) bool { return r.Name == d.Name }) {
				missing = append(missing, d.Name)
			}
		}
		// Those of all operators of a process.
		if want := []string{"blixt_operator_failures_total", "blixt_operator_refused_writes_total", "blixt_operator_writes_total"}; !slices.Equal(missing, want) {
			return fmt.Errorf("the reference alone has %v", missing)
		}
		return nil
	})
	for _, d := range running.Metrics() {
		if !slices.ContainsFunc(reference.Metrics(), func(r scrape.Description) bool { return cmp.Equal(r, d) }) {
			t.Errorf("the reference lacks %v", d)
		}
	}
}
