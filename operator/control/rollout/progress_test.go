// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"net/netip"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/lb"
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

// Nodes that the data plane selects say where they listen, by the programs that serve.
func TestHostListens(t *testing.T) {
	key := lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80}
	f := rollout.Fleet{
		Nodes: []rollout.NodeStatus{{Node: "n1", Counted: true}, {Node: "n2", Counted: true}, {Node: "other"}},
		Reports: []lb.Report{
			{Node: "n1", Application: "blue", HostListens: []lb.Key{key}}, {Node: "n1", Application: "green", HostListens: []lb.Key{key}},
			{Node: "n2", Draining: true, HostListens: []lb.Key{key}}, {Node: "other", HostListens: []lb.Key{key}}, {Node: "gone", HostListens: []lb.Key{key}},
		},
	}
	if diff := cmp.Diff(map[lb.Key][]string{key: {"n1"}}, rollout.HostListens(f), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}

// TestPreservation makes of the cases in testdata/preservation.yaml what
// testdata/preservation.golden.yaml says.
func TestPreservation(t *testing.T) {
	text, err := os.ReadFile("testdata/preservation.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Case  string        `json:"case"`
		Fleet rollout.Fleet `json:"fleet"`
	}
	if err := yaml.UnmarshalStrict(text, &cases); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, c := range cases {
		var out any = "not known"
		if p, known := rollout.FindPreservation(c.Fleet); known {
			out = p
		}
		text, err := yaml.Marshal(map[string]any{c.Case: out})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, text...)
	}
	golden.File(t, "testdata/preservation.golden.yaml", got)
}
