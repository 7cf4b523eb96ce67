// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The copies are what Gateway API has published, and whoever changes one is told.
func TestPublished(t *testing.T) {
	if err := published("gateway-api", gatewayAPIVersion, gatewayAPISum); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(folder string) error
		says   string
	}{
		"a changed kind": {func(f string) error {
			return edit(f+"/standard/gateway.networking.k8s.io_tcproutes.yaml", "maxItems: 32", "maxItems: 33")
		}, "tcproutes.yaml is not as Gateway API v1.7.0 has published it"},
		"a changed kind and its digest": {func(f string) error {
			file := f + "/standard/gateway.networking.k8s.io_tcproutes.yaml"
			before := sha256Of(file)
			if err := edit(file, "maxItems: 32", "maxItems: 33"); err != nil {
				return err
			}
			return edit(f+"/module.sums", before, sha256Of(file))
		}, "module.sums is of a module with sum h1:"},
		"a kind of another channel": {func(f string) error {
			return os.Rename(f+"/experimental/gateway.networking.k8s.io_gateways.yaml", f+"/standard/gateway.networking.k8s.io_gateways.yaml")
		}, "standard/gateway.networking.k8s.io_gateways.yaml is not as"},
		"a file of somebody else": {func(f string) error { return os.WriteFile(f+"/standard/more.yaml", nil, 0o644) }, "standard/more.yaml is not as"},
		"no licence":              {func(f string) error { return os.Remove(f + "/LICENSE") }, "lacks LICENSE"},
		"a kind is missing": {func(f string) error {
			return os.Remove(f + "/standard/gateway.networking.k8s.io_vap_safeupgrades.yaml")
		}, "lacks config/crd/standard/gateway.networking.k8s.io_vap_safeupgrades.yaml"},
	} {
		folder := t.TempDir()
		if err := os.CopyFS(folder, os.DirFS("gateway-api")); err != nil {
			t.Fatal(err)
		}
		if err := c.change(folder); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := published(folder, gatewayAPIVersion, gatewayAPISum); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %q", name, err, c.says)
		}
	}
}

func sha256Of(file string) string {
	out, err := exec.Command("sha256sum", file).Output()
	if err != nil {
		panic(err)
	}
	return string(out[:64])
}

// edit replaces what a file has, and fails if it has none.
func edit(file, before, after string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(text), before, after, 1)
	if changed == string(text) {
		return fmt.Errorf("%s has no %q", file, before)
	}
	return os.WriteFile(file, []byte(changed), 0o644)
}

// The Go types that read the kinds are of Gateway API 1.6. They read these kinds as well, as
// nothing but descriptions and messages differs in the standard channel, and the
// experimental one has a few fields and rules more. A release of which this is not true
// fails here.
func TestSameSchemas(t *testing.T) {
	module, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	differ := map[string]bool{}
	for _, channel := range []string{"standard", "experimental"} {
		for _, kind := range []string{"gatewayclasses", "gateways", "listenersets", "referencegrants", "tcproutes", "udproutes"} {
			file := channel + "/gateway.networking.k8s.io_" + kind + ".yaml"
			before, after := flat(t, filepath.Join(strings.TrimSpace(string(module)), "config/crd", file)), flat(t, filepath.Join("gateway-api", file))
			for what, value := range after {
				if before[what] != value {
					differ[channel+" "+kind+" "+what.path] = true
				}
				delete(before, what)
			}
			for what := range before {
				t.Errorf("%s lacks %s of %s", file, what.key, what.path)
			}
		}
	}
	if diff := cmp.Diff([]string{
		"experimental gateways spec.addresses[].routability",
		"experimental gateways spec.listeners[]", // a rule for the field filters
		"experimental gateways spec.listeners[].filters",
		"experimental gateways spec.tls.frontend.default.validation.caCertificateRefs",
		"experimental gateways spec.tls.frontend.perPort[].tls.validation.caCertificateRefs",
		"experimental gateways status.addresses[].routability",
		"experimental listenersets spec.listeners[].filters",
		"experimental tcproutes spec.rules[].backendRefs[]", // a rule for XBackend
		"experimental udproutes spec.rules[].backendRefs[]",
	}, slices.Sorted(maps.Keys(differ))); diff != "" {
		t.Errorf("what differs (-want +got):\n%s", diff)
	}
}

// said is what a schema says of a field.
type said struct{ path, key string }

// flat returns what the schema of a CRD says that Blixt reads.
func flat(t *testing.T, file string) map[said]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Name            string
				Served, Storage bool
				Schema          struct{ OpenAPIV3Schema map[string]any }
				Subresources    map[string]any
			}
		}
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	all := map[said]string{}
	for _, v := range crd.Spec.Versions {
		all[said{"", v.Name}] = fmt.Sprint(v.Served, v.Storage, v.Subresources)
		if v.Name == "v1" {
			flatten(all, "", v.Schema.OpenAPIV3Schema)
		}
	}
	if all[said{"", "v1"}] == "" {
		t.Fatalf("%s has no version v1", file)
	}
	return all
}

func flatten(all map[said]string, path string, schema map[string]any) {
	if before, _, is := strings.Cut(path, ".filters"); is { // all that is below is as new as the field
		path = before + ".filters"
	}
	for key, value := range schema {
		switch key {
		case "description":
		case "properties":
			for name, property := range value.(map[string]any) {
				flatten(all, strings.TrimPrefix(path+"."+name, "."), property.(map[string]any))
			}
		case "items":
			flatten(all, path+"[]", value.(map[string]any))
		case "x-kubernetes-validations":
			for _, rule := range value.([]any) {
				all[said{path, "rule " + rule.(map[string]any)["rule"].(string)}] = "is there"
			}
		default:
			text, err := json.Marshal(value)
			if err != nil {
				panic(err)
			}
			all[said{path, key}] = string(text)
		}
	}
}
