// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// TestPodTraffic has kube-proxy serve a Service where Blixt cannot, and says so.
func TestPodTraffic(t *testing.T) {
	o := start(t)
	o.apply(kube.WebGateway)
	o.apply(`
apiVersion: blixt.x-k8s.io/v1alpha1
kind: BlixtGatewayConfig
metadata: {name: local, namespace: default}
spec: {externalTrafficPolicy: Local}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  gatewayClassName: blixt
  infrastructure: {parametersRef: {group: blixt.x-k8s.io, kind: BlixtGatewayConfig, name: local}}
  listeners: [{name: http, protocol: TCP, port: 80}]
`)
	o.load(firstCode, "n1", "n2")
	gw := named[gwv1.Gateway]("default", "web")
	as := func(who v1alpha1.PodTraffic, ingress string) *corev1.Service {
		t.Helper()
		label := map[v1alpha1.PodTraffic]string{v1alpha1.PodTrafficBlixt: "blixt"}[who]
		return o.service(func(s *corev1.Service) error {
			var shown []string
			for _, i := range s.Status.LoadBalancer.Ingress {
				shown = append(shown, i.IP+" "+string(*i.IPMode))
			}
			if got := s.Annotations[v1alpha1.PodTrafficAnnotation]; got != string(who) || s.Labels[v1alpha1.ServiceProxyLabel] != label || strings.Join(shown, ", ") != ingress {
				return fmt.Errorf("it says %q and has labels %v and addresses %v, want %s and %s", got, s.Labels, shown, who, ingress)
			}
			return nil
		})
	}
	o.config("{source: LoadBalancer}")
	s := as(v1alpha1.PodTrafficKubeProxy, "")
	if s.Spec.HealthCheckNodePort == 0 {
		t.Fatalf("nobody asks for the health of nodes: this test shows nothing: %+v", s.Spec)
	}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	o.must(o.kube.Status().Update(t.Context(), s))
	o.condition(gw, "Programmed", "True Programmed", "balanced by kube-proxy")

	o.config("{source: LoadBalancer, podTraffic: Blixt}")
	as(v1alpha1.PodTrafficBlixt, "203.0.113.7 VIP")
	o.condition(gw, "Programmed", "True Programmed", fmt.Sprintf("at port %d, gets no answer", s.Spec.HealthCheckNodePort))

	// Addresses of nodes: the nodes' alone, unless kube-proxy can have them.
	const nodes, served = "192.0.2.11 Proxy, 192.0.2.12 Proxy", "192.0.2.11 VIP, 192.0.2.12 VIP"
	o.config("{source: Node}")
	as(v1alpha1.PodTrafficBlixt, nodes)
	o.condition(gw, "Programmed", "True Programmed", "is not served: set podTraffic of the BlixtConfig to KubeProxy, unless")

	o.config("{source: Node, podTraffic: KubeProxy}")
	as(v1alpha1.PodTrafficKubeProxy, served)
	o.condition(gw, "Programmed", "True Programmed", "balanced by kube-proxy")

	o.proxy("ipvs")
	as(v1alpha1.PodTrafficBlixt, nodes)
	o.condition(gw, "Programmed", "True Programmed", "whatever podTraffic of the BlixtConfig says: kube-proxy in mode ipvs")

	o.proxy("nftables")
	as(v1alpha1.PodTrafficKubeProxy, served)
	o.config("{source: Node, podTraffic: Blixt}")
	as(v1alpha1.PodTrafficBlixt, nodes)

	o.config("{source: Node}")
	as(v1alpha1.PodTrafficKubeProxy, served)
	o.condition(gw, "Programmed", "True Programmed", "balanced by kube-proxy")

	o.must(o.kube.Delete(t.Context(), named[corev1.ConfigMap]("kube-system", "kube-proxy")))
	as(v1alpha1.PodTrafficBlixt, nodes)

	o.config("{source: Pool, pool: [198.51.100.0/29]}")
	as(v1alpha1.PodTrafficBlixt, "198.51.100.0 VIP")
	o.eventually("message", func() error {
		o.condition(gw, "Programmed", "True Programmed", "")
		for _, c := range gw.Status.Conditions {
			if c.Type == "Programmed" && c.Message != "All nodes serve it." {
				return fmt.Errorf("it is %q, want no word about who sends", c.Message)
			}
		}
		return nil
	})
}

// proxy has kube-proxy configured as kubeadm does, to run in a mode.
func (o *operator) proxy(mode string) {
	o.Helper()
	o.apply(`
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    mode: ` + mode + "\n")
	o.Cleanup(func() {
		o.must(client.IgnoreNotFound(o.kube.Delete(context.Background(), named[corev1.ConfigMap]("kube-system", "kube-proxy"))))
	})
}
