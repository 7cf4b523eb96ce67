// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the kinds that Blixt adds to Kubernetes. Administrators
// write BlixtConfig, for a class of Gateways and the data plane. Owners of
// Gateways write BlixtGatewayConfig. The operator writes NodeDataplane, which
// administrators audit.
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

// GroupName is the group of all kinds here, and the domain of conditions.
const GroupName = "blixt.x-k8s.io"

// GroupVersion is the group and version of all kinds here.
var GroupVersion = schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}

// AddToScheme registers the kinds with a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&BlixtConfig{}, &BlixtConfigList{},
		&BlixtGatewayConfig{}, &BlixtGatewayConfigList{},
		&BlixtPolicy{}, &BlixtPolicyList{},
		&NodeDataplane{}, &NodeDataplaneList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
