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

// readProxyMode reads kube-proxy's mode from the same ConfigMap as the operator.
func (f *Facts) readProxyMode(ctx context.Context, c client.Reader) error {
	stored := &corev1.ConfigMap{}
	err := c.Get(ctx, gateway.KubeProxy, stored)
	if err != nil && !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("get ConfigMap %s: %w", gateway.KubeProxy, err)
	}
	f.ProxyMode = gateway.ProxyMode(stored)
	return nil
}

// kubeProxy: if kube-proxy serves a Service of Blixt, its success hides Blixt's
// failure, and in mode ipvs it must not serve addresses of nodes.
func kubeProxy(f *Facts) (string, []Finding) {
	var wrong []Finding
	for i := range f.Services {
		s := &f.Services[i]
		if !v1alpha1.Managed(s) || s.Labels[gwv1.GatewayNameLabelKey] == "" || s.Labels[v1alpha1.ServiceProxyLabel] != "" {
			continue
		}
		switch taken := f.bound(s); {
		case taken != "":
			wrong = append(wrong, failed(at("Service", s), "kube-proxy, in mode ipvs, serves "+taken+": every node takes that address for its own, and nodes do not reach each other",
				"A running operator prevents that: see operator and leader above. Until it runs: kubectl -n "+s.Namespace+" label service "+s.Name+" "+v1alpha1.ServiceProxyLabel+"=blixt"))
		case s.Annotations[v1alpha1.PodTrafficAnnotation] != string(v1alpha1.PodTrafficKubeProxy):
			wrong = append(wrong, warning(at("Service", s), "it has no label "+v1alpha1.ServiceProxyLabel+": kube-proxy serves it too, without weights, and hides a failure of Blixt",
				"Somebody has removed the label; the operator sets it again. If it is removed again, find out by whom: kubectl get service -o yaml --show-managed-fields. If kube-proxy is to serve the traffic of pods, set spec.addresses.podTraffic of the BlixtConfig to KubeProxy."))
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
	return "kube-proxy serves no Service that Blixt alone should serve", wrong
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
