// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const rendered = `---
# Source: blixt/templates/crds.yaml

---
# Source: blixt/templates/crds.yaml
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  annotations:
    helm.sh/resource-policy: keep
  name: things.example.com
spec:
  group: example.com
  text: |
    a

    # no comment
---
# Source: blixt/templates/namespace.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: others
  labels: {a: b}
  annotations: {helm.sh/resource-policy: keep}
---
# Source: blixt/templates/deployment.yaml
apiVersion: apps/v1
kind: Deployment
metadata: {name: operator}
spec:
  template:
    spec:
      initContainers:
        - image: registry.example.com/blixt/operator@sha256:01
      containers:
        - image: registry.example.com/blixt/operator@sha256:01
          args: [operator, "--bytecode=registry.example.com/blixt/bytecode@sha256:23"]
        - image: registry.example.com/other:v1
`

func TestWhatIsKeptHasALabel(t *testing.T) {
	got, err := labelled([]byte(rendered))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimPrefix(rendered, "---\n# Source: blixt/templates/crds.yaml\n\n")
	want = strings.Replace(want, "  name: things.example.com\n", "  name: things.example.com\n  labels:\n    blixt.x-k8s.io/kept: example.com\n", 1)
	want = strings.Replace(want, "  labels: {a: b}\n", "  labels: {a: b, blixt.x-k8s.io/kept: others}\n", 1)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
}

func TestImagesAreFoundWhereverTheyAre(t *testing.T) {
	got, err := Images([]byte(rendered))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"registry.example.com/blixt/bytecode@sha256:23", "registry.example.com/blixt/operator@sha256:01", "registry.example.com/other:v1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
}
