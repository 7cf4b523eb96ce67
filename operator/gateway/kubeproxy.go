// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// ProxyIPVS is the mode in which kube-proxy binds every address of a load
// balancer to an interface of each node. Nodes then take each other's addresses
// for their own, and cannot reach each other.
const ProxyIPVS = "ipvs"

// KubeProxy is the name of kube-proxy's ConfigMap in clusters made by kubeadm,
// and by tools based on it.
var KubeProxy = types.NamespacedName{Namespace: metav1.NamespaceSystem, Name: "kube-proxy"}

// ProxyMode returns kube-proxy's mode according to its ConfigMap, or "" if the
// ConfigMap does not contain its configuration.
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
