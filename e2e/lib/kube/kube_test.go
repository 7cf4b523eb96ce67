// SPDX-License-Identifier: Apache-2.0

package kube_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

var server *kube.Server

func TestMain(m *testing.M) { os.Exit(kube.Run(m, kube.Options{WideLinkIDs: true}, &server)) }

func create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := server.Client.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKindsAreServed(t *testing.T) {
	var crds apiextensionsv1.CustomResourceDefinitionList
	if err := server.Client.List(t.Context(), &crds); err != nil {
		t.Fatal(err)
	}
	groups := map[string]int{}
	for _, crd := range crds.Items {
		groups[crd.Spec.Group]++
		gvk := metav1.GroupVersionKind{Group: crd.Spec.Group, Version: crd.Spec.Versions[0].Name, Kind: crd.Spec.Names.ListKind}
		list := &metav1.PartialObjectMetadataList{TypeMeta: metav1.TypeMeta{Kind: gvk.Kind, APIVersion: gvk.Group + "/" + gvk.Version}}
		if err := server.Client.List(t.Context(), list); err != nil {
			t.Errorf("list %s: %v", crd.Name, err)
		}
	}
	want := map[string]int{"gateway.networking.k8s.io": 10, "bpfman.io": 5, "blixt.x-k8s.io": 4}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Errorf("kinds of each group (-want +got):\n%s", diff)
	}
}

// TestAsServiceAccount checks that a ServiceAccount has the permissions that RBAC
// grants it, and no others.
func TestAsServiceAccount(t *testing.T) {
	namespace := server.Namespace(t)
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "reader"}
	create(t,
		&corev1.ServiceAccount{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list"}}}},
		&rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "reader"}},
		})
	config, err := server.AsServiceAccount(t.Context(), namespace, "reader")
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	list := func() (bool, error) { // a binding takes a moment
		return true, c.List(t.Context(), &corev1.SecretList{}, client.InNamespace(namespace))
	}
	kube.Wait(t, 5*time.Second, "list secrets as the account", true, list)
	if err := c.List(t.Context(), &corev1.SecretList{}); !apierrors.IsForbidden(err) {
		t.Errorf("list secrets of all namespaces: got %v, want forbidden", err)
	}
}

// TestTokenReview checks that a token is valid for the audience that it was requested
// for, and names the pod and the node that it is bound to.
func TestTokenReview(t *testing.T) {
	namespace := server.Namespace(t)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-of-" + namespace}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "pod"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "agent", NodeName: node.Name,
			Containers: []corev1.Container{{Name: "agent", Image: "agent"}},
		},
	}
	create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent"}}, node, pod)
	token, err := server.Token(t.Context(), namespace, "agent", authenticationv1.TokenRequestSpec{
		Audiences:      []string{"blixt"},
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "pod", UID: pod.UID},
	})
	if err != nil {
		t.Fatal(err)
	}
	review := func(audience string) authenticationv1.TokenReviewStatus {
		r := &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}}}
		create(t, r)
		return r.Status
	}

	got := review("blixt")
	if !got.Authenticated || !slices.Equal(got.Audiences, []string{"blixt"}) || got.User.Username != "system:serviceaccount:"+namespace+":agent" {
		t.Errorf("review for its audience: got %+v", got)
	}
	for key, want := range map[string]string{"pod-name": "pod", "pod-uid": string(pod.UID), "node-name": node.Name} {
		if extra := got.User.Extra["authentication.kubernetes.io/"+key]; !slices.Equal(extra, []string{want}) {
			t.Errorf("%s of the token: got %q, want %q", key, extra, want)
		}
	}
	if got := review(kube.Issuer); got.Authenticated {
		t.Errorf("review for another audience: got %+v, want not authenticated", got)
	}
}

func TestApplyYAML(t *testing.T) {
	namespace := server.Namespace(t)
	text := func(value string) []byte {
		return []byte(`# a comment
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: ` + namespace + `}
data: {key: ` + value + `}
---
`)
	}
	for _, value := range []string{"one", "two"} {
		if err := server.ApplyYAML(t.Context(), text(value)); err != nil {
			t.Fatal(err)
		}
		var got corev1.ConfigMap
		if err := server.Client.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "a"}, &got); err != nil {
			t.Fatal(err)
		}
		if got.Data["key"] != value {
			t.Errorf("got %v, want %q", got.Data, value)
		}
	}
}
