// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
)

// Helm rejects what the BlixtConfig's schema rejects, before anything changes: the
// schema of the value config is that of the spec. Only the API server evaluates
// the rules in CEL.
func TestSchemaOfConfig(t *testing.T) {
	text, err := os.ReadFile("files/crds/blixt.x-k8s.io_blixtconfigs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	want, err := json.MarshalIndent(inHelm(crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]), "    ", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const file = "values.schema.json"
	if text, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	before, after, found := bytes.Cut(text, []byte("\n    \"config\": "))
	var got json.RawMessage
	rest := json.NewDecoder(bytes.NewReader(after))
	if err := rest.Decode(&got); !found || err != nil {
		t.Fatalf("no schema of config in %s: %v", file, err)
	}
	golden.File(t, file, slices.Concat(before, []byte("\n    \"config\": "), want, after[rest.InputOffset():]))
}

// inHelm converts a schema of a CRD into one of values: it rejects unknown fields,
// and allows null, which removes a value.
func inHelm(s apiextensionsv1.JSONSchemaProps) map[string]any {
	out := map[string]any{}
	if s.Type != "" {
		out["type"] = []string{s.Type, "null"}
	}
	if s.XIntOrString {
		out["type"] = []string{"integer", "string", "null"}
	}
	if len(s.Enum) > 0 {
		out["enum"] = slices.Concat(s.Enum, []apiextensionsv1.JSON{{Raw: []byte("null")}})
	}
	for key, value := range map[string]*float64{"minimum": s.Minimum, "maximum": s.Maximum} {
		if value != nil {
			out[key] = *value
		}
	}
	for key, value := range map[string]*int64{"minLength": s.MinLength, "maxLength": s.MaxLength, "minItems": s.MinItems, "maxItems": s.MaxItems} {
		if value != nil {
			out[key] = *value
		}
	}
	if s.Pattern != "" && !s.XIntOrString {
		out["pattern"] = s.Pattern
	}
	if s.Items != nil {
		out["items"] = inHelm(*s.Items.Schema)
	}
	if len(s.Properties) > 0 {
		properties := map[string]any{}
		for name, p := range s.Properties {
			properties[name] = inHelm(p)
		}
		out["properties"], out["additionalProperties"] = properties, false
	}
	if s.AdditionalProperties != nil {
		out["additionalProperties"] = inHelm(*s.AdditionalProperties.Schema)
	}
	if len(s.Required) > 0 {
		out["required"] = s.Required
	}
	return out
}

// Helm itself rejects an invalid config as far as a schema can describe it, and
// accepts null, which removes a value.
func TestWrongConfigIsRefused(t *testing.T) {
	for flag, says := range map[string]string{
		"--set=config.addresses.source=DHCP":                                                     "addresses/source",
		"--set=config.addresses.pol={192.0.2.1}":                                                 "pol",
		"--set=config.addresses.pool=192.0.2.1":                                                  "addresses/pool",
		"--set=config.dataplane.priority=1001":                                                   "dataplane/priority",
		"--set=config.dataplane.interfaces.names={eth0123456789012}":                             "interfaces/names/0",
		"--set=config.dataplane.nodes.matchLables.a=b":                                           "matchLables",
		"--set=config.dataplane.snatPorts.first=1":                                               "last",
		"--set=config.dataplane.agent.resources.limits.memory=1Gi":                               "",
		"--set=config.dataplane.agent.tolerations[0].operator=Exists,config.addresses.pool=null": "",
	} {
		t.Run(strings.TrimPrefix(flag, "--set="), func(t *testing.T) {
			t.Parallel()
			_, err := template(t, flag)
			if says == "" && err != nil {
				t.Errorf("got error %v, want none", err)
			}
			if says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
				t.Errorf("got error %v, want one with %q", err, says)
			}
		})
	}
}
