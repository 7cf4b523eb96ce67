// SPDX-License-Identifier: Apache-2.0

// Package manifests makes of the chart one file for kubectl, for who does without Helm.
package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Namespace is where Blixt is installed.
const Namespace = "blixt-system"

// KeptLabel is on what outlives Blixt, as Helm's annotation says to Helm: kubectl has
// selectors. Its value is the group of kinds, or the name of another object.
const KeptLabel = "blixt.x-k8s.io/kept"

// Options say what to render.
type Options struct {
	// Helm is the path of the program.
	Helm string
	// Chart is the archive of a release's chart.
	Chart string
	// Version is that of the release, such as v1.2.3.
	Version string
}

// kubernetes is a version that the chart takes: Helm knows no cluster here.
const kubernetes = "1.32.0"

const head = `# Blixt %[1]s and all that it needs, for clusters without Helm:
#
#   kubectl apply --server-side -f install.yaml
#
# Where somebody else has installed Gateway API, leave out its kinds:
#
#   kubectl apply --server-side -f install.yaml --selector '%[2]s!=gateway.networking.k8s.io'
#
# To remove Blixt, but keep what people wrote, and the kinds that they wrote it in:
#
#   blixt uninstall --yes --with-bpfman
#   kubectl delete -f install.yaml --selector '!%[2]s'
#
# This is what helm template makes of the chart of that version, with its own values.
---
apiVersion: v1
kind: Namespace
metadata:
  name: ` + Namespace + `
`

// Render returns the objects of the chart as Helm would install them, with their
// namespace. It leaves out hooks, which only Helm runs: what they do, blixt uninstall does.
func Render(ctx context.Context, o Options) ([]byte, error) {
	text, err := template(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("helm template %s: %w", o.Chart, err)
	}
	objects, err := labelled(text)
	if err != nil {
		return nil, fmt.Errorf("read what helm template makes of %s: %w", o.Chart, err)
	}
	return append(fmt.Appendf(nil, head, o.Version, KeptLabel), objects...), nil
}

func template(ctx context.Context, o Options) ([]byte, error) {
	home, err := os.MkdirTemp("", "helm")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(home)
	c := exec.CommandContext(ctx, o.Helm, "template", "blixt", o.Chart, "--namespace="+Namespace, "--no-hooks", "--skip-tests", "--kube-version="+kubernetes)
	for _, v := range os.Environ() { // no plugins and no cluster of whoever runs this
		if !strings.HasPrefix(v, "HELM_") && !strings.HasPrefix(v, "KUBE") {
			c.Env = append(c.Env, v)
		}
	}
	for _, kind := range []string{"CACHE", "CONFIG", "DATA"} {
		c.Env = append(c.Env, "HELM_"+kind+"_HOME="+filepath.Join(home, kind))
	}
	var complaint bytes.Buffer
	c.Stderr = &complaint
	text, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, &complaint)
	}
	return text, nil
}

// labelled gives what is to be kept its label, and leaves all else as it is.
func labelled(text []byte) ([]byte, error) {
	var out bytes.Buffer
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		document = append(bytes.Trim(bytes.TrimPrefix(document, []byte("---\n")), "\n"), '\n')
		var object struct {
			Kind     string
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, err
		}
		if object.Kind == "" { // comments alone
			continue
		}
		if object.Metadata.Annotations["helm.sh/resource-policy"] == "keep" {
			value := object.Metadata.Name
			if _, group, is := strings.Cut(value, "."); is { // of kinds, and of what belongs to them
				value = group
			}
			var err error
			if document, err = withLabel(document, value); err != nil {
				return nil, fmt.Errorf("%s %s: %w", object.Kind, object.Metadata.Name, err)
			}
		}
		fmt.Fprintf(&out, "---\n%s", document)
	}
	return out.Bytes(), nil
}

// withLabel returns the document with KeptLabel.
func withLabel(document []byte, value string) ([]byte, error) {
	var node yaml.Node
	if err := yaml.Unmarshal(document, &node); err != nil {
		return nil, err
	}
	metadata := field(node.Content[0], "metadata")
	if metadata == nil {
		return nil, errors.New("it has no metadata")
	}
	labels := field(metadata, "labels")
	if labels == nil {
		labels = &yaml.Node{Kind: yaml.MappingNode}
		metadata.Content = append(metadata.Content, scalar("labels"), labels)
	}
	labels.Content = append(labels.Content, scalar(KeptLabel), scalar(value))
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return nil, err
	}
	return out.Bytes(), encoder.Close()
}

func scalar(value string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: value} }

// field returns the value of a field.
func field(object *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(object.Content); i += 2 {
		if object.Content[i].Value == name {
			return object.Content[i+1]
		}
	}
	return nil
}

// Images returns the images that the objects name, in the order of their names.
func Images(text []byte) ([]string, error) {
	names := map[string]bool{}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var object any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return slices.Sorted(maps.Keys(names)), nil
		}
		if err != nil {
			return nil, err
		}
		find(object, names)
	}
}

// bytecodeFlag is how the operator is told which bytecode nodes are to run.
const bytecodeFlag = "--bytecode="

// find finds names of images below a value.
func find(value any, names map[string]bool) {
	switch value := value.(type) {
	case map[string]any:
		if image, ok := value["image"].(string); ok {
			names[image] = true
		}
		for _, below := range value {
			find(below, names)
		}
	case []any:
		for _, below := range value {
			if flag, ok := below.(string); ok && strings.HasPrefix(flag, bytecodeFlag) {
				names[strings.TrimPrefix(flag, bytecodeFlag)] = true
			}
			find(below, names)
		}
	}
}
