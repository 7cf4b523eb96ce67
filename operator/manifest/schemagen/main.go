// SPDX-License-Identifier: Apache-2.0

// Schemagen writes ../schema.json. In: the CRDs in the module of Gateway API
// that go.mod names. Out: their schemas without descriptions and status.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// files are the CRDs of the kinds that are read.
var files = []string{"gatewayclasses", "gateways", "listenersets", "referencegrants", "tcproutes", "udproutes"}

func main() {
	if err := run("schema.json"); err != nil {
		fmt.Fprintln(os.Stderr, "schemagen:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return fmt.Errorf("find module: %w", err)
	}
	all := map[string]any{}
	for _, name := range files {
		file := filepath.Join(strings.TrimSpace(string(dir)), "config", "crd", "standard", "gateway.networking.k8s.io_"+name+".yaml")
		kind, schema, err := read(file)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
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

// read returns a CRD's kind and the schema of its version v1.
func read(file string) (string, any, error) {
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
		if version.Name == "v1" {
			schema := version.Schema.OpenAPIV3Schema
			delete(schema["properties"].(map[string]any), "status")
			return crd.Spec.Names.Kind, trim(schema, false), nil
		}
	}
	return "", nil, fmt.Errorf("no version v1")
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
