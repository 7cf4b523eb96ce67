// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// ProxyIPVS is kube-proxy's mode in which it binds every address of a load
// balancer to an interface of each node: a node then takes the addresses of all
// others for its own, and reaches none of them.
const ProxyIPVS = "ipvs"

// KubeProxy names the ConfigMap by which kubeadm, and what is made with it,
// configures kube-proxy.
var KubeProxy = types.NamespacedName{Namespace: metav1.NamespaceSystem, Name: "kube-proxy"}

// ProxyMode returns the mode that the ConfigMap gives kube-proxy, or "" if it
// says nothing of one.
func ProxyMode(m *corev1.ConfigMap) string {
	text, is := m.Data["config.conf"]
	var config struct {
		Mode string `json:"mode"`
	}
	switch err := yaml.Unmarshal([]byte(text), &config); {
	case !is || err != nil:
		return ""
	case config.Mode == "":
		return "iptables" // kube-proxy's default
	}
	return config.Mode
}
