// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"net/http"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/controller"
)

// TestReviewsOfReadersOfMetrics has the API server review its tokens, as the operator may.
func TestReviewsOfReadersOfMetrics(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	admin, err := kubernetes.NewForConfig(server.Config)
	o.must(err)
	const role = "blixt-metrics-reader"
	_, err = admin.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: role}, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
	}, metav1.CreateOptions{})
	o.must(err)
	t.Cleanup(func() {
		o.must(admin.RbacV1().ClusterRoles().Delete(context.Background(), role, metav1.DeleteOptions{}))
	})
	_, err = admin.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: "prometheus"}},
	}, metav1.CreateOptions{})
	o.must(err)
	t.Cleanup(func() {
		o.must(admin.RbacV1().ClusterRoleBindings().Delete(context.Background(), role, metav1.DeleteOptions{}))
	})
	for _, name := range []string{"prometheus", "other", "gone"} {
		o.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
	}
	token := func(account, audience string) string {
		t.Helper()
		token, err := server.Token(t.Context(), namespace, account, authenticationv1.TokenRequestSpec{Audiences: []string{audience}})
		o.must(err)
		return token
	}
	gone := token("gone", v1alpha1.MetricsAudience)
	o.must(admin.CoreV1().ServiceAccounts(namespace).Delete(t.Context(), "gone", metav1.DeleteOptions{}))

	config, err := server.AsServiceAccount(t.Context(), namespace, "blixt-operator")
	o.must(err)
	kube, err := kubernetes.NewForConfig(config)
	o.must(err)
	reviews := controller.NewMetricsReviews(kube)
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"of who may":              {token("prometheus", v1alpha1.MetricsAudience), http.StatusOK},
		"of who may not":          {token("other", v1alpha1.MetricsAudience), http.StatusForbidden},
		"for the API server":      {token("prometheus", "https://kubernetes.default.svc"), http.StatusUnauthorized},
		"of an account that went": {gone, http.StatusUnauthorized},
		"that nobody has signed":  {token("prometheus", v1alpha1.MetricsAudience) + "x", http.StatusUnauthorized},
		"of nothing":              {"nonsense", http.StatusUnauthorized},
	} {
		if got, err := reviews.Check(t.Context(), c.token); err != nil || got.Code != c.code {
			t.Errorf("a token %s: %+v, %v, want %d", name, got, err, c.code)
		}
	}
}
