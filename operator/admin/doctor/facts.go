// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"time"

	bpfmanv1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
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

// Facts are the objects of a cluster that checks examine.
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
	Backends        []corev1.Pod // of the Services of Gateways, where there are NetworkPolicies
	Services        []corev1.Service
	ServiceCIDRs    []networkingv1.ServiceCIDR
	Deployments     []appsv1.Deployment
	DaemonSets      []appsv1.DaemonSet
	NetworkPolicies []networkingv1.NetworkPolicy
	Leases          []coordinationv1.Lease // of Namespace
	CSIDrivers      []storagev1.CSIDriver
	CSINodes        []storagev1.CSINode
	Policies        []admissionv1.ValidatingAdmissionPolicy
	PolicyBindings  []admissionv1.ValidatingAdmissionPolicyBinding
	// Configuration is bpfman.toml as bpfman's pods read it; "": not there.
	Configuration string
	// ProxyMode is kube-proxy's mode; "": unknown.
	ProxyMode string
	// CiliumIPsec is true if Cilium encrypts by IPsec.
	CiliumIPsec bool

	BpfmanConfigs []bpfmanv1.Config
	Applications  []bpfmanv1.ClusterBpfApplication
	States        []bpfmanv1.ClusterBpfApplicationState

	// Ignored are fields of Gateways and ListenerSets that Blixt does not know, such as those of
	// the experimental channel of a newer Gateway API, by object.
	Ignored map[string][]string

	Classes      []gwv1.GatewayClass
	Gateways     []gwv1.Gateway
	ListenerSets []gwv1.ListenerSet
	TCPRoutes    []gwv1.TCPRoute
	UDPRoutes    []gwv1.UDPRoute
	Configs      []v1alpha1.BlixtConfig
	Dataplanes   []v1alpha1.NodeDataplane
	// BlixtPolicies are none of doctor's, but of blixt status.
	BlixtPolicies []v1alpha1.BlixtPolicy
}

// Read reads the Facts, with a client of kube.Scheme. Kinds that may not be read are
// in Unread. Returns an error if the API server does not answer.
func Read(ctx context.Context, c client.Reader, version, namespace string) (*Facts, error) {
	f := &Facts{Now: time.Now(), Namespace: namespace, Version: version, Unread: map[string]string{}}
	r := &kube.Reader{Client: c, Unread: f.Unread}
	in := client.InNamespace(namespace)
	f.CRDs = kube.Read[apiextv1.CustomResourceDefinitionList](ctx, r).Items
	f.Nodes = kube.Read[corev1.NodeList](ctx, r).Items
	f.Namespaces = kube.Read[corev1.NamespaceList](ctx, r).Items
	f.Services = kube.Read[corev1.ServiceList](ctx, r).Items
	f.ServiceCIDRs = kube.Read[networkingv1.ServiceCIDRList](ctx, r).Items
	f.Deployments = kube.Read[appsv1.DeploymentList](ctx, r).Items
	f.DaemonSets = kube.Read[appsv1.DaemonSetList](ctx, r).Items
	f.NetworkPolicies = kube.Read[networkingv1.NetworkPolicyList](ctx, r).Items
	f.Leases = kube.Read[coordinationv1.LeaseList](ctx, r, in).Items
	f.CSIDrivers = kube.Read[storagev1.CSIDriverList](ctx, r).Items
	f.CSINodes = kube.Read[storagev1.CSINodeList](ctx, r).Items
	f.Policies = kube.Read[admissionv1.ValidatingAdmissionPolicyList](ctx, r).Items
	f.PolicyBindings = kube.Read[admissionv1.ValidatingAdmissionPolicyBindingList](ctx, r).Items
	f.BpfmanConfigs = kube.Read[bpfmanv1.ConfigList](ctx, r).Items
	f.Applications = kube.Read[bpfmanv1.ClusterBpfApplicationList](ctx, r).Items
	f.States = kube.Read[bpfmanv1.ClusterBpfApplicationStateList](ctx, r).Items
	f.Classes = kube.Read[gwv1.GatewayClassList](ctx, r).Items
	f.Gateways = kube.Read[gwv1.GatewayList](ctx, r).Items
	f.ListenerSets = kube.Read[gwv1.ListenerSetList](ctx, r).Items
	f.readIgnored(ctx, c)
	f.TCPRoutes = kube.Read[gwv1.TCPRouteList](ctx, r).Items
	f.UDPRoutes = kube.Read[gwv1.UDPRouteList](ctx, r).Items
	f.Configs = kube.Read[v1alpha1.BlixtConfigList](ctx, r).Items
	f.Dataplanes = kube.Read[v1alpha1.NodeDataplaneList](ctx, r).Items
	f.BlixtPolicies = kube.Read[v1alpha1.BlixtPolicyList](ctx, r).Items
	f.Pods = kube.Read[corev1.PodList](ctx, r, in).Items
	if d := f.daemonSet(); d != nil && d.Namespace != namespace {
		f.Pods = append(f.Pods, kube.Read[corev1.PodList](ctx, r, client.InNamespace(d.Namespace)).Items...)
	}
	f.Backends = f.readBackends(ctx, r)
	if r.Err != nil {
		return nil, r.Err
	}
	if err := f.readConfiguration(ctx, c); err != nil {
		return nil, err
	}
	if err := f.readProxyMode(ctx, c); err != nil {
		return nil, err
	}
	if err := f.readIPsec(ctx, c); err != nil {
		return nil, err
	}
	return f, nil
}

// readBackends returns the pods of namespaces that have NetworkPolicies and Services of
// Gateways.
func (f *Facts) readBackends(ctx context.Context, r *kube.Reader) (all []corev1.Pod) {
	policed, read := map[string]bool{}, map[string]bool{}
	for i := range f.NetworkPolicies {
		policed[f.NetworkPolicies[i].Namespace] = true
	}
	for _, u := range f.uses() {
		if namespace := u.service.Namespace; policed[namespace] && !read[namespace] {
			read[namespace] = true
			all = append(all, kube.Read[corev1.PodList](ctx, r, client.InNamespace(namespace)).Items...)
		}
	}
	return all
}

// readConfiguration reads bpfman.toml from the ConfigMap that bpfman reads. bpfman's
// operator writes the ConfigMap, unless an override forbids it to.
func (f *Facts) readConfiguration(ctx context.Context, c client.Reader) error {
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

// spec returns the data plane of the BlixtConfig in force, with defaults.
func (f *Facts) spec() v1alpha1.Dataplane {
	t := f.translation()
	return rollout.Default(t.DataplaneSpec(), rollout.Release{}, f.Nodes)
}

// translation returns what the operator makes of the classes and their BlixtConfigs.
func (f *Facts) translation() gateway.Translation {
	return gateway.Translate(gateway.Objects{GatewayClasses: f.Classes, Configs: f.Configs}, gateway.Options{Cluster: &gateway.Cluster{}})
}

// selected returns the nodes that the data plane selects.
func (f *Facts) selected() (nodes []*corev1.Node) {
	selector := rollout.Selector(f.spec())
	for i := range f.Nodes {
		if selector.Matches(labels.Set(f.Nodes[i].Labels)) {
			nodes = append(nodes, &f.Nodes[i])
		}
	}
	return nodes
}

// at names an object of a namespace.
func at(kind string, o metav1.Object) string {
	return kind + " " + o.GetNamespace() + "/" + o.GetName()
}
