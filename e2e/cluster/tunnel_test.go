// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// testLateTunnel annotates a node with a tunnel before the device exists. Until it does
// the nodes report what is missing, and go on serving with the interfaces they have.
func testLateTunnel(t *testing.T, application string, vips []string) {
	const device = "flannel.9"
	annotate := func(annotations ...string) {
		t.Helper()
		kubectl(t, append([]string{"annotate", "node", "node-2"}, annotations...)...)
	}
	say := func(want string) {
		t.Helper()
		for _, m := range c.Nodes {
			kube.Wait(t, patience, "what NodeDataplane "+m.Name+" says", want, func() (string, error) { return conditionOf(t, m.Name, v1alpha1.NodeReady, device) })
		}
	}
	serves := func() {
		t.Helper()
		for _, w := range ways(t, vips) {
			if w.name == "outside" {
				w.connect(t, application, ports(20), 20).check(t, byBlixt)
			}
		}
	}
	onNodes := func(commands ...string) {
		t.Helper()
		for _, m := range c.Nodes {
			m.IP(commands...)
			if err := m.Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	annotate("flannel.alpha.coreos.com/backend-type=vxlan", `flannel.alpha.coreos.com/backend-data={"VNI":9}`)
	say("NotAttached, with the remedy")
	serves()
	onNodes("link add "+device+" type vxlan id 9 dstport 4790", "link set "+device+" up")
	// As when the network plugin's pod becomes ready: bpfman looks for interfaces
	// again when a pod changes.
	kubectl(t, "annotate", "pods", "--selector=app=client", "device="+device)
	awaitLinks(t, "eth0", device)
	say("Serving: The node serves what it should.")
	annotate("flannel.alpha.coreos.com/backend-type-", "flannel.alpha.coreos.com/backend-data-")
	awaitLinks(t, "eth0")
	onNodes("link del " + device)
	say("Serving: The node serves what it should.")
	serves()
}
