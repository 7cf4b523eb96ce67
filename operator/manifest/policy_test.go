// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Files are refused as the API server refuses objects: for the same fields and, where a
// rule of the CRD is broken, in the same words.
func TestPolicies_AreJudgedAsByTheAPIServer(t *testing.T) {
	data, err := os.ReadFile("../api/v1alpha1/testdata/refused-policies.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Name              string
		Refused, Accepted map[string]any
		Want              []string
	}
	if err := yaml.UnmarshalStrict(data, &cases); err != nil || len(cases) == 0 {
		t.Fatalf("%d cases, %v", len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			if wrong := parsePolicy(t, c.Accepted); len(wrong) > 0 {
				t.Errorf("%v: want it accepted: %v", c.Accepted, wrong)
			}
			wrong := parsePolicy(t, c.Refused)
			for _, want := range c.Want {
				field, words, _ := strings.Cut(want, ": ")
				if strings.Contains(words, " in body ") || strings.Contains(words, "supported values") {
					words = "" // the API server's own
				}
				var is bool
				for i, got := range wrong {
					if is = strings.HasPrefix(got.Reason, field) && strings.Contains(got.Reason, words); is {
						wrong = append(wrong[:i:i], wrong[i+1:]...)
						break
					}
				}
				if !is {
					t.Errorf("lacks %s", want)
				}
			}
			for _, more := range wrong {
				t.Errorf("the API server does not say %v", more)
			}
		})
	}
}

// parsePolicy returns what is wrong with a policy in a file.
func parsePolicy(t *testing.T, spec map[string]any) Errors {
	t.Helper()
	if spec["targetRefs"] == nil {
		spec["targetRefs"] = []any{map[string]any{"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "a"}}
	}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "blixt.x-k8s.io/v1alpha1", "kind": "BlixtPolicy", "metadata": map[string]any{"name": "a"}, "spec": spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, wrong := Parse("a.yaml", text)
	return wrong
}

func TestPolicies_HaveTheDefaultsOfTheAPIServer(t *testing.T) {
	set, err := Parse("a.yaml", []byte(`apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: a, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]
  sources: {deny: [192.0.2.0/24]}
  affinity: {type: ClientAddress, prefixLength: {ipv4: 24}}
  health: {passive: {}, active: {type: HTTP, http: {}}}
  failover: {backends: [{name: b, priority: 1}]}
  overload: {synChallenge: {mode: Auto}}
---
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtPolicy
metadata: {name: b}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]
  maxAge: 90m
`))
	if len(err) > 0 {
		t.Fatal(err)
	}
	got, marshalled := json.Marshal(set.Objects.Policies[0].Spec)
	if marshalled != nil {
		t.Fatal(marshalled)
	}
	want := `{"targetRefs":[{"group":"gateway.networking.k8s.io","kind":"TCPRoute","name":"web"}],"strategy":"Defaults","mode":"Enforce",` +
		`"sources":{"deny":["192.0.2.0/24"],"action":"Drop"},"affinity":{"type":"ClientAddress","prefixLength":{"ipv4":24,"ipv6":64}},` +
		`"health":{"passive":{"mode":"Enabled","consecutive":5,"answerWithin":"1s","failurePercent":50,"minFlows":20,"window":"10s","baseEjection":"30s","maxEjection":"5m0s","maxEjectedPercent":50},` +
		`"active":{"type":"HTTP","port":0,"interval":"5s","timeout":"2s","rise":2,"fall":3,"http":{"path":"/","statuses":["200-399"]}}},` +
		`"failover":{"backends":[{"name":"b","priority":1}],"minAvailablePercent":1,"recoverPercent":50,"holdTime":"30s"},` +
		`"overload":{"synChallenge":{"mode":"Auto","newPerSecond":20000}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("policy with defaults (-want +got):\n%s", diff)
	}
	if b := set.Objects.Policies[1]; b.Namespace != "default" || b.Spec.MaxAge.Duration != 90*time.Minute || b.Spec.Health != nil || b.Spec.Strategy != v1alpha1.StrategyDefaults {
		t.Errorf("policy b was not read: %+v", b)
	}
}

// A list of 10,000 networks takes a moment, also if every one of them is wrong.
func TestPolicies_ReadLongLists(t *testing.T) {
	policy := func(format string) string {
		text := "apiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtPolicy\nmetadata: {name: a}\nspec:\n" +
			"  targetRefs: [{group: gateway.networking.k8s.io, kind: TCPRoute, name: web}]\n  sources:\n    deny:\n"
		for i := range 10_000 {
			text += fmt.Sprintf("    - "+format+"\n", i>>8, i&255)
		}
		return text
	}
	began := time.Now()
	set, wrong := Parse("a.yaml", []byte(policy("198.%d.%d.0/24")))
	if len(wrong) > 0 || len(set.Objects.Policies[0].Spec.Sources.Deny) != 10_000 {
		t.Fatalf("10,000 networks: %v", wrong)
	}
	_, wrong = Parse("a.yaml", []byte(policy("198.%d.%d.1/24")))
	if len(wrong) != 10_000 || wrong[9_999].Line != 10_007 {
		t.Errorf("%d mistakes, want 10,000, the last one in line 10007", len(wrong))
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("that took %v", took)
	}
}
