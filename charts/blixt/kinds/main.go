// SPDX-License-Identifier: Apache-2.0

// Command kinds copies into the chart the kinds that Blixt needs and others define:
// those of bpfman, mended, which come from its module in go.mod, and of the copies in
// gateway-api six of Gateway API and the policy for their upgrades.
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
	const gatewayAPI = "kinds/gateway-api"
	if err := published(gatewayAPI, gatewayAPIVersion, gatewayAPISum); err != nil {
		return err
	}
	bpfman, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bpfman/bpfman-operator").Output()
	if err != nil {
		return fmt.Errorf("find module of bpfman-operator: %w", err)
	}
	for _, source := range []struct {
		file, to string
		names    []string
	}{
		{gatewayAPI + "/standard/gateway.networking.k8s.io_%s.yaml", "gateway-api/%s.yaml",
			[]string{"gatewayclasses", "gateways", "listenersets", "referencegrants", "tcproutes", "udproutes"}},
		{strings.TrimSpace(string(bpfman)) + "/config/crd/bases/bpfman.io_%s.yaml", "bpfman/%s.yaml",
			[]string{"bpfapplications", "bpfapplicationstates", "clusterbpfapplications", "clusterbpfapplicationstates", "configs"}},
	} {
		for _, name := range source.names {
			if err := copyObjects(fmt.Sprintf(source.file, name), filepath.Join(out, fmt.Sprintf(source.to, name))); err != nil {
				return err
			}
		}
	}
	return copyObjects(gatewayAPI+"/standard/gateway.networking.k8s.io_vap_safeupgrades.yaml",
		filepath.Join(out, "safe-upgrades/policy.yaml"), filepath.Join(out, "safe-upgrades/binding.yaml"))
}

// copyObjects writes the objects of a file, each into one of its own and with its keys sorted.
func copyObjects(from string, to ...string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	objects := split(text)
	if len(objects) != len(to) {
		return fmt.Errorf("read %s: it has %d objects, not %d", from, len(objects), len(to))
	}
	for i, text := range objects {
		var object map[string]any
		if err := yaml.Unmarshal(text, &object); err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
		delete(object, "status") // the API server's
		widen(object)
		if text, err = yaml.Marshal(object); err != nil {
			return err
		}
		if err := os.WriteFile(to[i], text, 0o644); err != nil {
			return err
		}
	}
	return nil
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
