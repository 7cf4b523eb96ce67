// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// newPolicy returns a policy for a route.
func newPolicy(name string, spec v1alpha1.BlixtPolicySpec) *v1alpha1.BlixtPolicy {
	policy := &v1alpha1.BlixtPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: spec}
	if policy.Spec.TargetRefs == nil {
		policy.Spec.TargetRefs = append(policy.Spec.TargetRefs, gwv1.LocalPolicyTargetReferenceWithSectionName{
			LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: gwv1.GroupName, Kind: "TCPRoute", Name: "web"},
		})
	}
	return policy
}

// networks returns n networks, of both families, that are written as long as they can be.
func networks(first, n int) (all []string) {
	for i := first; i < first+n; i++ {
		if i%2 == 0 {
			all = append(all, fmt.Sprintf("2001:0db8:0000:0000:0000:0000:%04x:%04x/128", i>>16, i&0xffff))
		} else {
			all = append(all, fmt.Sprintf("198.%d.%d.%d/32", 100+i>>16, i>>8&255, i&255))
		}
	}
	return all
}

// Lists of 10,000 networks are applied, changed and read; one more is refused, as is one
// network with bits behind its prefix among so many.
func TestLongLists(t *testing.T) {
	policy := newPolicy("long", v1alpha1.BlixtPolicySpec{Sources: &v1alpha1.PolicySources{Allow: networks(0, 5000), Deny: networks(5000, 5000)}})
	policy.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("BlixtPolicy"))
	apply := func() error {
		object := &unstructured.Unstructured{Object: map[string]any{}}
		if err := server.Client.Scheme().Convert(policy, object, nil); err != nil {
			t.Fatal(err)
		}
		unstructured.RemoveNestedField(object.Object, "status")
		return server.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("kubectl"), client.ForceOwnership)
	}
	if err := apply(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Client.Delete(t.Context(), policy.DeepCopy()) })
	policy.Spec.Sources.Deny = networks(9000, 5000)
	if err := apply(); err != nil {
		t.Fatalf("apply again: %v", err)
	}
	got := &v1alpha1.BlixtPolicy{}
	if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(policy), got); err != nil {
		t.Fatal(err)
	}
	want := policy.Spec.Sources.DeepCopy()
	want.Action = v1alpha1.ActionDrop
	if diff := cmp.Diff(want, got.Spec.Sources); diff != "" {
		t.Errorf("stored lists (-want +got):\n%s", diff)
	}
	for _, f := range got.ManagedFields {
		if n := len(f.FieldsV1.GetRawBytes()); n > 1000 {
			t.Errorf("fields managed by %s take %d bytes: they must not name each network", f.Manager, n)
		}
	}

	policy.Spec.Sources.Deny = networks(9000, 5001)
	if err := apply(); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "more than 10000 networks together") {
		t.Errorf("10,001 networks: got %v", err)
	}
	policy.Spec.Sources.Deny = networks(9000, 5000)
	policy.Spec.Sources.Deny[4999] = "198.51.100.1/24"
	if err := apply(); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "198.51.100.1/24 has bits behind the prefix: write 198.51.100.0/24") {
		t.Errorf("a bad network among 10,000: got %v", err)
	}
}

// foreign are fields of types that Kubernetes and Gateway API describe.
var foreign = regexp.MustCompile(`\.(conditions|ancestors|resources|tolerations|namespaces|nodes)$`)

// kubectl explain has something to say about every field of all kinds, and so has the
// reference.
func TestEveryFieldIsExplained(t *testing.T) {
	fields := 0
	var walk func(path string, s apiextv1.JSONSchemaProps)
	walk = func(path string, s apiextv1.JSONSchemaProps) {
		fields++
		if len(s.Description) < 10 {
			t.Errorf("%s has no description", path)
		}
		if foreign.MatchString(path) {
			return
		}
		for name, p := range s.Properties {
			walk(path+"."+name, p)
		}
		if s.Items != nil {
			for name, p := range s.Items.Schema.Properties {
				walk(path+"[]."+name, p)
			}
		}
	}
	for _, name := range v1alpha1.CRDs {
		plural, _, _ := strings.Cut(name, ".")
		data, err := os.ReadFile("../../../charts/blixt/files/crds/blixt.x-k8s.io_" + plural + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"spec", "status"} {
			if schema, has := crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties[part]; has {
				walk(crd.Spec.Names.Kind+" "+part, schema)
			}
		}
	}
	if fields < 180 {
		t.Errorf("only %d fields", fields)
	}
}
