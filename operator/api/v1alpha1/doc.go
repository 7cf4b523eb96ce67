// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the kinds that Blixt adds to Kubernetes. People write
// BlixtConfig (what the administrator decides for a class of Gateways) and
// BlixtGatewayConfig (what the owner of a Gateway may decide); the operator
// writes NodeDataplane, which is what administrators audit.
//
// +kubebuilder:object:generate=true
// +groupName=blixt.x-k8s.io
package v1alpha1

//go:generate go tool controller-gen object crd paths=. output:crd:dir=../../../charts/blixt/files/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of all kinds here.
var GroupVersion = schema.GroupVersion{Group: "blixt.x-k8s.io", Version: "v1alpha1"}

// AddToScheme makes a scheme know the kinds.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&BlixtConfig{}, &BlixtConfigList{},
		&BlixtGatewayConfig{}, &BlixtGatewayConfigList{},
		&NodeDataplane{}, &NodeDataplaneList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
