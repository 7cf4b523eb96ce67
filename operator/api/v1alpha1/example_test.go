// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// The API server takes the example that the reference shows of each kind, and knows each
// field of it.
func TestExamplesOfTheReference(t *testing.T) {
	for _, crd := range v1alpha1.CRDs {
		plural, _, _ := strings.Cut(crd, ".")
		singular := strings.TrimSuffix(plural, "s")
		if s, is := strings.CutSuffix(plural, "ies"); is {
			singular = s + "y"
		}
		t.Run(singular, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join("../../../docs/reference/examples", singular+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			example := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict(text, &example.Object); err != nil {
				t.Fatal(err)
			}
			if newObject(example.GetKind()).GetNamespace() != "" {
				example.SetNamespace("default")
			}
			status := example.Object["status"]
			if err := server.Client.Create(t.Context(), example, client.FieldValidation("Strict")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Client.Delete(t.Context(), example) })
			if status == nil {
				return
			}
			example.Object["status"] = status
			if err := server.Client.Status().Update(t.Context(), example, client.FieldValidation("Strict")); err != nil {
				t.Error(err)
			}
		})
	}
}
