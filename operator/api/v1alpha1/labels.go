// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// The labels and annotations by which the operator and the administrators'
// commands find objects, besides Gateway API's own.
const (
	// ManagedByLabel names who manages an object.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// Manager is the operator's name in that label and as a field manager.
	Manager = "blixt-operator"
	// ServiceProxyLabel makes kube-proxy ignore a Service.
	ServiceProxyLabel = "service.kubernetes.io/service-proxy-name"
	// LastGoodConfigAnnotation of a GatewayClass has the BlixtConfig that it named
	// when it was last accepted.
	LastGoodConfigAnnotation = "blixt.x-k8s.io/last-good-config"
	// LastGoodAnnotation of a Gateway's Service has what the Gateway was served by
	// when it was last valid.
	LastGoodAnnotation = "blixt.x-k8s.io/last-good"
	// PodTrafficAnnotation of a Service holds its PodTraffic: who balances the
	// traffic of pods and nodes to it.
	PodTrafficAnnotation = "blixt.x-k8s.io/pod-traffic"
	// RotateAnnotation of the Secret AnnounceSecret asks for another key, whenever it
	// has another value.
	RotateAnnotation = "blixt.x-k8s.io/rotate"
	// OwnedByLabel is bpfman's label of a ClusterBpfApplicationState. It names the
	// ClusterBpfApplication.
	OwnedByLabel = "bpfman.io/ownedByProgram"
)

// Managed reports whether the operator has created an object.
func Managed(o metav1.Object) bool { return o.GetLabels()[ManagedByLabel] == Manager }
