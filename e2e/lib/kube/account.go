// SPDX-License-Identifier: Apache-2.0

package kube

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Token requests a token of an existing ServiceAccount, as the kubelet does: for
// audiences, a pod that it is bound to, and seconds.
func (s *Server) Token(ctx context.Context, namespace, name string, spec authenticationv1.TokenRequestSpec) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	request := &authenticationv1.TokenRequest{Spec: spec}
	if err := s.Client.SubResource("token").Create(ctx, account, request); err != nil {
		return "", fmt.Errorf("request token of ServiceAccount %s/%s: %w", namespace, name, err)
	}
	return request.Status.Token, nil
}

// AsServiceAccount returns a configuration that has the permissions of an existing
// ServiceAccount.
func (s *Server) AsServiceAccount(ctx context.Context, namespace, name string) (*rest.Config, error) {
	token, err := s.Token(ctx, namespace, name, authenticationv1.TokenRequestSpec{})
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(s.Config)
	config.BearerToken = token
	return config, nil
}
