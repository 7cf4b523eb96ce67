// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// fieldsOf are what Blixt does with the fields of a kind.
type fieldsOf struct {
	Kind   string
	Fields []fieldUse
}

// fieldUse is a field, and what Blixt does with it.
type fieldUse struct {
	Field string
	// Does is reads, ignores or refuses. With is the condition by which it refuses, Said
	// what blixt check says of a field that is ignored, Note is for readers.
	Does, With, Said, Note string
	// Set is the value that shows it, Given one that is there before, and Where the name of
	// the object that is changed: by default the first one of the kind.
	Set   any
	Given *struct {
		Field string
		Set   any
	}
	Where string
}

func readFields(t *testing.T) []fieldsOf {
	t.Helper()
	text, err := os.ReadFile("testdata/fields/fields.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all []fieldsOf
	if err := yaml.UnmarshalStrict(text, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestFields proves what the reference says of each field: it is changed in objects that are
// served, and what follows is compared.
func TestFields(t *testing.T) {
	base, err := os.ReadFile("testdata/fields/base.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range readFields(t) {
		for _, f := range kind.Fields {
			t.Run(fmt.Sprintf("%s %s %v", kind.Kind, f.Field, f.Set), func(t *testing.T) {
				before := splitDocuments(base)
				if f.Given != nil {
					before = change(t, before, kind.Kind, f.Where, f.Given.Field, f.Given.Set)
				}
				was, wasSaid := outcome(t, before)
				is, said := outcome(t, change(t, before, kind.Kind, f.Where, f.Field, f.Set))
				switch f.Does {
				case "reads":
					if is == was {
						t.Error("it is ignored, and listed as read")
					}
				case "ignores":
					if diff := cmp.Diff(was, is); diff != "" {
						t.Errorf("it is not ignored (-before +after):\n%s", diff)
					}
					if got := said != wasSaid && strings.Contains(said, f.Said); f.Said != "" && !got || f.Said == "" && said != wasSaid {
						t.Errorf("want %q said of it, got (-before +after):\n%s", f.Said, cmp.Diff(wasSaid, said))
					}
				case "refuses":
					if f.With == "" || strings.Count(is, f.With) <= strings.Count(was, f.With) {
						t.Errorf("want %q, got (-before +after):\n%s", f.With, cmp.Diff(was, is))
					}
				default:
					t.Errorf("does %q", f.Does)
				}
			})
		}
	}
}

// outcome is what the objects come to, and what blixt check says of them besides.
func outcome(t *testing.T, documents [][]byte) (served, said string) {
	t.Helper()
	var c testCase
	for _, doc := range documents {
		var meta struct{ Kind string }
		if err := yaml.Unmarshal(doc, &meta); err != nil {
			t.Fatal(err)
		}
		if err := c.add(meta.Kind, doc); err != nil {
			t.Fatal(err)
		}
	}
	translation := c.translate()
	return string(render(t, c)), fmt.Sprint(translation.Remarks(&c.Objects, c.Slices))
}

// change returns the documents with another value of a field in the object of a kind and,
// if one is given, name.
func change(t *testing.T, documents [][]byte, kind, name, field string, value any) [][]byte {
	t.Helper()
	documents = slices.Clone(documents)
	for i, doc := range documents {
		var object map[string]any
		if err := yaml.Unmarshal(doc, &object); err != nil {
			t.Fatal(err)
		}
		meta, _ := object["metadata"].(map[string]any)
		if object["kind"] != kind || name != "" && meta["name"] != name {
			continue
		}
		set(t, object, field, value)
		text, err := yaml.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		documents[i] = text
		return documents
	}
	t.Fatalf("base.yaml has no %s %s", kind, name)
	return nil
}

var item = regexp.MustCompile(`^(\w+)(?:\[(\d*)\])?$`)

// set sets a field. Of a list without a number it is that of the first item.
func set(t *testing.T, object map[string]any, path string, value any) {
	t.Helper()
	first, rest, more := strings.Cut(path, ".")
	m := item.FindStringSubmatch(first)
	if m == nil {
		t.Fatalf("cannot read the path %s", path)
	}
	name := m[1]
	if !more {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = value
		}
		return
	}
	if list, is := object[name].([]any); is && strings.Contains(first, "[") {
		n, _ := strconv.Atoi(m[2]) // none: the first
		set(t, list[n].(map[string]any), rest, value)
		return
	}
	below, is := object[name].(map[string]any)
	if !is {
		below = map[string]any{}
		object[name] = below
	}
	set(t, below, rest, value)
}

// Every field that there is has its place in the list, and the list has no others.
func TestFieldsAreComplete(t *testing.T) {
	for _, kind := range readFields(t) {
		known := knownFields(t, kind.Kind)
		if len(known) < 6 {
			t.Fatalf("%s: found only %v", kind.Kind, known)
		}
		for _, f := range kind.Fields {
			if !slices.ContainsFunc(known, func(leaf string) bool { return below(leaf, f.Field) }) && f.Field != "metadata.labels" {
				t.Errorf("%s has no field %s", kind.Kind, f.Field)
			}
		}
		for _, leaf := range known {
			if !slices.ContainsFunc(kind.Fields, func(f fieldUse) bool { return below(leaf, f.Field) }) {
				t.Errorf("%s: nothing is said of %s", kind.Kind, leaf)
			}
		}
	}
}

// below reports whether a field is another one, or a part of it.
func below(leaf, field string) bool {
	rest, is := strings.CutPrefix(leaf, field)
	return is && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// knownFields are the fields of a kind that have no fields of their own.
func knownFields(t *testing.T, kind string) (all []string) {
	t.Helper()
	switch kind {
	case "Service":
		return goFields("spec", reflect.TypeFor[corev1.ServiceSpec]())
	case "EndpointSlice":
		for _, f := range goFields("", reflect.TypeFor[discoveryv1.EndpointSlice]()) {
			if !strings.HasPrefix(f, "metadata") && f != "kind" && f != "apiVersion" {
				all = append(all, f)
			}
		}
		return all
	}
	text, err := os.ReadFile(filepath.Join("../../charts/blixt/files/gateway-api", strings.ToLower(kind)+"s.yaml"))
	if kind == "GatewayClass" {
		text, err = os.ReadFile("../../charts/blixt/files/gateway-api/gatewayclasses.yaml")
	}
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		t.Fatal(err)
	}
	for _, v := range crd.Spec.Versions {
		if v.Name == "v1" {
			return schemaFields("spec", v.Schema.OpenAPIV3Schema.Properties["spec"])
		}
	}
	t.Fatalf("%s has no version v1", kind)
	return nil
}

func schemaFields(path string, s apiextv1.JSONSchemaProps) (all []string) {
	if s.Items != nil && len(s.Items.Schema.Properties) > 0 {
		return schemaFields(path+"[]", *s.Items.Schema)
	}
	for name, p := range s.Properties {
		all = append(all, schemaFields(path+"."+name, p)...)
	}
	if len(all) == 0 {
		return []string{path}
	}
	return all
}

// goFields are the fields of a struct by the names that they have in JSON. Types of other
// packages, such as intstr.IntOrString, have none.
func goFields(path string, of reflect.Type) (all []string) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		if of.Kind() == reflect.Slice && of.Elem().Kind() == reflect.Struct {
			path += "[]"
		}
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.HasPrefix(of.PkgPath(), "k8s.io/api/") || of == reflect.TypeFor[corev1.ObjectReference]() {
		return []string{path}
	}
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		all = append(all, goFields(strings.TrimPrefix(path+"."+name, "."), of.Field(i).Type)...)
	}
	return all
}
