// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

func create(t *testing.T, object client.Object, o ...client.CreateOption) {
	t.Helper()
	if err := server.Client.Create(t.Context(), object, o...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Client.Delete(context.WithoutCancel(t.Context()), object); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	})
}

// The API server fills in defaults, so people see them.
func TestDefaults(t *testing.T) {
	for _, c := range []struct{ name, kind, spec, want string }{
		{"nothing", "BlixtConfig", "", `
addresses:
  allowedPorts: [{first: 53, last: 53}, {first: 80, last: 80}, {first: 443, last: 443}, {first: 1024, last: 65535}]
  source: LoadBalancer
quotas: [{frontends: 1024, addresses: 64}]
`},
		{"a data plane, ports and no quotas", "BlixtConfig", `
dataplane: {}
quotas: []
addresses: {reservedPorts: [], allowedPorts: [{protocol: TCP, first: 25, last: 25}]}
`, `
addresses: {reservedPorts: [], allowedPorts: [{protocol: TCP, first: 25, last: 25}], source: LoadBalancer}
quotas: []
dataplane:
  drainTimeout: 1h
  interfaces: {primary: true}
  priority: 50
  snatPorts: {first: 11000, last: 29999}
`},
		{"an agent that discovers", "BlixtConfig", `
dataplane:
  agent: {}
  interfaces: {discover: {}}
addresses: {source: Node, podTraffic: KubeProxy, reservedPorts: [], allowedPorts: [{first: 80, last: 80}]}
`, `
addresses: {podTraffic: KubeProxy, reservedPorts: [], allowedPorts: [{first: 80, last: 80}], source: Node}
quotas: [{frontends: 1024, addresses: 64}]
dataplane:
  agent: {priorityClassName: system-node-critical}
  drainTimeout: 1h
  interfaces: {discover: {exclude: [lo]}}
  priority: 50
  snatPorts: {first: 11000, last: 29999}
`},
		{"nothing", "BlixtGatewayConfig", "", "externalTrafficPolicy: Cluster"},
		// No block comes into being by itself: it would win over that of another policy.
		{"one choice", "BlixtPolicy", `
targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]
maxAge: 24h
`, `
targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}]
strategy: Defaults
mode: Enforce
maxAge: 24h
`},
		{"every block", "BlixtPolicy", `
targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}]
sources: {allow: [192.0.2.0/24]}
limits: {perSource: {newPerSecond: 50, prefixLength: {}}, total: {concurrent: 5}}
affinity: {type: ClientAddress, prefixLength: {ipv4: 24}}
health: {passive: {}, active: {type: HTTP, http: {}}}
failover: {backends: [{name: b, priority: 1}]}
overload: {synChallenge: {mode: Auto}}
`, `
targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: a}]
strategy: Defaults
mode: Enforce
sources: {allow: [192.0.2.0/24], action: Drop}
limits: {perSource: {newPerSecond: 50, prefixLength: {ipv4: 32, ipv6: 64}}, total: {concurrent: 5}, action: Drop}
affinity: {type: ClientAddress, prefixLength: {ipv4: 24, ipv6: 64}}
health:
  passive: {mode: Enabled, consecutive: 5, answerWithin: 1s, failurePercent: 50, minFlows: 20, window: 10s,
    baseEjection: 30s, maxEjection: 300s, maxEjectedPercent: 50}
  active: {type: HTTP, port: 0, interval: 5s, timeout: 2s, rise: 2, fall: 3, http: {path: "/", statuses: [200-399]}}
failover: {backends: [{name: b, priority: 1}], minAvailablePercent: 1, recoverPercent: 50, holdTime: 30s}
overload: {synChallenge: {mode: Auto, newPerSecond: 20000}}
`},
		{"a range of ports", "BlixtPolicy", `
targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a, sectionName: b}]
ports: {all: true}
`, `
targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a, sectionName: b}]
strategy: Defaults
mode: Enforce
ports: {all: true, target: Keep}
`},
	} {
		t.Run(c.kind+" with "+c.name, func(t *testing.T) {
			object := newObject(c.kind)
			if c.spec != "" {
				object.Object["spec"] = parse(t, c.spec)
			}
			create(t, object)
			if diff := cmp.Diff(parse(t, c.want), object.Object["spec"]); diff != "" {
				t.Errorf("stored spec (-want +got):\n%s", diff)
			}
		})
	}
}

// The operator applies a BlixtConfig. What the API server has filled in before is nobody's, and must
// not stay beside another way that is applied later.
func TestInterfacesAreReplaced(t *testing.T) {
	create(t, newObject("BlixtConfig"))
	for _, c := range []struct{ applied, want string }{
		{"dataplane: {}", "{primary: true}"},
		{"dataplane: {interfaces: {names: [eth1]}}", "{names: [eth1]}"},
		{"dataplane: {interfaces: {discover: {exclude: [eth0]}}}", "{discover: {exclude: [eth0]}}"},
		{"dataplane: {}", "{primary: true}"},
	} {
		object := newObject("BlixtConfig")
		object.Object["spec"] = parse(t, c.applied)
		if err := server.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("test"), client.ForceOwnership); err != nil {
			t.Fatalf("%s: %v", c.applied, err)
		}
		got, _, _ := unstructured.NestedMap(object.Object, "spec", "dataplane", "interfaces")
		if diff := cmp.Diff(parse(t, c.want), got); diff != "" {
			t.Errorf("%s: interfaces (-want +got):\n%s", c.applied, diff)
		}
	}
}

func parse(t *testing.T, text string) (object map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &object); err != nil { // numbers as the client reads them
		t.Fatal(err)
	}
	return object
}

// The API server rejects unknown fields of people, and never stores any.
func TestUnknownFields(t *testing.T) {
	strict := newObject("BlixtConfig")
	strict.Object["spec"] = map[string]any{"dataplane": map[string]any{"bytecodes": map[string]any{}}}
	want := `BlixtConfig in version "v1alpha1" cannot be handled as a BlixtConfig: strict decoding error: unknown field "spec.dataplane.bytecodes"`
	err := server.Client.Create(t.Context(), strict.DeepCopy(), client.FieldValidation("Strict"))
	if err == nil || err.Error() != want {
		t.Errorf("strict: got %v, want %s", err, want)
	}
	create(t, strict, client.FieldValidation("Ignore"))
	dataplane, _, _ := unstructured.NestedMap(strict.Object, "spec", "dataplane")
	if _, stored := dataplane["bytecodes"]; stored {
		t.Errorf("unknown field was stored: %v", strict.Object)
	}
}

func ptr[T any](v T) *T { return &v }

// An object that Go writes is read back unchanged.
func TestRoundTrip(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "full"}
	minute := metav1.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)
	selector := metav1.LabelSelector{
		MatchLabels:      map[string]string{"a": "b"},
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "c", Operator: metav1.LabelSelectorOpExists}},
	}
	config := &v1alpha1.BlixtConfig{ObjectMeta: meta, Spec: v1alpha1.BlixtConfigSpec{
		Dataplane: &v1alpha1.Dataplane{
			Bytecode: &v1alpha1.Bytecode{
				Image:            "example.com/blixt@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
				PullSecret:       &v1alpha1.SecretReference{Namespace: "blixt", Name: "pull"},
				VerificationKeys: []string{"-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"},
			},
			Interfaces:   v1alpha1.Interfaces{Discover: &v1alpha1.Discover{Allow: []string{"/eth.*/"}, Exclude: []string{"lo"}}},
			Priority:     ptr[int32](0),
			Nodes:        selector,
			SNATPorts:    v1alpha1.PortRange{First: 1, Last: 2},
			DrainTimeout: metav1.Duration{Duration: 90 * time.Minute},
			Agent: v1alpha1.Agent{
				SeccompProfile:    "blixt.json",
				Resources:         corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("100m")}},
				Tolerations:       []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
				PriorityClassName: "high",
			},
		},
		Addresses: v1alpha1.Addresses{
			Source:            v1alpha1.SourcePool,
			AlsoSources:       []v1alpha1.AddressSource{v1alpha1.SourceLoadBalancer, v1alpha1.SourceNode},
			LoadBalancerClass: ptr("example.com/internal"),
			Pool:              []string{"192.0.2.0/28"},
			Allowed:           []v1alpha1.AllowedAddresses{{Namespaces: selector, Addresses: []string{"0.0.0.0/0"}}},
			Shared:            []string{"192.0.2.1"},
			AllowedPorts:      []v1alpha1.ProtocolPorts{{First: 1, Last: 1}},
			ReservedPorts:     []v1alpha1.ProtocolPorts{{Protocol: "UDP", First: 1, Last: 65535}},
			PodTraffic:        v1alpha1.PodTrafficKubeProxy,
		},
		Quotas: []v1alpha1.Quota{{Namespaces: selector, Frontends: ptr[int32](0), Addresses: ptr[int32](4096)}},
	}}
	gateway := &v1alpha1.BlixtGatewayConfig{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "full"}, Spec: v1alpha1.BlixtGatewayConfigSpec{
		ExternalTrafficPolicy: v1alpha1.TrafficPolicyLocal,
		IdleTimeouts: v1alpha1.IdleTimeouts{
			TCP: &metav1.Duration{Duration: time.Hour}, UDP: &metav1.Duration{Duration: 5500 * time.Millisecond},
		},
		AddressSource: v1alpha1.SourceNode,
	}}
	policy := newPolicy("full", v1alpha1.BlixtPolicySpec{
		Strategy: v1alpha1.StrategyDefaults, Mode: v1alpha1.ModeEnforce,
		Sources: &v1alpha1.PolicySources{Allow: []string{"192.0.2.0/24"}, Deny: []string{"192.0.2.1/32"}, Action: v1alpha1.ActionReset},
		Limits: &v1alpha1.PolicyLimits{
			PerSource: &v1alpha1.SourceLimit{
				Limit:        v1alpha1.Limit{NewPerSecond: ptr[int32](1), Burst: ptr[int32](2), Concurrent: ptr[int32](3)},
				PrefixLength: &v1alpha1.PrefixLength{IPv4: ptr[int32](24), IPv6: ptr[int32](48)},
			},
			Total: &v1alpha1.TotalLimit{Limit: v1alpha1.Limit{NewPerSecond: ptr[int32](4)}}, Action: v1alpha1.ActionDrop,
		},
		Affinity:    &v1alpha1.PolicyAffinity{Type: v1alpha1.AffinityClientAddress, Timeout: &metav1.Duration{Duration: time.Hour}},
		IdleTimeout: &v1alpha1.PolicyIdleTimeout{TCP: &metav1.Duration{Duration: 90 * time.Minute}, UDP: &metav1.Duration{Duration: 1500 * time.Millisecond}},
		MaxAge:      &metav1.Duration{Duration: 24 * time.Hour},
		Health: &v1alpha1.PolicyHealth{PanicPercent: ptr[int32](0), Active: &v1alpha1.ActiveHealth{
			Type: v1alpha1.CheckUDP, Port: ptr[int32](53), Interval: &metav1.Duration{Duration: time.Second}, Timeout: &metav1.Duration{Duration: 100 * time.Millisecond},
			Rise: ptr[int32](1), Fall: ptr[int32](1), UDP: &v1alpha1.UDPCheck{Payload: []byte("\x00\xff"), Expect: []byte("\xfe")},
		}},
		Failover: &v1alpha1.PolicyFailover{
			Backends:            []v1alpha1.FailoverBackend{{Namespace: ptr[gwv1.Namespace]("b"), Name: "c", Port: ptr[gwv1.PortNumber](80), Priority: 1}},
			MinAvailablePercent: ptr[int32](1), RecoverPercent: ptr[int32](1), HoldTime: &metav1.Duration{},
		},
		Overload: &v1alpha1.PolicyOverload{NoBackend: v1alpha1.ActionDrop, SYNChallenge: &v1alpha1.SYNChallenge{Mode: v1alpha1.ChallengeNever, NewPerSecond: ptr[int32](1)}},
	})
	node := &v1alpha1.NodeDataplane{ObjectMeta: meta}
	status := v1alpha1.NodeDataplaneStatus{
		Kernel: "6.18.0", LastContact: &minute,
		Conditions: []metav1.Condition{{Type: v1alpha1.NodeReady, Status: metav1.ConditionTrue, Reason: "Serving", LastTransitionTime: minute}},
		Applications: []v1alpha1.ApplicationStatus{{
			Name: "blixt-1", Bytecode: v1alpha1.BytecodeStatus{Image: "example.com/blixt", Digest: "sha256:01", SignedBy: "ab"},
			ProgramID: ptr[int64](1 << 32), Layout: 1, Draining: true, Frontends: 1, Backends: 2, Flows: 1 << 33,
			Links:   []v1alpha1.LinkStatus{{Interface: "eth0", Direction: "Ingress", LinkID: ptr[int64](1<<32 - 1), Status: "Attached"}},
			Version: v1alpha1.StateVersion{Epoch: 1, Sequence: 2}, AckedAt: &minute, PacketsSeenAt: &minute,
		}},
	}

	for _, object := range []client.Object{config, gateway, policy, node} {
		want := object.DeepCopyObject().(client.Object)
		create(t, object)
		if n, ok := want.(*v1alpha1.NodeDataplane); ok {
			node.Status, n.Status = status, status
			if err := server.Client.Status().Update(t.Context(), node); err != nil {
				t.Fatal(err)
			}
		}
		got := object.DeepCopyObject().(client.Object)
		if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(want), got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreTypes(metav1.TypeMeta{}, metav1.ObjectMeta{})); diff != "" {
			t.Errorf("%T (-written +read):\n%s", want, diff)
		}
	}
}
