// SPDX-License-Identifier: Apache-2.0

// Package chart_test renders, checks and installs the chart with Helm itself.
package chart_test

//go:generate go run ./kinds
//go:generate go run github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2 --chart-search-root=. --sort-values-order=file --log-level=warning

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
)

// What make test-apiserver builds.
const (
	helm3 = "helm-v3.22.0"
	helm4 = "helm-v4.3.2"
)

var helms = []string{helm3, helm4}

const (
	namespace = "blixt-system"
	// oldest is the oldest Kubernetes that the chart is for.
	oldest = "--kube-version=" + doctor.OldestKubernetes
	values = "--values=ci/values.yaml"
)

// server is shared by all tests.
var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{}, &server)) }

// run runs Helm 3, and returns what it prints.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return runHelm(t, helm3, args...)
}

// runHelm runs one of both, and returns what it prints.
func runHelm(t *testing.T, helm string, args ...string) (string, error) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "blixt", helm)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no Helm: make test-apiserver builds it (%v)", err)
	}
	c := exec.Command(path, args...)
	home := t.TempDir() // no configuration of the user
	c.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+os.DevNull)
	out, err := c.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = errors.New(string(exit.Stderr))
	}
	return string(out), err
}

// blixtAlone leaves out what others define, which is 15,000 lines of YAML.
const blixtAlone = "--set=bpfman.enabled=false,gatewayAPI.install=false"

// template renders the chart with the required values and further flags; without bpfman and
// Gateway API, unless flags say otherwise.
func template(t *testing.T, flags ...string) ([]*unstructured.Unstructured, error) {
	t.Helper()
	args := []string{"template", "blixt", ".", "--namespace=" + namespace, oldest, values, blixtAlone}
	out, err := run(t, append(args, flags...)...)
	if err != nil {
		return nil, err
	}
	return kube.Decode([]byte(out))
}

func mustTemplate(t *testing.T, flags ...string) []*unstructured.Unstructured {
	t.Helper()
	objects, err := template(t, flags...)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// names lists objects as kind/name, sorted, without the CRDs.
func names(objects []*unstructured.Unstructured) (all []string) {
	for _, o := range objects {
		if o.GetKind() != "CustomResourceDefinition" {
			all = append(all, o.GetKind()+"/"+o.GetName())
		}
	}
	slices.Sort(all)
	return all
}

// find returns an object, converted to its Kubernetes type.
func find[T any](t *testing.T, objects []*unstructured.Unstructured, kind, name string) *T {
	t.Helper()
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			typed := new(T)
			if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, typed, true); err != nil {
				t.Fatalf("%s %s: %v", kind, name, err)
			}
			return typed
		}
	}
	t.Fatalf("no %s %s among %v", kind, name, names(objects))
	return nil
}

func TestLint(t *testing.T) {
	for _, flags := range [][]string{nil, everything} {
		out, err := run(t, append([]string{"lint", ".", "--strict", oldest, values}, flags...)...)
		if err != nil {
			t.Errorf("helm lint %v: %v%s", flags, err, out)
		}
	}
}

// All documents name the same oldest Kubernetes.
func TestOldestKubernetes(t *testing.T) {
	minor := strings.TrimSuffix(doctor.OldestKubernetes, ".0")
	for file, want := range map[string]string{
		"Chart.yaml":                            `kubeVersion: ">=` + doctor.OldestKubernetes + `-0"`,
		"README.md":                             "Kubernetes " + minor + " or newer",
		"../../README.md":                       "Kubernetes " + minor + ", nodes with",
		"../../operator/control/fleet/token.go": "Kubernetes " + minor + " or later",
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", file, want)
		}
	}
}
