// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiextv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/kube"
)

// Facts are what a cluster says of itself.
type Facts struct {
	Now time.Time
	// Namespace of Blixt's operator.
	Namespace string
	// Version of Kubernetes.
	Version string
	// Unread says why the objects of a kind could not be read. A kind that the
	// cluster does not have has no objects.
	Unread map[string]string

	CRDs            []apiextv1.CustomResourceDefinition
	Nodes           []corev1.Node
	Namespaces      []corev1.Namespace
	Pods            []corev1.Pod // of Blixt and of bpfman
	Services        []corev1.Service
	ServiceCIDRs    []networkingv1.ServiceCIDR
	Deployments     []appsv1.Deployment
	DaemonSets      []appsv1.DaemonSet
	NetworkPolicies []networkingv1.NetworkPolicy // of Namespace
	Leases          []coordinationv1.Lease       // of Namespace
	CSIDrivers      []storagev1.CSIDriver
	CSINodes        []storagev1.CSINode
	// Configuration is bpfman.toml as bpfman's pods read it; "": not there.
	Configuration string
	// ProxyMode is kube-proxy's; "": nothing tells it.
	ProxyMode string

	BpfmanConfigs []bpfmanv1.Config
	Applications  []bpfmanv1.ClusterBpfApplication
	States        []bpfmanv1.ClusterBpfApplicationState

	Classes    []gwv1.GatewayClass
	Configs    []v1alpha1.BlixtConfig
	Dataplanes []v1alpha1.NodeDataplane
}

// Read reads what Check looks at, with a client of controller.Scheme. What may
// not be read is in Unread. Returns an error if the API server does not answer.
func Read(ctx context.Context, c client.Client, version, namespace string) (*Facts, error) {
	f := &Facts{Now: time.Now(), Namespace: namespace, Version: version, Unread: map[string]string{}}
	in := client.InNamespace(namespace)
	if err := readAll(ctx, c, f, &f.CRDs, &apiextv1.CustomResourceDefinitionList{}); err != nil {
		return nil, err // nothing else would answer either
	}
	for _, err := range []error{
		readAll(ctx, c, f, &f.Nodes, &corev1.NodeList{}),
		readAll(ctx, c, f, &f.Namespaces, &corev1.NamespaceList{}),
		readAll(ctx, c, f, &f.Services, &corev1.ServiceList{}),
		readAll(ctx, c, f, &f.ServiceCIDRs, &networkingv1.ServiceCIDRList{}),
		readAll(ctx, c, f, &f.Deployments, &appsv1.DeploymentList{}),
		readAll(ctx, c, f, &f.DaemonSets, &appsv1.DaemonSetList{}),
		readAll(ctx, c, f, &f.NetworkPolicies, &networkingv1.NetworkPolicyList{}, in),
		readAll(ctx, c, f, &f.Leases, &coordinationv1.LeaseList{}, in),
		readAll(ctx, c, f, &f.CSIDrivers, &storagev1.CSIDriverList{}),
		readAll(ctx, c, f, &f.CSINodes, &storagev1.CSINodeList{}),
		readAll(ctx, c, f, &f.BpfmanConfigs, &bpfmanv1.ConfigList{}),
		readAll(ctx, c, f, &f.Applications, &bpfmanv1.ClusterBpfApplicationList{}),
		readAll(ctx, c, f, &f.States, &bpfmanv1.ClusterBpfApplicationStateList{}),
		readAll(ctx, c, f, &f.Classes, &gwv1.GatewayClassList{}),
		readAll(ctx, c, f, &f.Configs, &v1alpha1.BlixtConfigList{}),
		readAll(ctx, c, f, &f.Dataplanes, &v1alpha1.NodeDataplaneList{}),
		f.readPods(ctx, c),
		f.readConfiguration(ctx, c),
		f.readProxyMode(ctx, c),
	} {
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// readAll reads the objects of a kind. One that the cluster does not have has none.
func readAll[T any](ctx context.Context, c client.Client, f *Facts, into *[]T, list client.ObjectList, o ...client.ListOption) error {
	return kube.List(ctx, c, f.Unread, "", into, list, o...)
}

// readPods reads those of Blixt and of bpfman.
func (f *Facts) readPods(ctx context.Context, c client.Client) error {
	where := map[string]bool{f.Namespace: true}
	if d := f.daemonSet(); d != nil {
		where[d.Namespace] = true
	}
	for namespace := range where {
		if err := readAll(ctx, c, f, &f.Pods, &corev1.PodList{}, client.InNamespace(namespace)); err != nil {
			return err
		}
	}
	return nil
}

// readConfiguration reads bpfman.toml from where bpfman does: its operator
// writes it there, unless somebody has forbidden that.
func (f *Facts) readConfiguration(ctx context.Context, c client.Client) error {
	d := f.daemonSet()
	if d == nil {
		return nil
	}
	stored := &corev1.ConfigMap{}
	err := c.Get(ctx, client.ObjectKey{Namespace: d.Namespace, Name: bpfmanConfig}, stored)
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("get ConfigMap %s/%s: %w", d.Namespace, bpfmanConfig, err)
	}
	f.Configuration = stored.Data["bpfman.toml"]
	return nil
}

// spec is what the BlixtConfig in force says of the data plane, with defaults.
func (f *Facts) spec() v1alpha1.Dataplane {
	t := gateway.Translate(gateway.Objects{GatewayClasses: f.Classes, Configs: f.Configs}, gateway.Options{Cluster: &gateway.Cluster{}})
	var asked *v1alpha1.Dataplane
	if t.Dataplane != nil {
		asked = t.Dataplane.Spec.Dataplane
	}
	return rollout.Default(asked, rollout.Release{}, f.Nodes)
}

// selected are the nodes that are to take part.
func (f *Facts) selected() (nodes []*corev1.Node) {
	selector := rollout.Selector(f.spec())
	for i := range f.Nodes {
		if selector.Matches(labels.Set(f.Nodes[i].Labels)) {
			nodes = append(nodes, &f.Nodes[i])
		}
	}
	return nodes
}

// at names an object that is in a namespace.
func at(kind string, o metav1.Object) string {
	return kind + " " + o.GetNamespace() + "/" + o.GetName()
}
