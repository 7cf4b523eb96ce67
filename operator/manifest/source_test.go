// SPDX-License-Identifier: Apache-2.0

package manifest

import "testing"

// At finds the line of the field that a message is about, in any style of YAML or JSON.
func TestAtFindsTheLineOfAValue(t *testing.T) {
	set, errs := Parse("a.yaml", []byte(`apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web}
spec:
  parentRefs:
  - &ref
    name: web
  rules:
  - backendRefs: [{name: other, port: 80},
      {name: web, port: 80}]
---
{"apiVersion": "v1", "kind": "Service",
 "metadata": {"name": "web"},
 "spec": {"ports": [
   {"port": 80}]}}
`))
	if errs != nil {
		t.Fatal(errs)
	}
	for _, c := range []struct{ name, value, want string }{
		{"TCPRoute default/web", "", "a.yaml:1"}, {"TCPRoute default/web", "parentRefs/web", "a.yaml:7"},
		{"TCPRoute default/web", "rules/other", "a.yaml:9"}, {"TCPRoute default/web", "rules/web", "a.yaml:10"},
		{"TCPRoute default/web", "rules/absent", "a.yaml:1"}, {"Service default/web", "ports/80", "a.yaml:15"},
		{"Service default/absent", "", ""},
	} {
		if got := set.At(c.name, c.value); got != c.want {
			t.Errorf("%s %s is at %q, want %s", c.name, c.value, got, c.want)
		}
	}
	all := &Set{}
	all.Add(set)
	if got := all.At("TCPRoute default/web", "rules/web"); got != "a.yaml:10" {
		t.Errorf("in a joined set it is at %q", got)
	}
}
