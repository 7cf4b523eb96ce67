// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// A golden file lists the operator's rights, so that a change is noticed.
func TestPermissions(t *testing.T) {
	objects := mustTemplate(t, "--set=config.addresses.source=Node")
	got := permissions("", find[rbacv1.ClusterRole](t, objects, "ClusterRole", "blixt-operator").Rules) +
		permissions(namespace, find[rbacv1.Role](t, objects, "Role", "blixt-operator").Rules) +
		permissions("kube-system", find[rbacv1.Role](t, objects, "Role", "blixt-operator-kube-proxy").Rules)
	golden.File(t, "testdata/permissions.txt", []byte(got))
	for _, word := range []string{"*", "impersonate", "escalate", "bind"} {
		if slices.Contains(strings.Fields(strings.ReplaceAll(got, ",", " ")), word) {
			t.Errorf("%q is among the permissions", word)
		}
	}
	agent := slices.DeleteFunc(names(objects), func(n string) bool { return !strings.Contains(n, "RoleBinding/") })
	if diff := cmp.Diff([]string{"ClusterRoleBinding/blixt-observer", "ClusterRoleBinding/blixt-operator", "RoleBinding/blixt-operator", "RoleBinding/blixt-operator-kube-proxy"}, agent); diff != "" {
		t.Errorf("bindings (-want +got):\n%s", diff)
	}
}

// permissions returns a line for each resource.
func permissions(namespace string, rules []rbacv1.PolicyRule) string {
	var lines []string
	for _, r := range rules {
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				line := strings.TrimSuffix(resource+"."+group, ".")
				if namespace != "" {
					line = namespace + ": " + line
				}
				if len(r.ResourceNames) > 0 {
					line += " " + strings.Join(r.ResourceNames, ",")
				}
				lines = append(lines, line+"  "+strings.Join(r.Verbs, ",")+"\n")
			}
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// Each rule has a comment that says what it is for.
func TestRulesAreExplained(t *testing.T) {
	for _, file := range []string{"clusterrole.yaml", "role.yaml", "pullsecret-role.yaml", "kubeproxy-role.yaml"} {
		data, err := os.ReadFile("templates/" + file)
		if err != nil {
			t.Fatal(err)
		}
		explained := false
		for i, line := range strings.Split(string(data), "\n") {
			switch {
			case strings.HasPrefix(line, "  #"):
				explained = true
			case strings.HasPrefix(line, "  - apiGroups:") && !explained:
				t.Errorf("%s:%d: a rule without a comment", file, i+1)
			case strings.HasPrefix(line, "rules:"):
				explained = false
			}
		}
	}
}

// asAccount returns a client with the rights that the installed chart grants an account.
func asAccount(t *testing.T, ns, account string) client.Client {
	t.Helper()
	config, err := server.AsServiceAccount(t.Context(), ns, account)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: kube.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOperatorMakesNoSecretButItsOwn(t *testing.T) {
	ns := install(t)
	c := asAccount(t, ns, "blixt-operator")
	apply := func(name string) error {
		secret := corev1apply.Secret(name, ns).WithStringData(map[string]string{"tls.crt": "x"})
		return c.Apply(t.Context(), secret, client.FieldOwner("blixt-operator"), client.ForceOwnership)
	}
	for range 2 { // made, then changed
		for _, name := range []string{"blixt-tls", "blixt-seed", "blixt-metrics"} {
			if err := apply(name); err != nil {
				t.Error(err)
			}
		}
	}
	configMap := corev1apply.ConfigMap("blixt-ca", ns).WithData(map[string]string{"ca.crt": "x"})
	if err := c.Apply(t.Context(), configMap, client.FieldOwner("blixt-operator"), client.ForceOwnership); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"apply another Secret": apply("other"),
		"create a Secret":      c.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "blixt-tls2"}}),
		"list ConfigMaps":      c.List(t.Context(), &corev1.ConfigMapList{}, client.InNamespace("kube-system")),
		"list Secrets":         c.List(t.Context(), &corev1.SecretList{}, client.InNamespace(ns)),
		"delete a Pod of others": c.Delete(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "etcd"},
		}),
		"read a Secret of others": c.Get(t.Context(), client.ObjectKey{Namespace: "kube-system", Name: "blixt-tls"},
			&corev1.Secret{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want that it is forbidden", name, err)
		}
	}
}

// An agent's account has no more rights than an account without any role.
func TestAgentMayDoNothing(t *testing.T) {
	ns := install(t)
	if err := server.Client.Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "nobody"}}); err != nil {
		t.Fatal(err)
	}
	want := rules(t, asAccount(t, ns, "nobody"), ns)
	if diff := cmp.Diff(want, rules(t, asAccount(t, ns, "blixt-agent"), ns)); diff != "" {
		t.Errorf("rules (-an account without roles +blixt-agent):\n%s", diff)
	}
}

func rules(t *testing.T, c client.Client, ns string) (all []string) {
	t.Helper()
	review := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: ns}}
	if err := c.Create(context.Background(), review); err != nil {
		t.Fatal(err)
	}
	for _, r := range review.Status.ResourceRules {
		all = append(all, fmt.Sprint(r.APIGroups, r.Resources, r.ResourceNames, r.Verbs))
	}
	slices.Sort(all)
	return all
}
