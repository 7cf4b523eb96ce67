// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// TestGolden is the specification: what objects give which frontends and
// conditions.
func TestGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("find testdata: %v, %d files", err, len(inputs))
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".in.yaml")
		t.Run(name, func(t *testing.T) {
			got := render(t, readCase(t, in))
			out := strings.TrimSuffix(in, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(out, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", out, diff)
			}
		})
	}
}

// TestGoldenFilesPair finds expectations that nothing checks.
func TestGoldenFilesPair(t *testing.T) {
	outputs, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range outputs {
		if _, err := os.Stat(strings.TrimSuffix(out, ".out.yaml") + ".in.yaml"); err != nil {
			t.Errorf("%s has no input: %v", out, err)
		}
	}
}

// A view is what golden files show: short enough to read.
type view struct {
	Addresses []string       `yaml:"addresses,omitempty"`
	Frontends []frontendView `yaml:"frontends,omitempty"`
	Status    map[string]any `yaml:"status,omitempty"`
	Notes     []string       `yaml:"notes,omitempty"`
	Endpoints []string       `yaml:"endpointProblems,omitempty"`
}

type frontendView struct {
	Frontend string   `yaml:"frontend"`
	From     string   `yaml:"from"`
	Route    string   `yaml:"route,omitempty"`
	Backends []string `yaml:"backends,omitempty"`
	Reject   float64  `yaml:"rejectWeight,omitempty"`
}

type listenerView struct {
	Attached   int32    `yaml:"attachedRoutes"`
	Kinds      []string `yaml:"supportedKinds,flow"`
	Conditions []string `yaml:"conditions"`
}

// usual is what conditions say when all is well. Golden files leave it out,
// so that what is left is what the case is about.
var usual = []string{
	"Accepted=True Accepted: Blixt serves the Gateways of this class.",
	"Accepted=True Accepted: The Gateway is valid.",
	"Accepted=True Accepted: The listener is valid.",
	"Conflicted=False NoConflicts: No other listener of the Gateway is in the way.",
	"ResolvedRefs=True ResolvedRefs: The listener refers to nothing that is missing.",
	"ResolvedRefs=True ResolvedRefs: Every backendRef leads to a Service.",
	"Programmed=Unknown Pending: Waiting for the data plane to report what it serves.",
}

func render(t *testing.T, c testCase) []byte {
	t.Helper()
	translation := gateway.Translate(c.Objects, c.Options)
	resolution := gateway.Resolve(&translation, gateway.IndexEndpoints(c.Slices), c.Resolve)
	v := view{Status: map[string]any{}}
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
	for _, class := range translation.Classes {
		v.Status["GatewayClass "+class.Name] = viewConditions(t, class.Status.Conditions, "Accepted")
	}
	for _, g := range translation.Gateways {
		v.Status["Gateway "+g.String()] = viewGateway(t, g.Status)
	}
	for _, r := range translation.Routes {
		parents := map[string]any{}
		for _, p := range r.Status.Parents {
			parents[viewParent(p.ParentRef)] = viewConditions(t, p.Conditions, "Accepted ResolvedRefs")
		}
		v.Status[string(r.Kind)+" "+r.String()] = parents
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

func viewFrontend(f lb.Frontend) frontendView {
	v := frontendView{
		Frontend: f.Key().String(), Route: f.Route,
		From: fmt.Sprintf("Gateway %s, listener %s", f.Gateway, f.Listener), Reject: weight(f.Reject),
	}
	for _, b := range f.Backends {
		local := ""
		if b.Local {
			local = ", local"
		}
		v.Backends = append(v.Backends, fmt.Sprintf("%s weight %v (Service %s%s)", b.Addr, weight(b.Weight), b.Service, local))
	}
	return v
}

// weight is rounded for the reader; other tests look at each bit.
func weight(w uint64) float64 { return math.Round(float64(w)/lb.WeightUnit*1e4) / 1e4 }

func viewGateway(t *testing.T, status gwv1.GatewayStatus) map[string]any {
	v := map[string]any{"conditions": viewConditions(t, status.Conditions, "Accepted Programmed")}
	var addresses []string
	for _, a := range status.Addresses {
		addresses = append(addresses, fmt.Sprintf("%s %s", *a.Type, a.Value))
	}
	if addresses != nil {
		v["addresses"] = addresses
	}
	for _, l := range status.Listeners {
		kinds := []string{}
		for _, kind := range l.SupportedKinds {
			kinds = append(kinds, string(kind.Kind))
		}
		v["listener "+string(l.Name)] = listenerView{Attached: l.AttachedRoutes, Kinds: kinds,
			Conditions: viewConditions(t, l.Conditions, "Accepted Conflicted ResolvedRefs Programmed")}
	}
	return v
}

func viewParent(ref gwv1.ParentReference) string {
	name := "parent " + string(ref.Name)
	if ref.Namespace != nil {
		name = "parent " + string(*ref.Namespace) + "/" + string(ref.Name)
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
		got = append(got, c.Type)
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
