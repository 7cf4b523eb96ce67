// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	client "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// Audience is the audience of agents' tokens.
const Audience = "operator.blixt.x-k8s.io"

// The extra fields of a TokenReview for a token that belongs to a Pod.
const (
	extraNode = "authentication.kubernetes.io/node-name"
	extraPod  = "authentication.kubernetes.io/pod-name"
)

// TokenReviewer returns a function for ServerOptions.Authenticate that asks the
// API server. It accepts Pods of one ServiceAccount with a token for one
// audience. The API server refuses a token that has expired or whose Pod is
// gone. After a change of leader all agents come within seconds, so the client
// should not have client-go's default limit of a few queries per second.
func TokenReviewer(c client.TokenReviewInterface, audience string, account types.NamespacedName) func(context.Context, string) (Identity, error) {
	user := fmt.Sprintf("system:serviceaccount:%s:%s", account.Namespace, account.Name)
	return func(ctx context.Context, token string) (Identity, error) {
		expires, err := precheck(token, audience, user)
		if err != nil {
			return Identity{}, err
		}
		review, err := c.Create(ctx, &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
		}, metav1.CreateOptions{})
		if err != nil {
			return Identity{}, fmt.Errorf("review token: %w", err)
		}
		st := review.Status
		switch {
		case !st.Authenticated && !time.Now().Before(expires):
			return Identity{}, refused(ReasonExpired, "the token has expired")
		case !st.Authenticated:
			return Identity{}, refused(ReasonToken, "the API server does not know the token")
		case !slices.Contains(st.Audiences, audience):
			return Identity{}, refused(ReasonAudience, fmt.Sprintf("the token is not for audience %q", audience))
		case st.User.Username != user:
			return Identity{}, refused(ReasonAccount, fmt.Sprintf("the token is of %s, and agents are %s", st.User.Username, user))
		}
		node, pod := single(st.User.Extra[extraNode]), single(st.User.Extra[extraPod])
		if node == "" || pod == "" {
			return Identity{}, refused(ReasonUnbound, "the token names no Pod and node: it must be a projected one, of Kubernetes 1.32 or later")
		}
		return Identity{Node: node, Pod: account.Namespace + "/" + pod}, nil
	}
}

func single(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// precheck refuses tokens whose own claims are wrong, whoever signed them. It
// spares the API server a review, and tells the reasons apart. When the token
// expires is for the API server to judge: the operator's clock may be wrong.
func precheck(token, audience, user string) (expires time.Time, err error) {
	var claims struct {
		Audiences audiences `json:"aud"`
		Subject   string    `json:"sub"`
		Expires   int64     `json:"exp"`
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return expires, refused(ReasonToken, "the token is none of a ServiceAccount")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return expires, refused(ReasonToken, "the token is none of a ServiceAccount")
	}
	switch {
	case !slices.Contains(claims.Audiences, audience):
		return expires, refused(ReasonAudience, fmt.Sprintf("the token is not for audience %q", audience))
	case claims.Subject != user:
		return expires, refused(ReasonAccount, fmt.Sprintf("the token is of %q, and agents are %s", clip(claims.Subject), user))
	case claims.Expires == 0:
		return expires, refused(ReasonExpired, "the token never expires")
	}
	return time.Unix(claims.Expires, 0), nil
}

// audiences are a JSON list or, if there is only one, a string.
type audiences []string

func (a *audiences) UnmarshalJSON(text []byte) error {
	var alone string
	if json.Unmarshal(text, &alone) == nil {
		*a = audiences{alone}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}
