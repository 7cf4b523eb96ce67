// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Facts are the objects of a cluster, and what registries have of its images.
type Facts struct {
	Now time.Time
	// Namespace of Blixt's operator.
	Namespace string
	// Unread says why the objects of a kind could not be read.
	Unread map[string]string

	Nodes        []corev1.Node
	Deployments  []appsv1.Deployment // of Namespace
	Applications []bpfmanv1.ClusterBpfApplication
	States       []bpfmanv1.ClusterBpfApplicationState
	Classes      []gwv1.GatewayClass
	Configs      []v1alpha1.BlixtConfig
	Dataplanes   []v1alpha1.NodeDataplane
	Pods         []corev1.Pod // of all namespaces

	ClusterRoles    []rbacv1.ClusterRole
	ClusterBindings []rbacv1.ClusterRoleBinding
	Roles           []rbacv1.Role
	Bindings        []rbacv1.RoleBinding
	Policies        []admissionv1.ValidatingAdmissionPolicy
	PolicyBindings  []admissionv1.ValidatingAdmissionPolicyBinding
	// Images are what ReadImages has found.
	Images []Image
}

// Read reads the Facts except Images, with a client of kube.Scheme. Returns an error if
// the API server does not answer.
func Read(ctx context.Context, c client.Client, namespace string) (*Facts, error) {
	f := &Facts{Now: time.Now().UTC(), Namespace: namespace, Unread: map[string]string{}}
	r := &kube.Reader{Client: c, Unread: f.Unread, Missing: "the cluster does not have the kind: run blixt doctor"}
	f.Nodes = kube.Read[corev1.NodeList](ctx, r).Items
	f.Deployments = kube.Read[appsv1.DeploymentList](ctx, r, client.InNamespace(namespace)).Items
	f.Applications = kube.Read[bpfmanv1.ClusterBpfApplicationList](ctx, r).Items
	f.States = kube.Read[bpfmanv1.ClusterBpfApplicationStateList](ctx, r).Items
	f.Classes = kube.Read[gwv1.GatewayClassList](ctx, r).Items
	f.Configs = kube.Read[v1alpha1.BlixtConfigList](ctx, r).Items
	f.Dataplanes = kube.Read[v1alpha1.NodeDataplaneList](ctx, r).Items
	f.Pods = kube.Read[corev1.PodList](ctx, r).Items
	f.ClusterRoles = kube.Read[rbacv1.ClusterRoleList](ctx, r).Items
	f.ClusterBindings = kube.Read[rbacv1.ClusterRoleBindingList](ctx, r).Items
	f.Roles = kube.Read[rbacv1.RoleList](ctx, r).Items
	f.Bindings = kube.Read[rbacv1.RoleBindingList](ctx, r).Items
	f.Policies = kube.Read[admissionv1.ValidatingAdmissionPolicyList](ctx, r).Items
	f.PolicyBindings = kube.Read[admissionv1.ValidatingAdmissionPolicyBindingList](ctx, r).Items
	return f, r.Err
}
