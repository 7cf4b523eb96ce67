// SPDX-License-Identifier: Apache-2.0

package examples_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// A real API server takes every policy, the README lists each file, and all together mean
// something: each policy is accepted for every target that it has.
func TestPolicies(t *testing.T) {
	files, err := filepath.Glob("policy/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	readme, err := os.ReadFile("policy/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if !strings.Contains(string(readme), "("+name+")") {
			t.Errorf("the README does not mention %s", name)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := kube.Decode(data)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.GetNamespace() == "" && o.GetKind() != "GatewayClass" {
				o.SetNamespace("default")
			}
			if err := server.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
				t.Errorf("%s: %s %s: %v", name, o.GetKind(), o.GetName(), err)
			}
		}
	}
	set, err := manifest.Read("policy")
	if err != nil {
		t.Fatal(err)
	}
	translation := gateway.Translate(set.Objects, gateway.Options{})
	for _, m := range translation.Mistakes {
		t.Errorf("%s: %s", m.Object, m.Message)
	}
	if n := len(translation.Policies); n < len(files)-1 {
		t.Errorf("%d policies of %d files", n, len(files))
	}
	for _, p := range translation.Policies {
		for _, target := range p.Status.Targets {
			for _, c := range target.Conditions {
				if c.Status != metav1.ConditionTrue || target.Frontends == 0 {
					t.Errorf("%s for %s %s: %d frontends, %s: %s", p.Name, target.Kind, target.Name, target.Frontends, c.Reason, c.Message)
				}
			}
		}
	}
}
