// SPDX-License-Identifier: Apache-2.0

package controller_test

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// TestPodTraffic has kube-proxy serve a Service where Blixt cannot, and says so.
func TestPodTraffic(t *testing.T) {
	o := start(t)
	o.apply(web)
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
	as := func(who v1alpha1.PodTraffic, label string, addresses bool) *corev1.Service {
		t.Helper()
		return o.service(func(s *corev1.Service) error {
			if got := s.Annotations[v1alpha1.PodTrafficAnnotation]; got != string(who) || s.Labels[v1alpha1.ServiceProxyLabel] != label || (len(s.Status.LoadBalancer.Ingress) > 0) != addresses {
				return fmt.Errorf("it says %q and has labels %v and addresses %v, want %s", got, s.Labels, s.Status.LoadBalancer.Ingress, who)
			}
			return nil
		})
	}
	o.config("{source: LoadBalancer}")
	s := as(v1alpha1.PodTrafficKubeProxy, "", false)
	if s.Spec.HealthCheckNodePort == 0 {
		t.Fatalf("nobody asks for the health of nodes: this test shows nothing: %+v", s.Spec)
	}
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.7"}}
	o.must(o.kube.Status().Update(t.Context(), s))
	o.condition(gw, "Programmed", "True Programmed", "balanced by kube-proxy")

	o.config("{source: LoadBalancer, podTraffic: Blixt}")
	as(v1alpha1.PodTrafficBlixt, "blixt", true)
	o.condition(gw, "Programmed", "True Programmed", fmt.Sprintf("at port %d, gets no answer", s.Spec.HealthCheckNodePort))

	o.config("{source: Node, podTraffic: Blixt}")
	as(v1alpha1.PodTrafficBlixt, "blixt", true)
	o.condition(gw, "Programmed", "True Programmed", "send to the node's own address is not served")

	o.config("{source: Node}")
	as(v1alpha1.PodTrafficKubeProxy, "", true)
	o.condition(gw, "Programmed", "True Programmed", "balanced by kube-proxy")

	o.config("{source: Pool, pool: [198.51.100.0/29]}")
	as(v1alpha1.PodTrafficBlixt, "blixt", true)
	o.eventually("message", func() error {
		o.condition(gw, "Programmed", "True Programmed", "")
		for _, c := range gw.Status.Conditions {
			if c.Type == "Programmed" && c.Message != "Served by 2 nodes." {
				return fmt.Errorf("it is %q, want no word about who sends", c.Message)
			}
		}
		return nil
	})
}
