// SPDX-License-Identifier: Apache-2.0

// Package gateway turns Gateway API objects into what Blixt serves. It is pure:
// no I/O, no clock, no goroutine.
//
// In: Gateways, ListenerSets, routes, grants, Services and Blixt's own kinds
// (Translate), then EndpointSlices (Resolve). Out: an lb.State, the conditions
// of every object, and problems in plain words. Translate yields frontends that
// name Services; Resolve turns the names into endpoints, so that a changed
// EndpointSlice never runs Translate again. In a cluster, Translate runs in the
// operator and Resolve on each node.
//
// testdata is the specification: each <case>.in.yaml has its <case>.out.yaml.
package gateway

import (
	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// ControllerName is the controllerName of the GatewayClasses that Blixt serves.
const ControllerName gwv1.GatewayController = "gateway.networking.k8s.io/blixt"

// Objects are the input of Translate. Objects of other controllers may be among
// them: they get no status. Translate modifies none of them.
type Objects struct {
	GatewayClasses  []gwv1.GatewayClass
	Gateways        []gwv1.Gateway
	ListenerSets    []gwv1.ListenerSet
	TCPRoutes       []gwv1.TCPRoute
	UDPRoutes       []gwv1.UDPRoute
	ReferenceGrants []gwv1.ReferenceGrant
	Services        []corev1.Service
	// GatewayClasses may refer to Configs, and Gateways to GatewayConfigs.
	Configs        []v1alpha1.BlixtConfig
	GatewayConfigs []v1alpha1.BlixtGatewayConfig
	Policies       []v1alpha1.BlixtPolicy
	// Namespaces are needed for their labels only. A namespace that is missing
	// here counts as having the label kubernetes.io/metadata.name alone.
	Namespaces []corev1.Namespace
}
