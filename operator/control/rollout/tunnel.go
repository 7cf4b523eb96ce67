// SPDX-License-Identifier: Apache-2.0

package rollout

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// calico maps the annotations in which Calico's nodes announce their addresses in
// tunnels to the tunnels' devices (calico: felix/dataplane/linux/dataplanedefs).
// Its eBPF mode has one device for both families: there, interfaces must be named.
var calico = map[string]string{
	"projectcalico.org/IPv4IPIPTunnelAddr":         "tunl0",
	"projectcalico.org/IPv4VXLANTunnelAddr":        "vxlan.calico",
	"projectcalico.org/IPv6VXLANTunnelAddr":        "vxlan-v6.calico",
	"projectcalico.org/IPv4WireguardInterfaceAddr": "wireguard.cali",
	"projectcalico.org/IPv6WireguardInterfaceAddr": "wg-v6.cali",
}

const (
	flannel        = "flannel.alpha.coreos.com/"
	flannelBackend = flannel + "backend-type"
)

// Tunnels returns the devices through which a node reaches the pods of other nodes,
// each with the annotation that announces it. It knows those of flannel and
// Calico.
func Tunnels(n *corev1.Node) map[string]string {
	found := map[string]string{}
	for annotation, device := range calico {
		if n.Annotations[annotation] != "" {
			found[device] = annotation
		}
	}
	// flannel: pkg/backend, where each names its device.
	switch n.Annotations[flannelBackend] {
	case "vxlan":
		for data, device := range map[string]string{"backend-data": "flannel", "backend-v6-data": "flannel-v6"} {
			vxlan := struct{ VNI int }{1} // the default: early versions do not announce it
			if text := n.Annotations[flannel+data]; text != "null" && json.Unmarshal([]byte(text), &vxlan) == nil {
				found[fmt.Sprintf("%s.%d", device, vxlan.VNI)] = flannelBackend
			}
		}
	case "ipip":
		found["flannel.ipip"] = flannelBackend
	case "wireguard":
		found["flannel-wg"] = flannelBackend
	case "udp":
		found["flannel0"] = flannelBackend
	}
	return found
}

// NodeAddresses returns the addresses that the annotations of a node name: those of
// the ends of its tunnels, and those by which flannel and Calico reach it. flannel
// gives its tunnels the first addresses of the node's podCIDRs.
func NodeAddresses(n *corev1.Node) []netip.Addr {
	var all []netip.Addr
	add := func(text string) {
		addr, err := netip.ParseAddr(text)
		if p, is := netip.ParsePrefix(text); is == nil {
			addr, err = p.Addr(), nil
		}
		if addr = addr.Unmap(); err == nil && addr.IsGlobalUnicast() && !slices.Contains(all, addr) {
			all = append(all, addr)
		}
	}
	for _, annotation := range slices.Sorted(maps.Keys(calico)) {
		add(n.Annotations[annotation])
	}
	for _, annotation := range []string{"projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address", flannel + "public-ip", flannel + "public-ipv6"} {
		add(n.Annotations[annotation])
	}
	if slices.Contains(slices.Collect(maps.Values(Tunnels(n))), flannelBackend) {
		for _, cidr := range n.Spec.PodCIDRs {
			add(cidr)
		}
	}
	return all
}

// TunnelPorts returns the ports by which the tunnels of a node reach it: the default
// of each, as annotations do not tell of others. A listener there would cut the pods
// of different nodes off from each other.
func TunnelPorts(n *corev1.Node) []gateway.ReservedRange {
	found := Tunnels(n)
	var all []gateway.ReservedRange
	for _, device := range slices.Sorted(maps.Keys(found)) {
		r := gateway.ReservedRange{Protocol: lb.UDP, Use: fmt.Sprintf("tunnel %s of the nodes (annotation %s)", device, found[device])}
		kind, _, _ := strings.Cut(device, ".")
		switch {
		case device == "tunl0", device == "flannel.ipip": // a protocol without ports
			continue
		case kind == "vxlan", kind == "vxlan-v6": // Calico
			r.First, r.Last = 4789, 4789
		case kind == "flannel", kind == "flannel-v6":
			r.First, r.Last = 8472, 8472
		case device == "flannel0":
			r.First, r.Last = 8285, 8285
		default: // WireGuard, with one port for each family
			r.First, r.Last = 51820, 51821
		}
		all = append(all, r)
	}
	return all
}

// tunnels returns the devices of all nodes that take part. Pods of other nodes
// answer through them: without a program there, their answers are lost.
func tunnels(spec v1alpha1.Dataplane, nodes []corev1.Node) []string {
	selector := Selector(spec)
	all := map[string]string{}
	for i := range nodes {
		if selector.Matches(labels.Set(nodes[i].Labels)) {
			maps.Copy(all, Tunnels(&nodes[i]))
		}
	}
	return slices.Sorted(maps.Keys(all))
}
