// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
)

func TestProxyMode(t *testing.T) {
	const kubeadm = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.244.0.0/16\n"
	for _, c := range []struct {
		name string
		data map[string]string
		want string
	}{
		{"no ConfigMap", nil, ""},
		{"of another tool", map[string]string{"config": kubeadm + "mode: ipvs\n"}, ""},
		{"broken", map[string]string{"config.conf": "mode: [ipvs"}, ""},
		{"default", map[string]string{"config.conf": kubeadm + "mode: \"\"\n"}, "iptables"},
		{"not named", map[string]string{"config.conf": kubeadm}, "iptables"},
		{"named", map[string]string{"config.conf": kubeadm + "mode: ipvs\n"}, gateway.ProxyIPVS},
	} {
		if got := gateway.ProxyMode(&corev1.ConfigMap{Data: c.data}); got != c.want {
			t.Errorf("%s: got mode %q, want %q", c.name, got, c.want)
		}
	}
}
