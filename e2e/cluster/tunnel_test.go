// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// A node may tell of a tunnel before it has the device. Until then the nodes say
// what is missing, and go on serving by what they have.
func latecomer(t *testing.T, application string, vips []string) {
	const device = "flannel.9"
	annotate := func(annotations ...string) {
		t.Helper()
		kubectl(t, append([]string{"annotate", "node", "node-2"}, annotations...)...)
	}
	say := func(want string) {
		t.Helper()
		for _, m := range c.Nodes {
			kube.Wait(t, patience, "what NodeDataplane "+m.Name+" says", want, func() (string, error) { return says(t, m.Name, v1alpha1.NodeReady, device) })
		}
	}
	annotate("flannel.alpha.coreos.com/backend-type=vxlan", `flannel.alpha.coreos.com/backend-data={"VNI":9}`)
	say("NotAttached, with the remedy")
	outside := ways(t, vips)[:len(vips)*2]
	for _, w := range outside {
		w.try(t, application, ports(20), 20).check(t, byBlixt)
	}
	for _, m := range c.Nodes {
		m.IP("link add "+device+" type vxlan id 9 dstport 4790", "link set "+device+" up")
		if err := m.Err(); err != nil {
			t.Fatal(err)
		}
	}
	// As when a network plugin's pod has made it, and is ready: bpfman looks again
	// when a pod changes.
	kubectl(t, "annotate", "pods", "--selector=app=client", "device="+device)
	links(t, "eth0", device)
	say("Serving: The node serves what it should.")
	annotate("flannel.alpha.coreos.com/backend-type-", "flannel.alpha.coreos.com/backend-data-")
	links(t, "eth0")
	for _, m := range c.Nodes {
		m.IP("link del " + device)
		if err := m.Err(); err != nil {
			t.Error(err)
		}
	}
	say("Serving: The node serves what it should.")
	for _, w := range outside {
		w.try(t, application, ports(20), 20).check(t, byBlixt)
	}
}
