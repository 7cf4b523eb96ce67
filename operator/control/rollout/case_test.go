// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// release is the installation of all cases.
var release = rollout.Release{
	Namespace: "blixt-system", AgentImage: "registry.example/blixt@sha256:0000", Bytecode: image('a'),
	ServiceAccount: "blixt-agent", CAConfigMap: "blixt-ca", Operator: "blixt.blixt-system.svc:7443", Audience: "blixt.x-k8s.io",
	ImagePullSecrets: []string{"pull"}, LogLevel: "info",
	Owners: []metav1.OwnerReference{{APIVersion: "gateway.networking.k8s.io/v1", Kind: "GatewayClass", Name: "blixt", UID: "1"}},
}

// image returns a bytecode image whose digest repeats one digit.
func image(digit byte) string {
	return "registry.example/bytecode@sha256:" + string(bytes.Repeat([]byte{digit}, 64))
}

// testCase is an input file: a document without a kind, which has the options,
// and objects.
type testCase struct {
	options
	config  *v1alpha1.Dataplane
	cluster rollout.Cluster
}

type options struct {
	// Like is another case whose sequel this one is: the statuses that it led to
	// are stored, and this file has only the differences.
	Like string `json:"like"`
	// Remove names objects of that case that are gone, as kind/name, and reports,
	// as Report/application/node.
	Remove []string `json:"remove"`
	// Now and Started are times of the day.
	Now     string `json:"now"`
	Started string `json:"started"`
	// Show shows objects in full, not only their names.
	Show bool `json:"show"`

	Issued        []rollout.Issued  `json:"issued"`
	Reports       []lb.Report       `json:"reports"`
	NarrowLinkIDs *bool             `json:"narrowLinkIDs"`
	Refused       *string           `json:"refused"`
	Signers       map[string]string `json:"signers"`
}

func (c *testCase) now() time.Time { return clock(c.Now) }

func clock(text string) time.Time {
	t, err := time.Parse(time.RFC3339, "2026-01-01T"+text+"Z")
	if err != nil {
		panic(err)
	}
	return t
}

func (c *testCase) spec() v1alpha1.Dataplane {
	return rollout.Default(c.config, release, c.cluster.Nodes)
}

func readCase(t *testing.T, path string) testCase {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	docs := bytes.Split(text, []byte("\n---\n"))
	var o options
	if err := yaml.UnmarshalStrict(docs[0], &o); err != nil {
		t.Fatalf("read options of %s: %v", path, err)
	}
	c := testCase{options: o}
	if o.Like != "" {
		c = readCase(t, caseOf(o.Like))
		c.store()
		c.cluster.Reports = slices.Clone(c.cluster.Reports)
	}
	c.override(o)
	for _, doc := range docs[1:] {
		if err := c.add(doc); err != nil {
			t.Fatalf("read %s: %v", path, err)
		}
	}
	return c
}

// caseOf returns the path of a case's input file.
func caseOf(name string) string { return "testdata/" + name + ".in.yaml" }

// store stores the statuses that the case leads to.
func (c *testCase) store() {
	spec := c.spec()
	desired := rollout.Plan(c.now(), spec, c.cluster)
	var stored []v1alpha1.NodeDataplane
	for _, v := range rollout.Judge(c.now(), spec, desired, c.cluster) {
		stored = append(stored, v1alpha1.NodeDataplane{ObjectMeta: metav1.ObjectMeta{Name: v.Node}, Status: v.Status})
	}
	c.cluster.Dataplanes = stored
}

// override applies the options of a sequel.
func (c *testCase) override(o options) {
	c.Like, c.Show = o.Like, o.Show
	c.Now, c.Started = cmp.Or(o.Now, c.Now), cmp.Or(o.Started, c.Started)
	c.cluster.Started = clock(c.Started)
	if o.Issued != nil {
		c.cluster.Issued = o.Issued
	}
	if o.NarrowLinkIDs != nil {
		c.cluster.NarrowLinkIDs = *o.NarrowLinkIDs
	}
	if o.Refused != nil {
		c.cluster.Refused = *o.Refused
	}
	if o.Signers != nil {
		c.cluster.Signers = o.Signers
	}
	for _, name := range o.Remove {
		c.remove(name)
	}
	for _, r := range o.Reports {
		c.remove("Report/" + r.Application + "/" + r.Node)
		c.cluster.Reports = append(c.cluster.Reports, r)
	}
}

func (c *testCase) remove(name string) {
	c.cluster.Nodes = without(c.cluster.Nodes, name, func(o corev1.Node) string { return "Node/" + o.Name })
	c.cluster.Applications = without(c.cluster.Applications, name, func(o bpfmanv1.ClusterBpfApplication) string { return "ClusterBpfApplication/" + o.Name })
	c.cluster.States = without(c.cluster.States, name, func(o bpfmanv1.ClusterBpfApplicationState) string { return "ClusterBpfApplicationState/" + o.Name })
	c.cluster.Pods = without(c.cluster.Pods, name, func(o corev1.Pod) string { return "Pod/" + o.Name })
	c.cluster.Dataplanes = without(c.cluster.Dataplanes, name, func(o v1alpha1.NodeDataplane) string { return "NodeDataplane/" + o.Name })
	c.cluster.Reports = without(c.cluster.Reports, name, func(r lb.Report) string { return "Report/" + r.Application + "/" + r.Node })
}

func without[T any](list []T, name string, nameOf func(T) string) []T {
	return slices.DeleteFunc(slices.Clone(list), func(o T) bool { return nameOf(o) == name })
}

// add decodes an object, which replaces the one with its kind and name.
func (c *testCase) add(doc []byte) error {
	var meta metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(doc, &meta); err != nil {
		return err
	}
	c.remove(meta.Kind + "/" + meta.Name)
	switch meta.Kind {
	case "BlixtConfig":
		var config v1alpha1.BlixtConfig
		err := yaml.UnmarshalStrict(doc, &config)
		c.config = config.Spec.Dataplane
		return err
	case "Node":
		return appendTo(&c.cluster.Nodes, doc)
	case "ClusterBpfApplication":
		return appendTo(&c.cluster.Applications, doc)
	case "ClusterBpfApplicationState":
		return appendTo(&c.cluster.States, doc)
	case "Pod":
		return appendTo(&c.cluster.Pods, doc)
	case "NodeDataplane":
		return appendTo(&c.cluster.Dataplanes, doc)
	}
	return fmt.Errorf("unknown kind %q", meta.Kind)
}

func appendTo[T any](list *[]T, doc []byte) error {
	var object T
	err := yaml.UnmarshalStrict(doc, &object)
	*list = append(*list, object)
	return err
}
