// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// TestProgress makes of the cases in testdata/progress.yaml what
// testdata/progress.golden.yaml says.
func TestProgress(t *testing.T) {
	text, err := os.ReadFile("testdata/progress.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Case    string                   `json:"case"`
		Fleet   rollout.Fleet            `json:"fleet"`
		Gateway rollout.PublishedGateway `json:"gateway"`
	}
	if err := yaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	name, got := types.NamespacedName{Namespace: "default", Name: "web"}, []byte{}
	for _, c := range cases {
		progress := rollout.Progress(c.Fleet, map[types.NamespacedName]rollout.PublishedGateway{name: c.Gateway})
		text, err := yaml.Marshal(map[string]any{c.Case: progress[name]})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text...)
	}
	golden.File(t, "testdata/progress.golden.yaml", got)
}
