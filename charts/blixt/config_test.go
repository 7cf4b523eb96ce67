// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// wanted is a config with values that YAML may mangle: PEM, numbers, empty lists.
const wanted = `
  addresses:
    source: Pool
    pool: [192.0.2.0/28, "2001:db8::1"]
    reservedPorts: []
  dataplane:
    priority: 7
    drainTimeout: 0s
    interfaces:
      discover: {allow: ["/eth[0-9]+/"], exclude: []}
    nodes:
      matchLabels: {serves: "true"}
    bytecode:
      image: registry.example.com/blixt/bytecode@sha256:2222222222222222222222222222222222222222222222222222222222222222
      verificationKeys:
      - |
        -----BEGIN PUBLIC KEY-----
        MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE
        -----END PUBLIC KEY-----
`

// given decodes the BlixtConfig in the operator's ConfigMap, strictly.
func given(t *testing.T, m *corev1.ConfigMap) *unstructured.Unstructured {
	t.Helper()
	text := []byte(m.Data["blixtconfig.yaml"])
	if err := yaml.UnmarshalStrict(text, &v1alpha1.BlixtConfig{}); err != nil {
		t.Fatalf("the operator cannot read its config: %v\n%s", err, text)
	}
	return decode(t, text)
}

func decode(t *testing.T, text []byte) *unstructured.Unstructured {
	t.Helper()
	objects, err := kube.Decode(text)
	if err != nil || len(objects) != 1 {
		t.Fatalf("want one object (%v) in:\n%s", err, text)
	}
	return objects[0]
}

// apply applies an object as the operator does, without changing it.
func apply(t *testing.T, c client.Client, object *unstructured.Unstructured) error {
	t.Helper()
	return c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object.DeepCopy()), client.FieldOwner("blixt-operator"), client.ForceOwnership)
}

// operator returns a client with the rights of a release's operator, once the
// API server grants them and serves the kinds.
func operator(t *testing.T, ns string) client.Client {
	t.Helper()
	c := asAccount(t, ns, "blixt-operator")
	kube.Wait(t, 10*time.Second, "the operator may list BlixtConfigs", true, func() (bool, error) {
		err := c.List(t.Context(), &v1alpha1.BlixtConfigList{})
		return err == nil, err
	})
	return c
}

func TestConfigArrivesWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, []byte("config:"+wanted), 0o600); err != nil {
		t.Fatal(err)
	}
	got := given(t, find[corev1.ConfigMap](t, mustTemplate(t, "--values="+file), "ConfigMap", "blixt-config"))
	want := decode(t, []byte("apiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtConfig\nmetadata: {name: blixt}\nspec:"+wanted))
	want.SetLabels(got.GetLabels())
	if diff := cmp.Diff(want.Object, got.Object); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if err := server.Client.Create(t.Context(), got, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict)); err != nil {
		t.Error(err)
	}
}

func TestOperatorAppliesNoConfigButItsOwn(t *testing.T) {
	ns := install(t, "--set=config.addresses.source=Node")
	c := operator(t, ns)
	config := given(t, get[corev1.ConfigMap](t, ns, "blixt-config"))
	t.Cleanup(func() { forget(t, config) })
	for _, source := range []string{"Node", "LoadBalancer"} { // made, then changed
		if err := unstructured.SetNestedField(config.Object, source, "spec", "addresses", "source"); err != nil {
			t.Fatal(err)
		}
		if err := apply(t, c, config); err != nil {
			t.Error(err)
		}
	}
	other := config.DeepCopy()
	other.SetName("other")
	for name, err := range map[string]error{
		"apply another":  apply(t, c, other),
		"delete its own": c.Delete(t.Context(), config.DeepCopy()),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want that it is forbidden", name, err)
		}
	}
}

func TestOperatorWithoutConfigAppliesNone(t *testing.T) {
	c := operator(t, install(t))
	config := decode(t, []byte("apiVersion: blixt.x-k8s.io/v1alpha1\nkind: BlixtConfig\nmetadata: {name: blixt}\n"))
	if err := apply(t, c, config); !apierrors.IsForbidden(err) {
		t.Errorf("got %v, want that it is forbidden", err)
	}
}
