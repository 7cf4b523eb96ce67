// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// The API server takes the examples that the reference shows, one at least of each kind, and
// knows each field of them.
func TestExamplesOfTheReference(t *testing.T) {
	files, err := filepath.Glob("../../../docs/reference/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d examples: %v", len(files), err)
	}
	create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mail"}})
	var kinds []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			example := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(doc), &example.Object); err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, example.GetKind())
			t.Run(example.GetKind()+" "+example.GetName(), func(t *testing.T) { take(t, example) })
		}
	}
	for _, kind := range []string{"BlixtPolicy", "BlixtGatewayConfig", "BlixtConfig", "NodeDataplane", "GatewayClass", "Gateway",
		"ListenerSet", "TCPRoute", "UDPRoute", "ReferenceGrant", "Service", "EndpointSlice"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("there is no example of a %s", kind)
		}
	}
}

// take creates an object, with its status, and deletes it.
func take(t *testing.T, example *unstructured.Unstructured) {
	t.Helper()
	if mapping, err := server.Client.RESTMapper().RESTMapping(example.GroupVersionKind().GroupKind()); err != nil {
		t.Fatal(err)
	} else if example.GetNamespace() == "" && mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		example.SetNamespace("default")
	}
	status := example.Object["status"]
	if err := server.Client.Create(t.Context(), example, client.FieldValidation("Strict")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Client.Delete(context.Background(), example) })
	if status == nil {
		return
	}
	example.Object["status"] = status
	if err := server.Client.Status().Update(t.Context(), example, client.FieldValidation("Strict")); err != nil {
		t.Error(err)
	}
}
