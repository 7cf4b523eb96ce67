// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// examples returns the files of values, and those for GitOps.
func examples(t *testing.T) (ofValues, ofGitOps []string) {
	t.Helper()
	files, err := filepath.Glob("examples/*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("examples: %v (%v)", files, err)
	}
	for _, file := range files {
		if text := readFile(t, file); strings.Contains(text, "\napiVersion:") {
			ofGitOps = append(ofGitOps, file)
		} else {
			ofValues = append(ofValues, file)
		}
	}
	return ofValues, ofGitOps
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// accepts checks that an API server takes objects, of which Gateway API's and bpfman's
// kinds, and Blixt's, exist.
func accepts(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	ns := server.Namespace(t)
	for _, o := range objects {
		if o.GetKind() == "CustomResourceDefinition" {
			continue // other tests have the server take them
		}
		if o.GetNamespace() != "" {
			o.SetNamespace(ns)
		}
		if err := server.Client.Create(t.Context(), o, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
			t.Errorf("%s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
}

// acceptsConfig checks that an API server takes the config of a chart, if it has one.
func acceptsConfig(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	for _, name := range names(objects) {
		if name == "ConfigMap/blixt-config" {
			config := given(t, find[corev1.ConfigMap](t, objects, "ConfigMap", "blixt-config"))
			if err := server.Client.Create(t.Context(), config, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
				t.Error(err)
			}
		}
	}
}

// Each example makes objects of the published chart, by either Helm, that an API server takes.
func TestExamplesOfValues(t *testing.T) {
	foreign(t)
	dir := unpackInto(t, t.TempDir(), packed(t))
	ofValues, _ := examples(t)
	for _, file := range ofValues {
		t.Run(filepath.Base(file), func(t *testing.T) {
			var all []string
			for _, helm := range helms {
				out, err := runHelm(t, helm, "template", "blixt", dir, "--namespace="+namespace, oldest, "--values="+file)
				if err != nil {
					t.Fatalf("%s: %v", helm, err)
				}
				all = append(all, documents(out))
			}
			if all[0] != all[1] {
				t.Errorf("%v make different objects", helms)
			}
			objects := objectsOf(t, all[0])
			acceptsConfig(t, objects)
			accepts(t, objects)
		})
	}
}

// A mirror has to have every image: none comes from elsewhere.
func TestMirrorHasAllImages(t *testing.T) {
	out, err := run(t, "template", "blixt", unpackInto(t, t.TempDir(), packed(t)), "--namespace="+namespace, oldest, "--values=examples/mirror.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const mirror = "registry.example.com:5000/mirror/"
	found := 0
	for _, o := range objectsOf(t, out) {
		for _, image := range imagesIn(o.Object) {
			found++
			if !strings.HasPrefix(image, mirror) {
				t.Errorf("%s %s has image %s, want it from %s", o.GetKind(), o.GetName(), image, mirror)
			}
		}
	}
	if found < 8 {
		t.Errorf("%d images, want more", found)
	}
}

// imagesIn returns the images in an object: those of containers, and those that are
// arguments.
func imagesIn(v any) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		for key, inside := range v {
			if image, ok := inside.(string); ok && key == "image" {
				all = append(all, image)
			} else {
				all = append(all, imagesIn(inside)...)
			}
		}
	case []any:
		for _, inside := range v {
			if argument, ok := inside.(string); ok {
				for _, flag := range []string{"--agent-image=", "--bytecode="} {
					if image, ok := strings.CutPrefix(argument, flag); ok {
						all = append(all, image)
					}
				}
			}
			all = append(all, imagesIn(inside)...)
		}
	}
	return all
}

// moduleDir returns where the source of a module of others is, which go.mod does not have.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	out, err := exec.Command("go", "mod", "download", "-json", module).Output()
	if err != nil {
		t.Fatalf("download %s: %v", module, err)
	}
	var found struct{ Dir string }
	if err := yaml.Unmarshal(out, &found); err != nil {
		t.Fatal(err)
	}
	return found.Dir
}

// gitOpsKinds defines the kinds of Argo CD and Flux.
func gitOpsKinds(t *testing.T) {
	t.Helper()
	define(t, filepath.Join(moduleDir(t, "github.com/argoproj/argo-cd/v3@v3.5.0"), "manifests/crds/application-crd.yaml"))
	define(t, filepath.Join(moduleDir(t, "github.com/fluxcd/source-controller@v1.9.0"), "config/crd/bases/source.toolkit.fluxcd.io_ocirepositories.yaml"))
	// Of this one there are only the types.
	out := t.TempDir()
	generator := exec.Command("go", "tool", "-n", "controller-gen")
	path, err := generator.Output()
	if err != nil {
		t.Fatal(err)
	}
	generate := exec.Command(strings.TrimSpace(string(path)), "crd", "paths=./v2", "output:crd:dir="+out)
	generate.Dir = moduleDir(t, "github.com/fluxcd/helm-controller/api@v1.6.0")
	generate.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
	if text, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("generate kinds of Flux: %v: %s", err, text)
	}
	define(t, filepath.Join(out, "helm.toolkit.fluxcd.io_helmreleases.yaml"))
}

// Argo CD's and Flux's own kinds take the examples, and the chart takes the values in them.
func TestExamplesOfGitOps(t *testing.T) {
	gitOpsKinds(t)
	dir := unpackInto(t, t.TempDir(), packed(t))
	_, ofGitOps := examples(t)
	for _, file := range ofGitOps {
		t.Run(filepath.Base(file), func(t *testing.T) {
			objects := objectsOf(t, readFile(t, file))
			values := 0
			for _, o := range objects {
				for _, path := range [][]string{{"spec", "values"}, {"spec", "source", "helm", "valuesObject"}} {
					set, ok, err := unstructured.NestedMap(o.Object, path...)
					if err != nil {
						t.Fatal(err)
					}
					if ok {
						values++
						acceptsConfig(t, objectsOf(t, renderWith(t, dir, set)))
					}
				}
			}
			if values != 1 {
				t.Errorf("%d times values for the chart, want once", values)
			}
			accepts(t, objects)
		})
	}
}

// renderWith renders a chart as Argo CD does, with values.
func renderWith(t *testing.T, dir string, values map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, "template", "blixt", dir, "--namespace="+namespace, "--include-crds", oldest, "--values="+file)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
