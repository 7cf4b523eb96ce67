// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"

	bpfmanv1alpha1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// pool has Gateways get addresses, or choose those of the nodes.
const pool = "--set=config.addresses.source=Pool,config.addresses.alsoSources={Node},config.addresses.pool={198.51.100.20-198.51.100.29,2001:db8:100::20-2001:db8:100::29}"

// With the bridge, Blixt sees packets of pods where they pass each other.
const bridge = "config.dataplane.interfaces.names={eth0,cni0}"

// install installs Blixt with addresses of the pool, and pods to ask from, and returns
// the application's name.
func install(t *testing.T, flags ...string) (application string) {
	t.Helper()
	installGatewayAPI(t)
	application = rollout.Name(installBlixt(t, append([]string{pool}, flags...)...))
	applyUntilEnd(t, "clients.yaml", "", "")
	awaitPods(t, "default")
	return application
}

// TestPaths sends connections by every way that there is, and has kube-proxy, Blixt, and
// Blixt at the pods' bridge balance them in turn. What happens depends on how nodes and
// pods are connected: this is for every such cluster.
func TestPaths(t *testing.T) {
	application := install(t, "--set=config.addresses.podTraffic=KubeProxy")
	applyUntilEnd(t, "balanced.yaml", "", "")
	vips := routeVIPs(t, "balanced", c.Nodes[0])
	awaitLinks(t, uplinks()...)
	dropped := droppedSources(t)

	awaitBalancer(t, application, vips, byKubeProxy)
	t.Run("pods by kube-proxy", func(t *testing.T) { checkPaths(t, application, vips, byKubeProxy, ports) })
	t.Run("ports that are taken", func(t *testing.T) { testTakenPorts(t, vips[0]) })
	configure(t, "config.addresses.podTraffic=Blixt")
	awaitBalancer(t, application, vips, byBlixt)
	t.Run("pods by Blixt", func(t *testing.T) { checkPaths(t, application, vips, byBlixt, portsOfBlixt()) })
	if !c.Options.Masquerade {
		t.Run("pods masqueraded", func(t *testing.T) { testMasquerading(t, application, vips) })
	}
	if c.ChecksSources() {
		t.Run("sources", func(t *testing.T) { testSources(t, dropped) })
	}
	t.Run("detached", func(t *testing.T) { testDetached(t, application, vips) })
	if !c.Options.Overlay {
		if c.Options.Flannel == "" { // else the annotations are flannel's
			t.Run("tunnel that comes late", func(t *testing.T) { testLateTunnel(t, application, vips) })
		}
		t.Run("pods by Blixt at the bridge", func(t *testing.T) {
			configure(t, bridge)
			awaitLinks(t, "cni0", "eth0")
			checkPaths(t, application, vips, byBlixtAtBridge, ports)
		})
	}
}

// uplinks returns the interfaces by which packets of other machines arrive at a node,
// those of pods on other nodes included.
func uplinks() []string {
	switch {
	case c.Options.Flannel == "vxlan":
		return []string{"eth0", "flannel-v6.1", "flannel.1"}
	case c.Options.Overlay:
		return []string{"eth0", "flannel.1"}
	}
	return []string{"eth0"}
}

// TestGateways asks for what Gateways and routes can ask for. Each case has a Gateway of
// its own, so their order does not matter.
func TestGateways(t *testing.T) {
	application := install(t, "--set="+bridge)
	t.Run("Local policy", func(t *testing.T) { testLocalPolicy(t, application) })
	t.Run("addresses of nodes", func(t *testing.T) { testNodeAddresses(t, application) })
	t.Run("weights", func(t *testing.T) { testWeights(t, application) })
	t.Run("grant", testGrant)
	t.Run("64 listeners", func(t *testing.T) { testListeners(t, application) })
	t.Run("200 listeners of ListenerSets", func(t *testing.T) { testListenerSets(t, application) })
	t.Run("names", func(t *testing.T) { testDNS(t, application) })
}

// TestLoad sends many bytes, and many connections while servers come and go.
func TestLoad(t *testing.T) {
	application := install(t, "--set="+bridge)
	t.Run("transfers", func(t *testing.T) { testTransfers(t, application) })
	t.Run("servers come and go", func(t *testing.T) { testRolling(t, application) })
}

// configure changes values of the release.
func configure(t *testing.T, values string) {
	t.Helper()
	helm(t, "upgrade", "blixt", "../../charts/blixt", "--namespace="+system, "--reuse-values", "--wait", "--set="+values)
}

// applyUntilEnd applies a file of testdata, and deletes its objects when the test ends.
func applyUntilEnd(t *testing.T, file, word, with string) {
	t.Helper()
	applyFile(t, file, word, with)
	t.Cleanup(func() { deleteFile(t, file, word, with) })
}

// deleteFile deletes the objects of a file of testdata, with a word replaced.
func deleteFile(t *testing.T, file, word, with string) {
	t.Helper()
	text, err := testdata(file, word, with)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range objects {
		if err := c.Client.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
			t.Error(err)
		}
	}
}

// routeVIPs routes the addresses of a Gateway by a node, for machines outside, and
// returns them, IPv4's first.
func routeVIPs(t *testing.T, gateway string, by *cluster.Machine) []string {
	t.Helper()
	vips := awaitProgrammed(t, gateway)
	routeAddresses(t, vips, by)
	return vips
}

// routeAddresses routes one address of each family by a node, IPv4's first.
func routeAddresses(t *testing.T, vips []string, by *cluster.Machine) {
	t.Helper()
	if len(vips) != 2 || !netip.MustParseAddr(vips[0]).Is4() {
		t.Fatalf("addresses %v, want one of each family", vips)
	}
	c.Outside.IP("route replace "+vips[0]+" via "+by.IPv4, "route replace "+vips[1]+" via "+by.IPv6)
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.AllowSources(by, vips...); err != nil {
		t.Fatal(err)
	}
}

// awaitLinks waits until bpfman reports that every node's program is attached to
// exactly these interfaces.
func awaitLinks(t *testing.T, interfaces ...string) {
	t.Helper()
	want := map[string][]string{}
	for _, m := range c.Nodes {
		want[m.Name] = interfaces
	}
	kube.Wait(t, patience, "interfaces that the program is attached to", want, func() (map[string][]string, error) {
		var states bpfmanv1alpha1.ClusterBpfApplicationStateList
		err := c.Client.List(t.Context(), &states)
		got := map[string][]string{}
		for _, s := range states.Items {
			var names []string
			for _, p := range s.Status.Programs {
				for _, l := range p.TCX.Links {
					if l.LinkStatus == bpfmanv1alpha1.ApAttachAttached {
						names = append(names, l.InterfaceName)
					}
				}
			}
			slices.Sort(names)
			got[s.Status.Node] = slices.Compact(names)
		}
		return got, err
	})
}

// awaitBalancer waits until the nodes' own connections to these addresses are balanced
// as they should be. kube-proxy follows the Service in its own time, each node and each
// family on its own.
func awaitBalancer(t *testing.T, application string, vips []string, to balancer) {
	t.Helper()
	const n = 10
	counted := uint64(n)
	if to == byKubeProxy {
		counted = 0
	}
	want := map[string]uint64{}
	for _, m := range c.Nodes {
		for _, vip := range vips {
			want[m.Name+" to "+vip] = counted
		}
	}
	kube.Wait(t, patience, "new flows of nodes that their programs count", want, func() (map[string]uint64, error) {
		got := map[string]uint64{}
		for _, m := range c.Nodes {
			for _, vip := range vips {
				addr := net.JoinHostPort(vip, "80")
				at := m.Name + " " + addr + "/tcp"
				before := countFlows(t, application)[at]
				if _, err := (asker{dial: m}).ask(t, "tcp", addr, n); err != nil {
					return nil, err
				}
				got[m.Name+" to "+vip] = countFlows(t, application)[at] - before
			}
		}
		return got, nil
	})
}
