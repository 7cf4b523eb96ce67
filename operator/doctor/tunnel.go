// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/dataplane"
)

const flannel = "flannel.alpha.coreos.com/"

// calico are annotations by which its nodes tell their addresses in tunnels, and
// the tunnels' devices (calico: felix/dataplane/linux/dataplanedefs).
var calico = map[string]string{
	"projectcalico.org/IPv4IPIPTunnelAddr":         "tunl0",
	"projectcalico.org/IPv4VXLANTunnelAddr":        "vxlan.calico",
	"projectcalico.org/IPv6VXLANTunnelAddr":        "vxlan-v6.calico",
	"projectcalico.org/IPv4WireguardInterfaceAddr": "wireguard.cali",
	"projectcalico.org/IPv6WireguardInterfaceAddr": "wg-v6.cali",
}

// tunnels: pods of other nodes answer through the tunnel, where the program must
// be to know the answers. Only network plugins that tell of theirs are known.
func tunnels(f *Facts) (string, []Finding) {
	interfaces := dataplane.Default(new(f.spec()), dataplane.Release{}).Interfaces
	left := map[string]string{} // device: what tells of it
	for _, n := range f.selected() {
		for device, annotation := range devices(n) {
			if !takes(interfaces, device) {
				left[device] = "annotation " + annotation + " of Node " + n.Name
			}
		}
	}
	if len(left) == 0 {
		return "no network plugin tells of a tunnel without the program", nil
	}
	names := slices.Sorted(maps.Keys(left))
	return "", []Finding{failed("BlixtConfig", fmt.Sprintf("spec.dataplane.interfaces leaves out %s, by which pods of other nodes are reached, as %s says: what they answer is lost",
		strings.Join(names, ", "), left[names[0]]),
		"Name it besides the interface that clients come by, such as spec.dataplane.interfaces: {names: [eth0, "+strings.Join(names, ", ")+"]}")}
}

// devices are those of the tunnels that annotations of a node tell of.
func devices(n *corev1.Node) map[string]string {
	found := map[string]string{}
	for annotation, device := range calico {
		if n.Annotations[annotation] != "" {
			found[device] = annotation
		}
	}
	// flannel: pkg/backend, where each names its device.
	const backend = flannel + "backend-type"
	switch n.Annotations[backend] {
	case "vxlan":
		for data, device := range map[string]string{"backend-data": "flannel", "backend-v6-data": "flannel-v6"} {
			vxlan := struct{ VNI int }{1} // as by default: old versions do not tell
			if text := n.Annotations[flannel+data]; text != "null" && json.Unmarshal([]byte(text), &vxlan) == nil {
				found[fmt.Sprintf("%s.%d", device, vxlan.VNI)] = backend
			}
		}
	case "ipip":
		found["flannel.ipip"] = backend
	case "wireguard":
		found["flannel-wg"] = backend
	case "udp":
		found["flannel0"] = backend
	}
	return found
}

// takes tells whether bpfman attaches to a device.
func takes(i v1alpha1.Interfaces, device string) bool {
	is := func(pattern string) bool {
		if len(pattern) < 2 || pattern[0] != '/' {
			return pattern == device
		}
		match, err := regexp.MatchString(strings.Trim(pattern, "/"), device)
		return err == nil && match
	}
	if d := i.Discover; d != nil {
		return !slices.ContainsFunc(d.Exclude, is) && (len(d.Allow) == 0 || slices.ContainsFunc(d.Allow, is))
	}
	return slices.Contains(i.Names, device)
}
