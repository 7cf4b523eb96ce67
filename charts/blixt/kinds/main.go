// SPDX-License-Identifier: Apache-2.0

// Command kinds copies into the chart the kinds that Blixt needs and others define:
// those of bpfman, mended, and six of Gateway API. They come from the modules in go.mod.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if err := run("files"); err != nil {
		fmt.Fprintln(os.Stderr, "kinds:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	for _, source := range []struct {
		module, file, to string
		plurals          []string
	}{
		{"sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_%s.yaml", "gateway-api",
			[]string{"gatewayclasses", "gateways", "listenersets", "referencegrants", "tcproutes", "udproutes"}},
		{"github.com/bpfman/bpfman-operator", "config/crd/bases/bpfman.io_%s.yaml", "bpfman",
			[]string{"bpfapplications", "bpfapplicationstates", "clusterbpfapplications", "clusterbpfapplicationstates", "configs"}},
	} {
		dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", source.module).Output()
		if err != nil {
			return fmt.Errorf("find module %s: %w", source.module, err)
		}
		for _, plural := range source.plurals {
			from := filepath.Join(strings.TrimSpace(string(dir)), fmt.Sprintf(source.file, plural))
			if err := copyKind(from, filepath.Join(out, source.to, plural+".yaml")); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyKind writes the CRD of a file, with its keys sorted.
func copyKind(from, to string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	var crd map[string]any
	if err := yaml.Unmarshal(text, &crd); err != nil {
		return fmt.Errorf("read %s: %w", from, err)
	}
	delete(crd, "status") // the API server's
	widen(crd)
	if text, err = yaml.Marshal(crd); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

// widen gives each linkId of a schema 64 bits, and returns how many it has changed.
// bpfman's link ids are 32 bits without a sign, of which int32 refuses every second one.
func widen(schema any) (changed int) {
	switch v := schema.(type) {
	case []any:
		for _, item := range v {
			changed += widen(item)
		}
	case map[string]any:
		for name, item := range v {
			if id, ok := item.(map[string]any); ok && name == "linkId" && id["format"] == "int32" {
				id["format"] = "int64"
				changed++
			}
			changed += widen(item)
		}
	}
	return changed
}
