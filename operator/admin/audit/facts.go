// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Facts are what a cluster, and the registries of its images, say.
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
	Roles        []rbacv1.ClusterRole
	Bindings     []rbacv1.ClusterRoleBinding
	// Images are those that were asked for, nil: none were.
	Images []Image
}

// Read reads what Audit compares, but for images, with a client of
// controller.Scheme. Returns an error if the API server does not answer.
func Read(ctx context.Context, c client.Client, namespace string) (*Facts, error) {
	f := &Facts{Now: time.Now().UTC(), Namespace: namespace, Unread: map[string]string{}}
	if err := readAll(ctx, c, f, &f.Nodes, &corev1.NodeList{}); err != nil {
		return nil, err // nothing else would answer either
	}
	for _, err := range []error{
		readAll(ctx, c, f, &f.Deployments, &appsv1.DeploymentList{}, client.InNamespace(namespace)),
		readAll(ctx, c, f, &f.Applications, &bpfmanv1.ClusterBpfApplicationList{}),
		readAll(ctx, c, f, &f.States, &bpfmanv1.ClusterBpfApplicationStateList{}),
		readAll(ctx, c, f, &f.Classes, &gwv1.GatewayClassList{}),
		readAll(ctx, c, f, &f.Configs, &v1alpha1.BlixtConfigList{}),
		readAll(ctx, c, f, &f.Dataplanes, &v1alpha1.NodeDataplaneList{}),
		readAll(ctx, c, f, &f.Roles, &rbacv1.ClusterRoleList{}),
		readAll(ctx, c, f, &f.Bindings, &rbacv1.ClusterRoleBindingList{}),
	} {
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// readAll reads the objects of a kind.
func readAll[T any](ctx context.Context, c client.Client, f *Facts, into *[]T, list client.ObjectList, o ...client.ListOption) error {
	return kube.List(ctx, c, f.Unread, "the cluster does not have the kind: run blixt doctor", into, list, o...)
}
