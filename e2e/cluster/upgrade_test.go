// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"net"
	"slices"
	"testing"
	"time"

	bpfmanv1alpha1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/e2e/lab"
	"github.com/kubernetes-sigs/blixt/operator/dataplane"
)

// Another program takes over from the one that serves: connections stay with
// the one that they began with, and when they have ended it is removed.
func TestUpgradeHandsOver(t *testing.T) {
	installGatewayAPI(t)
	old := dataplane.Name(installBlixt(t, pool, "--set="+bridge))
	applied(t, "balanced.yaml", "", "")
	vips := reached(t, "balanced", c.Nodes[0])
	l := begin(t, vips)
	t.Cleanup(l.end)

	blixt, err := lab.Build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image := bytecodeImage(t, blixt, "32768")
	application := dataplane.Name(image)
	l.during(t, func() {
		helm(t, "upgrade", "blixt", "../../charts/blixt", "--namespace="+system, "--reuse-values", "--wait", "--set=config.dataplane.bytecode.image="+image)
		kube.Wait(t, patience, "nodes whose old program drains", []string{"node-1", "node-2"}, func() ([]string, error) { return draining(t, old), nil })
	})
	counted := flows(t, old)
	for _, vip := range vips {
		for _, network := range []string{"tcp", "udp"} {
			path(t, application, asker{name: "outside", by: c.Nodes[0], dial: c.Outside}, network, net.JoinHostPort(vip, "80"))
		}
	}
	if diff := cmp.Diff(counted, flows(t, old)); diff != "" {
		t.Errorf("new flows that the old programs have counted (-want +got):\n%s", diff)
	}
	l.during(t, func() { time.Sleep(time.Second) })
	l.end()
	kube.Wait(t, 3*patience, "ClusterBpfApplications", []string{application}, func() ([]string, error) {
		var list bpfmanv1alpha1.ClusterBpfApplicationList
		err := c.Client.List(t.Context(), &list)
		var names []string
		for _, a := range list.Items {
			names = append(names, a.Name)
		}
		slices.Sort(names)
		return names, err
	})
	for _, m := range c.Nodes {
		attached(t, m, program(t, m.Name, application))
	}
}

// draining returns the nodes whose program serves only the connections that it has.
func draining(t *testing.T, application string) (nodes []string) {
	t.Helper()
	for _, m := range c.Nodes {
		if status(t, m, program(t, m.Name, application)).Draining {
			nodes = append(nodes, m.Name)
		}
	}
	return nodes
}
