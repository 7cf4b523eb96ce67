// SPDX-License-Identifier: Apache-2.0

// Package access has the API server say whose a token is, and what its owner may do.
package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// ErrUnknown is returned for a token that the API server does not know, or that is for
// another audience.
var ErrUnknown = errors.New("the API server does not know the token, or it is for another audience")

// User returns whose a token for an audience is.
func User(ctx context.Context, kube kubernetes.Interface, token, audience string) (authenticationv1.UserInfo, error) {
	review, err := kube.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("review token: %w", err)
	}
	// An API server that knows no audiences returns none.
	if st := review.Status; !st.Authenticated || st.User.Username == "" || !slices.Contains(st.Audiences, audience) {
		return authenticationv1.UserInfo{}, ErrUnknown
	}
	return review.Status.User, nil
}

// May reports whether a user may do what the attributes of a review say.
func May(ctx context.Context, kube kubernetes.Interface, who authenticationv1.UserInfo, what authorizationv1.SubjectAccessReviewSpec) (bool, error) {
	what.User, what.UID, what.Groups, what.Extra = who.Username, who.UID, who.Groups, map[string]authorizationv1.ExtraValue{}
	for key, values := range who.Extra {
		what.Extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: what}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("review right: %w", err)
	}
	return review.Status.Allowed && !review.Status.Denied, nil
}
