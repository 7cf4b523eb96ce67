// SPDX-License-Identifier: Apache-2.0

package rollout_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

func TestTunnels(t *testing.T) {
	const flannel, calico = "flannel.alpha.coreos.com/", "projectcalico.org/"
	for _, c := range []struct {
		name        string
		annotations map[string]string
		want        []string
	}{
		{"routes", nil, nil},
		{"flannel: routes", map[string]string{flannel + "backend-type": "host-gw", flannel + "backend-data": "null"}, nil},
		{"flannel", map[string]string{flannel + "backend-type": "vxlan", flannel + "backend-data": `{"VNI":1,"VtepMAC":"be:03:96:b1:c4:2b"}`}, []string{"flannel.1"}},
		{"flannel: before it told numbers", map[string]string{flannel + "backend-type": "vxlan", flannel + "backend-data": `{"VtepMAC":"be:03:96:b1:c4:2b"}`, flannel + "backend-v6-data": "null"}, []string{"flannel.1"}},
		{"flannel: both families", map[string]string{flannel + "backend-type": "vxlan", flannel + "backend-data": `{"VNI":4096}`, flannel + "backend-v6-data": `{"VNI":4096}`}, []string{"flannel-v6.4096", "flannel.4096"}},
		{"flannel: IPv6 alone", map[string]string{flannel + "backend-type": "vxlan", flannel + "backend-data": "null", flannel + "backend-v6-data": `{"VNI":1}`}, []string{"flannel-v6.1"}},
		{"flannel: garbage", map[string]string{flannel + "backend-type": "vxlan", flannel + "backend-data": `{"VNI":"x"}`}, nil},
		{"flannel: WireGuard", map[string]string{flannel + "backend-type": "wireguard", flannel + "backend-data": `{"PublicKey":"x"}`}, []string{"flannel-wg"}},
		{"flannel: IP in IP", map[string]string{flannel + "backend-type": "ipip", flannel + "backend-data": "null"}, []string{"flannel.ipip"}},
		{"flannel: UDP", map[string]string{flannel + "backend-type": "udp", flannel + "backend-data": "null"}, []string{"flannel0"}},
		{"Calico: routes", map[string]string{calico + "IPv4Address": "192.0.2.11/24"}, nil},
		{"Calico: VXLAN", map[string]string{calico + "IPv4VXLANTunnelAddr": "10.1.70.0", calico + "IPv6VXLANTunnelAddr": "2001:db8::1"}, []string{"vxlan-v6.calico", "vxlan.calico"}},
		{"Calico: IP in IP, encrypted", map[string]string{calico + "IPv4IPIPTunnelAddr": "10.1.70.0", calico + "IPv4WireguardInterfaceAddr": "10.1.70.1"}, []string{"tunl0", "wireguard.cali"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := slices.Sorted(maps.Keys(rollout.Tunnels(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: c.annotations}})))
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tunnels of a node with annotations %v (-want +got):\n%s", c.annotations, diff)
			}
		})
	}
}

// flannel announces no addresses of its tunnels: they are the first ones of podCIDRs.
func TestFlannelsTunnelAddresses(t *testing.T) {
	const flannel = "flannel.alpha.coreos.com/"
	for backend, want := range map[string]string{
		"vxlan":   "[192.0.2.11 10.244.1.0 fd00:244:0:1::]",
		"host-gw": "[192.0.2.11]",
	} {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
			flannel + "backend-type": backend, flannel + "backend-data": "null", flannel + "backend-v6-data": `{"VNI":1}`, flannel + "public-ip": "192.0.2.11",
		}}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:244:0:1::/64"}}}
		if got := fmt.Sprint(rollout.NodeAddresses(n)); got != want {
			t.Errorf("addresses of a node of flannel's %s: %s, want %s", backend, got, want)
		}
	}
}

// The ports of tunnels are those of their defaults: listeners do not get them.
func TestTunnelPorts(t *testing.T) {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{
		"flannel.alpha.coreos.com/backend-type":        "vxlan",
		"flannel.alpha.coreos.com/backend-data":        `{"VNI":1}`,
		"projectcalico.org/IPv4VXLANTunnelAddr":        "10.1.70.0",
		"projectcalico.org/IPv4IPIPTunnelAddr":         "10.1.70.0",
		"projectcalico.org/IPv6WireguardInterfaceAddr": "fd00::1",
	}}}
	var got []string
	for _, r := range rollout.TunnelPorts(n) {
		got = append(got, r.String()+": "+r.Use)
	}
	want := []string{
		"UDP 8472: tunnel flannel.1 of the nodes (annotation flannel.alpha.coreos.com/backend-type)",
		"UDP 4789: tunnel vxlan.calico of the nodes (annotation projectcalico.org/IPv4VXLANTunnelAddr)",
		"UDP 51820-51821: tunnel wg-v6.cali of the nodes (annotation projectcalico.org/IPv6WireguardInterfaceAddr)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	n.Annotations = map[string]string{"flannel.alpha.coreos.com/backend-type": "udp"}
	if all := rollout.TunnelPorts(n); len(all) != 1 || all[0].First != 8285 {
		t.Errorf("ports of flannel's UDP backend: %v", all)
	}
}
