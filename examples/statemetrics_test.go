// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// stateMetrics is what is used of the configuration of kube-state-metrics.
type stateMetrics struct {
	Kind string `json:"kind"`
	Spec struct {
		Resources []struct {
			GroupVersionKind schema.GroupVersionKind `json:"groupVersionKind"`
			Prefix           string                  `json:"metricNamePrefix"`
			Labels           map[string][]string     `json:"labelsFromPath"`
			Metrics          []stateMetric           `json:"metrics"`
		} `json:"resources"`
	} `json:"spec"`
}

type stateMetric struct {
	Name string `json:"name"`
	Help string `json:"help"`
	Each struct {
		Type  string     `json:"type"`
		Gauge *stateEach `json:"gauge"`
		Info  *stateEach `json:"info"`
	} `json:"each"`
}

type stateEach struct {
	Path   []string            `json:"path"`
	Labels map[string][]string `json:"labelsFromPath"`
	Value  []string            `json:"valueFrom"`
	Zero   bool                `json:"nilIsZero"`
}

// fullNode is a NodeDataplane with all that the configuration reads.
var fullNode = &v1alpha1.NodeDataplane{
	ObjectMeta: metav1.ObjectMeta{Name: "n1"},
	Status: v1alpha1.NodeDataplaneStatus{
		Conditions: []metav1.Condition{
			{Type: v1alpha1.NodeReady, Status: metav1.ConditionTrue, Reason: "Serving"},
			{Type: v1alpha1.NodeDrifted, Status: metav1.ConditionUnknown, Reason: "AgentLost"},
		},
		Applications: []v1alpha1.ApplicationStatus{{
			Name: "blixt-1", Draining: true, Bytecode: v1alpha1.BytecodeStatus{Image: "example.com/bytecode", Digest: "sha256:1", SignedBy: "key"},
		}, {
			Name: "blixt-2", Bytecode: v1alpha1.BytecodeStatus{Image: "example.com/bytecode", Digest: "sha256:2", SignedBy: "key"},
		}},
	},
}

// at returns what an object has at a path.
func at(object any, path []string) (any, error) {
	for i, name := range path {
		m, is := object.(map[string]any)
		if object = m[name]; !is || object == nil {
			return nil, fmt.Errorf("there is no %s", strings.Join(path[:i+1], "."))
		}
	}
	return object, nil
}

// The configuration for kube-state-metrics names fields that NodeDataplanes have, and
// gives series that promlint accepts. Nobody would miss a metric of a field that there
// is not: it is left out, or 0.
func TestStateMetrics(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("kube-state-metrics", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c stateMetrics
	if err := yaml.UnmarshalStrict(text, &c); err != nil {
		t.Fatal(err)
	}
	if c.Kind != "CustomResourceStateMetrics" || len(c.Spec.Resources) != 1 {
		t.Fatalf("kind %s of %d resources", c.Kind, len(c.Spec.Resources))
	}
	r := c.Spec.Resources[0]
	if got, err := kube.Scheme.New(r.GroupVersionKind); err != nil {
		t.Error(err)
	} else if _, is := got.(*v1alpha1.NodeDataplane); !is {
		t.Errorf("%v is %T", r.GroupVersionKind, got)
	}
	node, err := runtime.DefaultUnstructuredConverter.ToUnstructured(fullNode)
	if err != nil {
		t.Fatal(err)
	}
	var page strings.Builder
	for _, m := range r.Metrics {
		each := m.Each.Gauge
		if m.Each.Type == "Info" {
			each = m.Each.Info
		}
		if each == nil {
			t.Fatalf("%s: type %s has no section of its own", m.Name, m.Each.Type)
		}
		name := r.Prefix + "_" + m.Name
		fmt.Fprintf(&page, "# HELP %s %s\n# TYPE %s gauge\n", name, m.Help, name)
		found, err := at(node, each.Path)
		list, is := found.([]any)
		if err != nil || !is {
			t.Fatalf("%s: %v, %T", name, err, found)
		}
		for _, element := range list {
			var labels []string
			read := func(from any, paths map[string][]string) {
				for label, path := range paths {
					value, err := at(from, path)
					if err != nil {
						t.Errorf("%s: label %s: %v", name, label, err)
					}
					labels = append(labels, fmt.Sprintf("%s=%q", label, value))
				}
			}
			read(node, r.Labels)
			read(element, each.Labels)
			value := any("True")
			if m.Each.Type == "Gauge" {
				if value, err = at(element, each.Value); err != nil && each.Zero {
					value = false
				} else if err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			number, known := map[any]int{"True": 1, "False": 0, "Unknown": 0, true: 1, false: 0}[value]
			if !known {
				t.Errorf("%s: %v is no number", name, value)
			}
			fmt.Fprintf(&page, "%s{%s} %d\n", name, strings.Join(labels, ","), number)
		}
	}
	problems, err := promlint.New(strings.NewReader(page.String())).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v:\n%s", problems, err, &page)
	}
	for _, want := range []string{"blixt_nodedataplane_status_condition{", "blixt_nodedataplane_application_info{", "blixt_nodedataplane_application_draining{"} {
		if !strings.Contains(page.String(), "\n"+want) {
			t.Errorf("no %s in:\n%s", want, &page)
		}
	}
}
