// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kubernetes-sigs/blixt/operator/release/changelog"
)

// The lists of Artifact Hub, each of which is YAML in the text of an annotation:
// https://artifacthub.io/docs/topics/annotations/helm
type (
	hubChange struct {
		Kind        string `yaml:"kind"`
		Description string `yaml:"description"`
	}
	hubKind struct {
		Kind        string `yaml:"kind"`
		Version     string `yaml:"version"`
		Name        string `yaml:"name"`
		DisplayName string `yaml:"displayName"`
		Description string `yaml:"description"`
	}
	hubImage struct {
		Name  string `yaml:"name"`
		Image string `yaml:"image"`
	}
)

// artifactHub returns the annotations that depend on the release. Those that do not are in
// the source's Chart.yaml.
func artifactHub(f files, text []byte, m *metadata, o Options) (map[string]string, error) {
	section, err := changelog.Of(text, o.Version)
	if err != nil {
		return nil, err
	}
	var changes []hubChange
	security := false
	for _, c := range section.Changes {
		kind := strings.ToLower(c.Kind)
		if c.Kind == changelog.UpgradeNotes { // of which Artifact Hub knows nothing
			kind = "changed"
		}
		changes = append(changes, hubChange{kind, sentence(c.Text)})
		security = security || c.Kind == "Security"
	}
	kinds, err := hubKinds(f)
	if err != nil {
		return nil, err
	}
	images, err := hubImages(f)
	if err != nil {
		return nil, err
	}
	const prefix = "artifacthub.io/"
	all := map[string]string{
		prefix + "containsSecurityUpdates": strconv.FormatBool(security),
		prefix + "prerelease":              strconv.FormatBool(strings.Contains(o.Version, "-")),
	}
	for key, list := range map[string]any{"changes": changes, "crds": kinds, "images": images} {
		text, err := yaml.Marshal(list)
		if err != nil {
			return nil, err
		}
		all[prefix+key] = string(text)
	}
	for key := range all {
		if _, ok := m.Annotations[key]; ok {
			return nil, fmt.Errorf("%s: annotation %s is written when a release is made", metadataFile, key)
		}
	}
	return all, nil
}

// next finds where a sentence ends and another begins.
var next = regexp.MustCompile("\\. +[A-Z`]")

// sentence returns the first sentence of a text, without Markdown.
func sentence(markdown string) string {
	if at := next.FindStringIndex(markdown); at != nil {
		markdown = markdown[:at[0]+1]
	}
	return strings.ReplaceAll(markdown, "`", "")
}

// hubKinds lists the kinds that Blixt defines.
func hubKinds(f files) (all []hubKind, err error) {
	for _, file := range slices.Sorted(maps.Keys(f)) {
		if ok, _ := path.Match("files/crds/*.yaml", file); !ok {
			continue
		}
		var crd struct {
			Metadata struct{ Name string }
			Spec     struct {
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPIV3Schema struct{ Description string } `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		if err := yaml.Unmarshal(f[file], &crd); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for _, v := range crd.Spec.Versions {
			description := strings.Join(strings.Fields(v.Schema.OpenAPIV3Schema.Description), " ")
			all = append(all, hubKind{crd.Spec.Names.Kind, v.Name, crd.Metadata.Name, crd.Spec.Names.Kind, sentence(description)})
		}
	}
	return all, nil
}

// hubImages lists all images of an installation with the values of the release.
func hubImages(f files) (all []hubImage, err error) {
	type image struct{ Repository, Tag, Digest string }
	var values struct {
		Image    image
		Bytecode struct{ Image string }
		Bpfman   struct{ Images map[string]image }
	}
	if err := yaml.Unmarshal(f[valuesFile], &values); err != nil {
		return nil, fmt.Errorf("%s: %w", valuesFile, err)
	}
	all = []hubImage{
		{"operator", values.Image.Repository + "@" + values.Image.Digest},
		{"bytecode", values.Bytecode.Image},
	}
	for _, name := range slices.Sorted(maps.Keys(values.Bpfman.Images)) {
		i := values.Bpfman.Images[name]
		ref := i.Repository
		if i.Tag != "" {
			ref += ":" + i.Tag
		}
		if i.Digest != "" {
			ref += "@" + i.Digest
		}
		all = append(all, hubImage{Name: "bpfman-" + name, Image: ref})
	}
	return all, nil
}
