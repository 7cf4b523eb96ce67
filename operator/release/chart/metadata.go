// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	k8syaml "sigs.k8s.io/yaml"
)

const metadataFile = "Chart.yaml"

// metadata is the content of Chart.yaml, with the fields of Helm in Helm's order: the
// configuration of the image is equal to that which helm push writes.
type metadata struct {
	Name        string            `json:"name,omitempty"`
	Home        string            `json:"home,omitempty"`
	Sources     []string          `json:"sources,omitempty"`
	Version     string            `json:"version,omitempty"`
	Description string            `json:"description,omitempty"`
	Keywords    []string          `json:"keywords,omitempty"`
	Maintainers []maintainer      `json:"maintainers,omitempty"`
	Icon        string            `json:"icon,omitempty"`
	APIVersion  string            `json:"apiVersion,omitempty"`
	AppVersion  string            `json:"appVersion,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	KubeVersion string            `json:"kubeVersion,omitempty"`
	Type        string            `json:"type,omitempty"`
}

type maintainer struct {
	Name  string `json:"name,omitempty"`
	Email string `json:"email,omitempty"`
	URL   string `json:"url,omitempty"`
}

func readMetadata(f files) (*metadata, error) {
	m := new(metadata)
	if err := k8syaml.UnmarshalStrict(f[metadataFile], m); err != nil {
		return nil, fmt.Errorf("%s: %w", metadataFile, err)
	}
	if m.Name != directory {
		return nil, fmt.Errorf("%s: the chart's name is %q, want %s", metadataFile, m.Name, directory)
	}
	return m, nil
}

// writeMetadata writes the versions, where the icon of this version is, and what Artifact
// Hub shows.
func writeMetadata(f files, changelog []byte, o Options) error {
	m, err := readMetadata(f)
	if err != nil {
		return err
	}
	annotations, err := artifactHub(f, changelog, m, o)
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(f[metadataFile], &document); err != nil {
		return fmt.Errorf("%s: %w", metadataFile, err)
	}
	for key, value := range map[string]string{
		"version": o.number(), "appVersion": o.number(), "icon": strings.Replace(m.Icon, "/main/", "/"+o.Version+"/", 1),
	} {
		node, err := find(&document, []string{key})
		if err != nil {
			return fmt.Errorf("%s: %s: %w", metadataFile, key, err)
		}
		node.Value = value
	}
	node, err := find(&document, []string{"annotations"})
	if err != nil {
		return fmt.Errorf("%s: annotations: %w", metadataFile, err)
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		node.Content = append(node.Content, text(key), text(annotations[key]))
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&document); err != nil {
		return fmt.Errorf("%s: %w", metadataFile, err)
	}
	f[metadataFile] = out.Bytes()
	return nil
}

// text returns a scalar that is a string, whatever it looks like.
func text(value string) *yaml.Node {
	node := &yaml.Node{}
	node.SetString(value)
	return node
}
