// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// argo applies objects as Argo CD does, and returns their versions and what has failed.
func argo(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) (versions map[string]string, failed []error) {
	versions = map[string]string{}
	for _, o := range objects {
		o := o.DeepCopy()
		if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(o), client.FieldOwner("argocd-controller"), client.ForceOwnership); err != nil {
			failed = append(failed, err)
			continue
		}
		versions[o.GetKind()+"/"+o.GetName()] = o.GetResourceVersion()
	}
	return versions, failed
}

// What Argo CD gets of helm template goes into an empty cluster at once. Applied again it
// changes nothing: else Argo CD would never be in sync.
func TestArgoCDGetsInSync(t *testing.T) {
	empty, err := kube.Start(t.Context(), kube.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(empty.Stop)
	dir := unpackInto(t, t.TempDir(), packed(t))
	application := objectsOf(t, readFile(t, "examples/argocd.yaml"))[0]
	set, _, err := unstructured.NestedMap(application.Object, "spec", "source", "helm", "valuesObject")
	if err != nil {
		t.Fatal(err)
	}
	text := renderWith(t, dir, set)
	if again := renderWith(t, dir, set); again != text {
		t.Errorf("rendered twice (-first +second):\n%s", cmp.Diff(text, again))
	}
	objects := slices.DeleteFunc(objectsOf(t, text), func(o *unstructured.Unstructured) bool {
		return o.GetAnnotations()["helm.sh/hook"] != ""
	})
	if err := empty.Client.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil { // CreateNamespace=true
		t.Fatal(err)
	}
	if first, failed := argo(t.Context(), empty.Client, objects); len(failed) > 0 || len(first) != len(objects) {
		t.Fatalf("%d objects of %d are applied: %v", len(first), len(objects), failed)
	}
	time.Sleep(time.Second) // the API server adds its conditions to CRDs
	settled, failed := argo(t.Context(), empty.Client, objects)
	if len(failed) > 0 {
		t.Fatal(failed)
	}
	again, failed := argo(t.Context(), empty.Client, objects)
	if diff := cmp.Diff(settled, again); diff != "" || len(failed) > 0 {
		t.Errorf("versions after it was applied again (%v) (-before +after):\n%s", failed, diff)
	}
}
