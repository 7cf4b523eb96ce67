// SPDX-License-Identifier: Apache-2.0

// Schemagen writes ../schema.json. In: the chart's CRDs, those of Gateway API and those of
// Blixt that have rules. Out: their schemas without descriptions and status.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/yaml"
)

// files are the CRDs of Gateway API's kinds that are read.
var files = []string{"gatewayclasses", "gateways", "listenersets", "referencegrants", "tcproutes", "udproutes"}

// own are the chart's CRDs.
var own = []string{"../../charts/blixt/files/crds/blixt.x-k8s.io_blixtpolicies.yaml"}

func main() {
	if err := run("schema.json"); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	crds := map[string]string{} // to their version
	for _, name := range files {
		crds["../../charts/blixt/files/gateway-api/"+name+".yaml"] = "v1"
	}
	for _, file := range own {
		crds[file] = "v1alpha1"
	}
	all := map[string]any{}
	for file, version := range crds {
		kind, schema, err := read(file, version)
		if err != nil {
			return fmt.Errorf("read %s: %w", file, err)
		}
		all[kind] = schema
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(all); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return os.WriteFile(path, text.Bytes(), 0o644)
}

// read returns a CRD's kind and the schema of a version.
func read(file, want string) (string, any, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	var crd struct {
		Spec struct {
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return "", nil, err
	}
	for _, version := range crd.Spec.Versions {
		if version.Name == want {
			schema := version.Schema.OpenAPIV3Schema
			delete(schema["properties"].(map[string]any), "status")
			return crd.Spec.Names.Kind, trim(schema, false), nil
		}
	}
	return "", nil, fmt.Errorf("no version %s", want)
}

// trim drops descriptions, but not fields that are called description.
func trim(value any, names bool) any {
	switch v := value.(type) {
	case map[string]any:
		for key := range v {
			if key == "description" && !names {
				delete(v, key)
				continue
			}
			v[key] = trim(v[key], key == "properties" && !names)
		}
	case []any:
		for i := range v {
			v[i] = trim(v[i], false)
		}
	}
	return value
}
