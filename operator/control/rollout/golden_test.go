// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/controller-runtime/pkg/client"
	k8syaml "sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// TestGolden is the specification: for each observed cluster, the objects to
// apply, the orders to the agents and the statuses of the nodes.
func TestGolden(t *testing.T) {
	golden.Cases(t, func(t *testing.T, in string) []byte { return render(t, readCase(t, in)) })
}

// TestGoldenFilesComplete fails for a reason that no golden file shows.
func TestGoldenFilesComplete(t *testing.T) {
	outputs, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := ""
	for _, out := range outputs {
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		shown += string(text)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && !strings.Contains(shown, " "+spec.Names[0].Name+": ") {
			t.Errorf("no golden file shows the reason %s", spec.Names[0].Name)
		}
		return true
	})
}

// A view is what a golden file shows, short enough to read.
type view struct {
	Apply         []any          `yaml:"apply,omitempty"`
	Delete        []string       `yaml:"delete,omitempty"`
	Rollout       []string       `yaml:"rollout"`
	DrainingSince string         `yaml:"drainingSince,omitempty"`
	Problems      []string       `yaml:"problems,omitempty"`
	Events        []string       `yaml:"events,omitempty"`
	Nodes         map[string]any `yaml:"nodes,omitempty"`
}

type nodeView struct {
	Conditions   []string `yaml:"conditions"`
	Since        string   `yaml:"since"`
	Contact      string   `yaml:"lastContact,omitempty"`
	Applications []string `yaml:"applications,omitempty"`
	Restart      []string `yaml:"restart,omitempty"`
}

func render(t *testing.T, c testCase) []byte {
	t.Helper()
	spec := c.spec()
	desired := rollout.Plan(c.now(), spec, c.cluster)
	statuses := rollout.Judge(c.now(), spec, desired, c.cluster)
	v := view{Nodes: map[string]any{}, Rollout: []string{}}
	apply, remove := rollout.Objects(spec, release, desired)
	for _, o := range apply {
		v.Apply = append(v.Apply, viewObject(t, o, c.Show))
	}
	for _, o := range remove {
		v.Delete = append(v.Delete, nameOf(o))
	}
	for _, a := range desired.Applications {
		v.Rollout = append(v.Rollout, viewApplication(a))
	}
	if !desired.DrainingSince.IsZero() {
		v.DrainingSince = desired.DrainingSince.Format(time.TimeOnly)
	}
	for _, p := range desired.Problems {
		v.Problems = append(v.Problems, fmt.Sprintf("%s: %s: %s", p.Object, p.Reason, p.Message))
	}
	events := desired.Events
	for _, s := range statuses {
		v.Nodes[s.Node] = viewNode(s, c.cluster.Dataplanes)
		events = append(events, s.Events...)
	}
	for _, e := range events {
		v.Events = append(v.Events, fmt.Sprintf("%s %s: %s %s: %s", e.Kind, e.Name, e.Type, e.Reason, e.Message))
	}
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	return text.Bytes()
}

func nameOf(o client.Object) string {
	name := o.GetName()
	if o.GetNamespace() != "" {
		name = o.GetNamespace() + "/" + name
	}
	return o.GetObjectKind().GroupVersionKind().Kind + " " + name
}

func viewObject(t *testing.T, o client.Object, full bool) any {
	t.Helper()
	if !full {
		return nameOf(o)
	}
	text, err := k8syaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	if err := yaml.Unmarshal(text, &object); err != nil {
		t.Fatal(err)
	}
	delete(object, "status")
	return object
}

func viewApplication(a rollout.Application) string {
	text := fmt.Sprintf("%s: ports %d-%d, priority %d", a.Name, a.SNAT.First, a.SNAT.Last, a.Priority)
	if a.Agents {
		text += ", agents"
	}
	for _, node := range slices.Sorted(maps.Keys(a.Drain)) {
		if a.Drain[node] {
			text += ", drain " + node
		} else {
			text += ", serve " + node
		}
	}
	return text
}

func viewNode(v rollout.NodeStatus, stored []v1alpha1.NodeDataplane) any {
	n := nodeView{Restart: v.Restart}
	for _, s := range stored {
		if s.Name == v.Node && equality.Semantic.DeepEqual(s.Status, v.Status) && n.Restart == nil {
			return "as stored"
		}
	}
	for _, c := range v.Status.Conditions {
		n.Conditions = append(n.Conditions, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
		n.Since = strings.TrimSpace(n.Since + " " + c.LastTransitionTime.UTC().Format(time.TimeOnly))
	}
	if v.Status.LastContact != nil {
		n.Contact = v.Status.LastContact.UTC().Format(time.TimeOnly)
	}
	for _, a := range v.Status.Applications {
		text := a.Name
		if a.ProgramID != nil {
			text += fmt.Sprintf(" program %d", *a.ProgramID)
		}
		for _, l := range a.Links {
			text += fmt.Sprintf(", %s %s %s", l.Interface, l.Direction, l.Status)
		}
		text += fmt.Sprintf("; pod %q, version %d.%d, %d frontends, %d backends, %d flows", a.Pod, a.Version.Epoch, a.Version.Sequence, a.Frontends, a.Backends, a.Flows)
		if a.Draining {
			text += ", draining"
		}
		if a.DrainingSince != nil {
			text += ", drains since " + a.DrainingSince.UTC().Format(time.TimeOnly)
		}
		if a.Bytecode.SignedBy != "" {
			text += ", signed by " + a.Bytecode.SignedBy
		}
		n.Applications = append(n.Applications, text)
	}
	return n
}
