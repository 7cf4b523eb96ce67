// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/control/fleet"
)

// TestTokens shows the API server's tokens to it, as the operator may.
func TestTokens(t *testing.T) {
	o := prepare(t)
	o.must(grant())
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "agent"},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: "blixt-agent", Containers: []corev1.Container{{Name: "agent", Image: "agent"}}},
	}
	o.create(pod)
	bound := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	token := func(account, audience string, to *authenticationv1.BoundObjectReference) string {
		t.Helper()
		token, err := server.Token(t.Context(), namespace, account, authenticationv1.TokenRequestSpec{Audiences: []string{audience}, BoundObjectRef: to})
		o.must(err)
		return token
	}
	other := *pod
	other.ObjectMeta, other.Spec.ServiceAccountName = metav1.ObjectMeta{Namespace: namespace, Name: "other"}, "blixt-operator"
	o.create(&other)
	gone := *pod
	gone.ObjectMeta = metav1.ObjectMeta{Namespace: namespace, Name: "gone"}
	o.create(&gone)
	replayed := token("blixt-agent", fleet.Audience, &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: gone.Name, UID: gone.UID})
	o.must(o.kube.Delete(t.Context(), &gone, client.GracePeriodSeconds(0)))

	good := token("blixt-agent", fleet.Audience, bound)
	parts := strings.Split(good, ".")
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	o.must(err)
	with := func(old, new string) string {
		t.Helper()
		changed := strings.Replace(string(claims), old, new, 1)
		if changed == string(claims) {
			t.Fatalf("the claims %s have no %s", claims, old)
		}
		return strings.Join([]string{parts[0], base64.RawURLEncoding.EncodeToString([]byte(changed)), parts[2]}, ".")
	}

	config, err := server.AsServiceAccount(t.Context(), namespace, "blixt-operator")
	o.must(err)
	kube, err := kubernetes.NewForConfig(config)
	o.must(err)
	review := fleet.TokenReviewer(kube.AuthenticationV1().TokenReviews(), fleet.Audience, types.NamespacedName{Namespace: namespace, Name: "blixt-agent"})
	if got, err := review(t.Context(), good); err != nil || got != (fleet.Identity{Node: "n1", Pod: namespace + "/agent"}) {
		t.Errorf("an agent's token: %+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		token string
		want  fleet.Reason
	}{
		"nonsense":                    {"nonsense", fleet.ReasonToken},
		"of nobody":                   {with(`"n1"`, `"n2"`), fleet.ReasonToken},
		"that has expired":            {with(`"exp":`, `"exp":1,"_":`), fleet.ReasonExpired},
		"for the API server":          {token("blixt-agent", "https://kubernetes.default.svc", bound), fleet.ReasonAudience},
		"of another ServiceAccount":   {token("blixt-operator", fleet.Audience, &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: other.Name, UID: other.UID}), fleet.ReasonAccount},
		"of no Pod":                   {token("blixt-agent", fleet.Audience, nil), fleet.ReasonUnbound},
		"of a Pod that is gone":       {replayed, fleet.ReasonToken},
		"of another Pod of that name": {with(string(pod.UID), "00000000-0000-0000-0000-000000000000"), fleet.ReasonToken},
	} {
		got, err := review(t.Context(), c.token)
		refused, is := errors.AsType[*fleet.RefusedError](err)
		if !is || refused.Reason != c.want {
			t.Errorf("a token %s: %+v, %v, want it refused as %s", name, got, err, c.want)
		}
	}
}
