// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// TestGolden is the specification: what objects give which frontends and
// conditions.
func TestGolden(t *testing.T) {
	golden.Cases(t, func(t *testing.T, in string) []byte { return render(t, readCase(t, in)) })
}

// A view is what golden files show, short enough to read.
type view struct {
	Addresses []string       `yaml:"addresses,omitempty"`
	Frontends []frontendView `yaml:"frontends,omitempty"`
	Sources   []string       `yaml:"sources,omitempty"`
	Status    map[string]any `yaml:"status,omitempty"`
	Dataplane string         `yaml:"dataplane,omitempty"`
	Notes     []string       `yaml:"notes,omitempty"`
	Endpoints []string       `yaml:"endpointProblems,omitempty"`
}

type frontendView struct {
	Frontend string   `yaml:"frontend"`
	From     string   `yaml:"from"`
	Route    string   `yaml:"route,omitempty"`
	Refs     []string `yaml:"refs,flow,omitempty"`
	Backends []string `yaml:"backends,omitempty"`
	Reject   float64  `yaml:"rejectWeight,omitempty"`
	Idle     string   `yaml:"idleTimeout,omitempty"`
	Client   string   `yaml:"remoteBackendsSee,omitempty"`
	Records  bool     `yaml:"recordsFlows,omitempty"`
	Policies []string `yaml:"policies,omitempty"`
}

type planView struct {
	Source      string            `yaml:"addressSource"`
	Want        []string          `yaml:"wantAddresses,flow,omitempty"`
	Ports       []string          `yaml:"ports,flow,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
	Traffic     string            `yaml:"trafficPolicy,omitempty"`
	PodTraffic  string            `yaml:"podTraffic,omitempty"`
	Class       *string           `yaml:"loadBalancerClass,omitempty"`
}

type listenerView struct {
	Attached   int32    `yaml:"attachedRoutes"`
	Kinds      []string `yaml:"supportedKinds,flow"`
	Conditions []string `yaml:"conditions"`
}

// usual are the conditions of objects without a problem. Golden files leave
// them out, so that what remains is what the case is about.
var usual = []string{
	"Accepted=True Accepted: Blixt serves the Gateways of this class.",
	"Accepted=True Accepted: The Gateway is valid.",
	"Accepted=True Accepted: The ListenerSet is valid.",
	"Accepted=True Accepted: The listener is valid.",
	"Conflicted=False NoConflicts: No other listener of the Gateway conflicts with it.",
	"ResolvedRefs=True ResolvedRefs: Every reference of the listener is resolved.",
	"ResolvedRefs=True ResolvedRefs: Every backendRef leads to a Service.",
	"blixt.x-k8s.io/EndpointsUsable=True EndpointsUsable: Every Service has a ready endpoint.",
	"Programmed=Unknown Pending: Waiting for the data plane to report what it serves.",
	"blixt.x-k8s.io/ClientAddressPreserved=True LocalPolicy: With externalTrafficPolicy Local all backends see the client's address.",
	"blixt.x-k8s.io/ClientAddressPreserved=True Preserved: The client's address is preserved for all backends.",
	"blixt.x-k8s.io/ClientAddressPreserved=Unknown Pending: Waiting for the nodes to report whether they preserve the client's address.",
}

func render(t *testing.T, c testCase) []byte {
	t.Helper()
	translation := c.translate()
	resolution := gateway.Resolve(&translation.Unresolved, gateway.IndexEndpoints(c.Slices, c.policy(&translation)), c.Resolve)
	v := view{Status: viewStatus(t, &translation)}
	for _, a := range resolution.State.Addresses {
		kind := "shared with the host"
		if a.Exclusive {
			kind = "exclusive"
		}
		v.Addresses = append(v.Addresses, fmt.Sprintf("%s (%s)", a.IP, kind))
	}
	for _, f := range resolution.State.Frontends {
		v.Frontends = append(v.Frontends, viewFrontend(f))
	}
	for _, s := range resolution.State.Sources {
		v.Sources = append(v.Sources, viewSources(&s))
	}
	// Which nodes it selects shows in the addresses.
	if d := translation.Dataplane; d != nil && !reflect.DeepEqual(*d.Spec.Dataplane, v1alpha1.Dataplane{Nodes: d.Spec.Dataplane.Nodes}) {
		v.Dataplane = "that of BlixtConfig " + d.Name
	}
	for _, note := range translation.Notes {
		v.Notes = append(v.Notes, note.Object+": "+note.Message)
	}
	for _, problem := range resolution.Problems() {
		v.Endpoints = append(v.Endpoints, problem.Object+": "+problem.Message)
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func viewStatus(t *testing.T, translation *gateway.Translation) map[string]any {
	t.Helper()
	v := map[string]any{}
	for _, class := range translation.Classes {
		conditions := viewConditions(t, class.Status.Conditions, "Accepted")
		if !class.InUse {
			conditions = append(conditions, "no Gateway is of this class")
		}
		v["GatewayClass "+class.Name] = conditions
	}
	for _, g := range translation.Gateways {
		v["Gateway "+g.String()] = viewGateway(t, g)
	}
	for _, set := range translation.ListenerSets {
		v["ListenerSet "+set.String()] = viewListenerSet(t, set)
	}
	for _, r := range translation.Routes {
		parents := map[string]any{}
		for _, p := range r.Status.Parents {
			want := "Accepted ResolvedRefs"
			if meta.FindStatusCondition(p.Conditions, gateway.RouteConditionEndpointsUsable) != nil { // of a cluster with pods
				want += " " + gateway.RouteConditionEndpointsUsable
			}
			parents[viewParent(p.ParentRef)] = viewConditions(t, p.Conditions, want)
		}
		v[string(r.Kind)+" "+r.String()] = parents
	}
	for _, p := range translation.Policies {
		v["BlixtPolicy "+p.String()] = viewPolicy(p)
	}
	return v
}

func viewFrontend(f lb.Frontend) frontendView {
	v := frontendView{
		Frontend: f.Key().String(), Route: f.Route,
		From: fmt.Sprintf("Gateway %s, listener %s", f.Gateway, f.Listener), Reject: weight(f.Reject), Records: f.Records,
	}
	for _, ref := range f.Refs {
		v.Refs = append(v.Refs, fmt.Sprintf("%s:%d", ref.Service, ref.Port))
	}
	for _, b := range f.Backends {
		if !slices.Contains(f.Refs, lb.ServicePort{Service: b.Service, Port: b.ServicePort}) {
			v.Refs = append(v.Refs, fmt.Sprintf("none for %s of %s:%d", b.Addr, b.Service, b.ServicePort))
		}
		local := ""
		if b.Local {
			local = ", local"
		}
		if b.NotServing {
			local += ", not serving"
		}
		if b.ThroughStack && b.Protected {
			local += ", through the stack alone"
		}
		v.Backends = append(v.Backends, fmt.Sprintf("%s weight %v (Service %s%s)", b.Addr, weight(b.Weight), b.Service, local))
	}
	if f.IdleTimeout != lb.DefaultIdleTimeout(f.Protocol) {
		v.Idle = f.IdleTimeout.String()
	}
	v.Policies = viewSettings(&f.Settings)
	if !f.PreserveClient {
		v.Client = "the node's address"
	}
	return v
}

// weight is rounded for the reader; other tests compare each bit.
func weight(w uint64) float64 { return math.Round(float64(w)/lb.WeightUnit*1e4) / 1e4 }

func viewGateway(t *testing.T, g gateway.GatewayStatus) map[string]any {
	status := g.Status
	want := "Accepted Programmed"
	if meta.FindStatusCondition(status.Conditions, gateway.GatewayConditionClientAddressPreserved) != nil { // in a cluster
		want += " " + gateway.GatewayConditionClientAddressPreserved
	}
	v := map[string]any{"conditions": viewConditions(t, status.Conditions, want)}
	var addresses []string
	for _, a := range status.Addresses {
		addresses = append(addresses, fmt.Sprintf("%s %s", *a.Type, a.Value))
	}
	if addresses != nil {
		v["addresses"] = addresses
	}
	if n := *status.AttachedListenerSets; n > 0 {
		v["attachedListenerSets"] = n
	}
	for _, l := range status.Listeners {
		v["listener "+string(l.Name)] = viewListener(t, l.AttachedRoutes, l.SupportedKinds, l.Conditions)
	}
	if p := g.Service; p != nil {
		plan := planView{Source: string(p.Source), Labels: p.Labels, Annotations: p.Annotations, Class: p.LoadBalancerClass}
		for _, addr := range p.WantAddresses {
			plan.Want = append(plan.Want, addr.String())
		}
		for _, port := range p.Ports {
			plan.Ports = append(plan.Ports, port.Name)
		}
		if p.TrafficPolicy != v1alpha1.TrafficPolicyCluster {
			plan.Traffic = string(p.TrafficPolicy)
		}
		if p.PodTraffic != v1alpha1.PodTrafficBlixt {
			plan.PodTraffic = string(p.PodTraffic)
		}
		v["plan"] = plan
	}
	return v
}

func viewListenerSet(t *testing.T, set gateway.ListenerSetStatus) map[string]any {
	v := map[string]any{"conditions": viewConditions(t, set.Status.Conditions, "Accepted Programmed")}
	for _, l := range set.Status.Listeners {
		v["listener "+string(l.Name)] = viewListener(t, l.AttachedRoutes, l.SupportedKinds, l.Conditions)
	}
	return v
}

func viewListener(t *testing.T, attached int32, supported []gwv1.RouteGroupKind, conditions []metav1.Condition) listenerView {
	v := listenerView{Attached: attached, Kinds: []string{}}
	for _, kind := range supported {
		v.Kinds = append(v.Kinds, string(kind.Kind))
	}
	types := "Accepted Conflicted ResolvedRefs Programmed"
	if meta.FindStatusCondition(conditions, v1alpha1.ListenerPortWarning) != nil {
		types += " " + v1alpha1.ListenerPortWarning
	}
	v.Conditions = viewConditions(t, conditions, types)
	return v
}

func viewParent(ref gwv1.ParentReference) string {
	name := "parent " + string(ref.Name)
	if ref.Namespace != nil {
		name = "parent " + string(*ref.Namespace) + "/" + string(ref.Name)
	}
	if ref.Kind != nil {
		name = "parent " + string(*ref.Kind) + strings.TrimPrefix(name, "parent")
	}
	if ref.SectionName != nil {
		name += " listener " + string(*ref.SectionName)
	}
	if ref.Port != nil {
		name += fmt.Sprintf(" port %d", *ref.Port)
	}
	return name
}

// viewConditions checks that exactly these types are there.
func viewConditions(t *testing.T, conditions []metav1.Condition, types string) []string {
	t.Helper()
	lines, got := []string{}, []string{}
	for _, c := range conditions {
		if c.Type != v1alpha1.PolicyAffected {
			got = append(got, c.Type)
		}
		line := fmt.Sprintf("%s=%s %s", c.Type, c.Status, c.Reason)
		if slices.Contains(usual, line+": "+c.Message) {
			continue
		}
		if c.ObservedGeneration != 1 { // of nearly every object in testdata
			line += fmt.Sprintf(" (generation %d)", c.ObservedGeneration)
		}
		lines = append(lines, line+": "+c.Message)
	}
	if strings.Join(got, " ") != types {
		t.Errorf("conditions %v, want %s", got, types)
	}
	if len(lines) == 0 {
		return []string{"as usual"}
	}
	return lines
}

func splitDocuments(text []byte) [][]byte {
	return bytes.Split(text, []byte("\n---\n"))
}
