// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/release/chart"
)

// What Artifact Hub knows (https://artifacthub.io/docs/topics/annotations/helm). It ignores
// other names and other values without a word.
var (
	hubBooleans   = []string{"containsSecurityUpdates", "operator", "prerelease"}
	hubCategories = []string{"ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking", "security", "storage", "streaming-messaging", "skip-prediction"}
	hubLevels     = []string{"Basic Install", "Seamless Upgrades", "Full Lifecycle", "Deep Insights", "Auto Pilot"}
	hubKinds      = []string{"added", "changed", "deprecated", "removed", "fixed", "security"}
	hubLists      = map[string][]string{
		"changes": {"kind", "description", "links"}, "crds": {"kind", "version", "name", "displayName", "description"},
		"images": {"name", "image", "whitelisted", "platforms"}, "links": {"name", "url"}, "maintainers": {"name", "email"},
		"recommendations": {"url"}, "screenshots": {"title", "url"}, "crdsExamples": {"apiVersion", "kind", "metadata", "spec"},
	}
)

type entry = map[string]any

func hub(t *testing.T, o chart.Options) map[string]string {
	t.Helper()
	_, content := unpack(t, pack(t, o))
	var got struct{ Annotations map[string]string }
	decode(t, content["blixt/Chart.yaml"], &got)
	return got.Annotations
}

func TestArtifactHubKnowsAllAnnotations(t *testing.T) {
	all := hub(t, options())
	for key, value := range all {
		name, ours := strings.CutPrefix(key, "artifacthub.io/")
		fields, isList := hubLists[name]
		switch {
		case isList:
			var list []entry
			decode(t, value, &list)
			if len(list) == 0 {
				t.Errorf("%s is empty", key)
			}
			for _, e := range list {
				for field, v := range e {
					if !slices.Contains(fields, field) || v == "" {
						t.Errorf("%s: field %s with value %v: Artifact Hub wants some of %v", key, field, v, fields)
					}
				}
				if link, ok := e["url"].(string); ok {
					if u, err := url.Parse(link); err != nil || u.Scheme != "https" || u.Host == "" {
						t.Errorf("%s: %q is no address (%v)", key, link, err)
					}
				}
			}
		case slices.Contains(hubBooleans, name):
			if value != "true" && value != "false" {
				t.Errorf("%s is %q, want true or false", key, value)
			}
		case name == "category" && !slices.Contains(hubCategories, value), name == "operatorCapabilities" && !slices.Contains(hubLevels, value):
			t.Errorf("%s: there is no %q", key, value)
		case !ours || name != "category" && name != "operatorCapabilities" && name != "license":
			t.Errorf("Artifact Hub knows no %s", key)
		}
	}
	for _, name := range []string{"category", "changes", "containsSecurityUpdates", "crds", "crdsExamples", "images", "license", "links", "operator", "operatorCapabilities", "prerelease", "recommendations"} {
		if all["artifacthub.io/"+name] == "" {
			t.Errorf("annotation %s is missing", name)
		}
	}
}

func TestArtifactHubShowsTheImagesOfTheRelease(t *testing.T) {
	o := options()
	var got []struct{ Name, Image string }
	decode(t, hub(t, o)["artifacthub.io/images"], &got)
	want := []string{"operator " + o.Image, "bytecode " + o.Bytecode}
	for i, w := range want {
		if i >= len(got) || got[i].Name+" "+got[i].Image != w {
			t.Errorf("images %v, want that entry %d is %s", got, i, w)
		}
	}
}

func TestArtifactHubShowsAllKindsWithAnExample(t *testing.T) {
	all := hub(t, options())
	var kinds []struct{ Kind, Name, Description string }
	var examples []struct{ Kind string }
	decode(t, all["artifacthub.io/crds"], &kinds)
	decode(t, all["artifacthub.io/crdsExamples"], &examples)
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
		has := slices.ContainsFunc(examples, func(e struct{ Kind string }) bool { return e.Kind == k.Kind })
		if written := k.Kind != "NodeDataplane"; has != written { // the operator's own
			t.Errorf("%s has an example: %v, want %v", k.Kind, has, written)
		}
		if !strings.HasSuffix(k.Description, ".") || strings.Count(k.Description, " ") < 3 {
			t.Errorf("%s: description %q is no sentence", k.Kind, k.Description)
		}
	}
	if diff := cmp.Diff(v1alpha1.CRDs, names); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
}

func TestArtifactHubShowsChangesOfTheVersion(t *testing.T) {
	o := options()
	o.Dir = tree(t)
	write(t, filepath.Join(o.Dir, "../../CHANGELOG.md"), `# Changelog
## [Unreleased]
### Added
- Later.
## [1.2.3] - 2026-12-01
### Upgrade notes
- Restart it.
### Added
- `+"`blixt x`"+`: does
  what e.g. y does. More of it.
### Security
- "Quoted": and: colons # no comment.
`)
	all := hub(t, o)
	var got []entry
	decode(t, all["artifacthub.io/changes"], &got)
	want := []entry{
		{"kind": "changed", "description": "Restart it."},
		{"kind": "added", "description": "blixt x: does what e.g. y does."},
		{"kind": "security", "description": `"Quoted": and: colons # no comment.`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	if all["artifacthub.io/containsSecurityUpdates"] != "true" {
		t.Error("it does not say that there is a security update")
	}
	for _, e := range got {
		if !slices.Contains(hubKinds, e["kind"].(string)) {
			t.Errorf("there is no kind %s", e["kind"])
		}
	}
}

// Artifact Hub takes what proves who owns the repository from a file beside the chart.
func TestArtifactHubRepository(t *testing.T) {
	text, err := os.ReadFile("../../../artifacthub-repo.yml")
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	var repository struct {
		RepositoryID string `yaml:"repositoryID"`
		Owners       []struct{ Name, Email string }
		Ignore       []struct{ Name, Version string }
	}
	if err := decoder.Decode(&repository); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestIconIsAPicture(t *testing.T) {
	text, err := os.ReadFile("../../../docs/icon.svg")
	if err != nil {
		t.Fatal(err)
	}
	var picture struct {
		XMLName xml.Name `xml:"http://www.w3.org/2000/svg svg"`
		ViewBox string   `xml:"viewBox,attr"`
	}
	if err := xml.Unmarshal(text, &picture); err != nil {
		t.Fatal(err)
	}
	if picture.ViewBox != "0 0 128 128" {
		t.Errorf("viewBox %q, want a square", picture.ViewBox)
	}
}
