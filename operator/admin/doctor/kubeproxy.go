// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

// readProxyMode reads kube-proxy's mode where the operator does.
func (f *Facts) readProxyMode(ctx context.Context, c client.Client) error {
	stored := &corev1.ConfigMap{}
	err := c.Get(ctx, gateway.KubeProxy, stored)
	if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get ConfigMap %s: %w", gateway.KubeProxy, err)
	}
	f.ProxyMode = gateway.ProxyMode(stored)
	return nil
}

// kubeProxy: where it serves a Service of ours, its success hides our failure, and
// in mode ipvs it must not serve addresses of nodes.
func kubeProxy(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Services {
		s := &f.Services[i]
		if !v1alpha1.Managed(s) || s.Labels[gwv1.GatewayNameLabelKey] == "" || s.Labels[v1alpha1.ServiceProxyLabel] != "" {
			continue
		}
		switch taken := f.bound(s); {
		case taken != "":
			wrong = append(wrong, failed(at("Service", s), "kube-proxy, in mode ipvs, serves "+taken+": every node takes that for its own, and nodes do not reach each other",
				"The operator sees to it that kube-proxy does not: see operator and leader above. Until then: kubectl -n "+s.Namespace+" label service "+s.Name+" "+v1alpha1.ServiceProxyLabel+"=blixt"))
		case s.Annotations[v1alpha1.PodTrafficAnnotation] != string(v1alpha1.PodTrafficKubeProxy):
			wrong = append(wrong, warning(at("Service", s), "it has no label "+v1alpha1.ServiceProxyLabel+": kube-proxy serves it too, without weights, and hides it if Blixt does not",
				"Somebody has removed it: the operator sets it again. If that does not last, see who does by kubectl get service -o yaml --show-managed-fields. To have kube-proxy serve pods, set spec.addresses.podTraffic of the BlixtConfig to KubeProxy."))
		}
	}
	for i := range f.Configs {
		a := &f.Configs[i].Spec.Addresses
		node := a.Source == v1alpha1.SourceNode || slices.Contains(a.AlsoSources, v1alpha1.SourceNode)
		if node && a.PodTraffic == v1alpha1.PodTrafficKubeProxy && f.ProxyMode == gateway.ProxyIPVS {
			wrong = append(wrong, warning("BlixtConfig "+f.Configs[i].Name, "spec.addresses.podTraffic KubeProxy is not obeyed for source Node: kube-proxy runs in mode ipvs, in which it would cut nodes off from each other",
				"Run kube-proxy in mode nftables, or unset podTraffic: what a node's own pods and processes send to the node's address is not served then."))
		}
	}
	return "kube-proxy leaves to Blixt what is Blixt's", wrong
}

// bound names an address of a node that kube-proxy in mode ipvs binds for the
// Service, or "".
func (f *Facts) bound(s *corev1.Service) string {
	if f.ProxyMode != gateway.ProxyIPVS {
		return ""
	}
	for _, ingress := range s.Status.LoadBalancer.Ingress {
		if ingress.IPMode != nil && *ingress.IPMode != corev1.LoadBalancerIPModeVIP {
			continue
		}
		for i := range f.Nodes {
			if slices.ContainsFunc(f.Nodes[i].Status.Addresses, func(a corev1.NodeAddress) bool { return a.Address == ingress.IP }) {
				return ingress.IP + " of node " + f.Nodes[i].Name
			}
		}
	}
	return ""
}
