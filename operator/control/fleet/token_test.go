// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// reviewer answers as an API server does.
type reviewer struct {
	client.TokenReviewInterface
	status authenticationv1.TokenReviewStatus
	err    error
	asked  int
}

func (r *reviewer) Create(_ context.Context, in *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.asked++
	out := in.DeepCopy()
	out.Status = r.status
	return out, r.err
}

func jwt(t *testing.T, claims map[string]any) string {
	t.Helper()
	if claims["sub"] == nil {
		claims["sub"] = "system:serviceaccount:blixt:agent"
	}
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(text) + ".c2ln"
}

func TestTokenReviewer(t *testing.T) {
	hour := time.Now().Add(time.Hour).Unix()
	good := jwt(t, map[string]any{"aud": []string{Audience}, "exp": hour})
	status := func(change func(*authenticationv1.TokenReviewStatus)) authenticationv1.TokenReviewStatus {
		s := authenticationv1.TokenReviewStatus{
			Authenticated: true, Audiences: []string{Audience},
			User: authenticationv1.UserInfo{Username: "system:serviceaccount:blixt:agent", Extra: map[string]authenticationv1.ExtraValue{
				extraNode: {"n1"}, extraPod: {"agent-x"},
			}},
		}
		if change != nil {
			change(&s)
		}
		return s
	}
	for name, c := range map[string]struct {
		token  string
		status authenticationv1.TokenReviewStatus
		reason Reason // "": let in
		asked  int
	}{
		"an agent's":                {good, status(nil), "", 1},
		"audience alone":            {jwt(t, map[string]any{"aud": Audience, "exp": hour}), status(nil), "", 1},
		"no JWT":                    {"x", status(nil), ReasonToken, 0},
		"no claims":                 {"a.b.c", status(nil), ReasonToken, 0},
		"another audience":          {jwt(t, map[string]any{"aud": []string{"https://kubernetes"}, "exp": hour}), status(nil), ReasonAudience, 0},
		"expired":                   {jwt(t, map[string]any{"aud": []string{Audience}, "exp": time.Now().Add(-time.Second).Unix()}), authenticationv1.TokenReviewStatus{Error: "token has expired"}, ReasonExpired, 1},
		"operator's clock is ahead": {jwt(t, map[string]any{"aud": []string{Audience}, "exp": time.Now().Add(-24 * time.Hour).Unix()}), status(nil), "", 1},
		"of another account":        {jwt(t, map[string]any{"aud": []string{Audience}, "exp": hour, "sub": "system:serviceaccount:evil:agent"}), status(nil), ReasonAccount, 0},
		"never expires":             {jwt(t, map[string]any{"aud": []string{Audience}}), status(nil), ReasonExpired, 0},
		"deleted Pod":               {good, authenticationv1.TokenReviewStatus{Error: "pod is gone"}, ReasonToken, 1},
		"signed by another":         {good, authenticationv1.TokenReviewStatus{Error: "square/go-jose: error"}, ReasonToken, 1},
		"audience unchecked":        {good, status(func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }), ReasonAudience, 1},
		"another account": {good, status(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:blixt:default" }),
			ReasonAccount, 1},
		"another namespace": {good, status(func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:evil:agent" }),
			ReasonAccount, 1},
		"no node":   {good, status(func(s *authenticationv1.TokenReviewStatus) { delete(s.User.Extra, extraNode) }), ReasonUnbound, 1},
		"no Pod":    {good, status(func(s *authenticationv1.TokenReviewStatus) { delete(s.User.Extra, extraPod) }), ReasonUnbound, 1},
		"two nodes": {good, status(func(s *authenticationv1.TokenReviewStatus) { s.User.Extra[extraNode] = []string{"n1", "n2"} }), ReasonUnbound, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := &reviewer{status: c.status}
			id, err := TokenReviewer(r, Audience, types.NamespacedName{Namespace: "blixt", Name: "agent"})(t.Context(), c.token)
			var got Reason
			if why, ok := errors.AsType[*RefusedError](err); ok {
				got = why.Reason
			}
			if got != c.reason || (err == nil) != (c.reason == "") || r.asked != c.asked {
				t.Errorf("%+v, %v after %d questions, want %q after %d", id, err, r.asked, c.reason, c.asked)
			}
			if want := (Identity{Node: "n1", Pod: "blixt/agent-x"}); err == nil && id != want {
				t.Errorf("%+v, want %+v", id, want)
			}
		})
	}
	r := &reviewer{err: errors.New("no route to host")}
	_, err := TokenReviewer(r, Audience, types.NamespacedName{Namespace: "blixt", Name: "agent"})(t.Context(), good)
	if _, is := errors.AsType[*RefusedError](err); err == nil || is {
		t.Errorf("an API server that is away is a reason to refuse for good: %v", err)
	}
}
