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
	applied(t, "clients.yaml", "", "")
	awaitPods(t, "default")
	return application
}

// TestPaths sends connections by every way that there is, and has kube-proxy, Blixt, and
// Blixt at the pods' bridge balance them in turn. What happens depends on how nodes and
// pods are connected: this is for every such cluster.
func TestPaths(t *testing.T) {
	application := install(t, "--set=config.addresses.podTraffic=KubeProxy")
	applied(t, "balanced.yaml", "", "")
	vips := routeVIPs(t, "balanced", c.Nodes[0])
	if c.Options.Overlay { // what goes to pods of other nodes in a tunnel comes back in it
		links(t, "eth0", "flannel.1")
	} else {
		links(t, "eth0")
	}
	dropped := droppedSources(t)

	t.Run("pods by kube-proxy", func(t *testing.T) { paths(t, application, vips, byKubeProxy, ports) })
	t.Run("ports that are taken", func(t *testing.T) { takenPorts(t, vips[0]) })
	configure(t, "config.addresses.podTraffic=Blixt")
	taken(t, application, vips[0])
	t.Run("pods by Blixt", func(t *testing.T) { paths(t, application, vips, byBlixt, portsOfBlixt()) })
	if !c.Options.Masquerade {
		t.Run("pods masqueraded", func(t *testing.T) { masqueraded(t, application, vips) })
	}
	if c.Options.Overlay {
		t.Run("sources", func(t *testing.T) { ownSources(t, dropped) })
	}
	t.Run("detached", func(t *testing.T) { detached(t, application, vips) })
	if !c.Options.Overlay {
		t.Run("tunnel that comes late", func(t *testing.T) { latecomer(t, application, vips) })
		t.Run("pods by Blixt at the bridge", func(t *testing.T) {
			configure(t, bridge)
			links(t, "cni0", "eth0")
			paths(t, application, vips, byBlixtAtBridge, ports)
		})
	}
}

// TestGateways asks for what Gateways and routes can ask for. Each case has a Gateway of
// its own, so their order does not matter.
func TestGateways(t *testing.T) {
	application := install(t, "--set="+bridge)
	t.Run("Local policy", func(t *testing.T) { local(t, application) })
	t.Run("addresses of nodes", func(t *testing.T) { nodeAddresses(t, application) })
	t.Run("weights", func(t *testing.T) { weights(t, application) })
	t.Run("grant", grant)
	t.Run("64 listeners", func(t *testing.T) { listeners(t, application) })
	t.Run("200 listeners of ListenerSets", func(t *testing.T) { listenerSets(t, application) })
	t.Run("names", func(t *testing.T) { names(t, application) })
}

// TestLoad sends many bytes, and many connections while servers come and go.
func TestLoad(t *testing.T) {
	application := install(t, "--set="+bridge)
	t.Run("transfers", func(t *testing.T) { transfers(t, application) })
	t.Run("servers come and go", func(t *testing.T) { rolling(t, application) })
}

// configure changes values of the release.
func configure(t *testing.T, values string) {
	t.Helper()
	helm(t, "upgrade", "blixt", "../../charts/blixt", "--namespace="+system, "--reuse-values", "--wait", "--set="+values)
}

// applied applies a file of testdata until the test ends.
func applied(t *testing.T, file, word, with string) {
	t.Helper()
	apply(t, file, word, with)
	t.Cleanup(func() { remove(t, file, word, with) })
}

// remove deletes what a file of testdata, with a word replaced, has made.
func remove(t *testing.T, file, word, with string) {
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

// reached routes what is outside to the addresses of a Gateway by a node, and
// returns them, IPv4's first.
func routeVIPs(t *testing.T, gateway string, by *cluster.Machine) []string {
	t.Helper()
	vips := programmed(t, gateway)
	if len(vips) != 2 || !netip.MustParseAddr(vips[0]).Is4() {
		t.Fatalf("addresses %v of Gateway %s, want one of each family", vips, gateway)
	}
	c.Outside.IP("route replace "+vips[0]+" via "+by.IPv4, "route replace "+vips[1]+" via "+by.IPv6)
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.AllowSources(by, vips...); err != nil {
		t.Fatal(err)
	}
	return vips
}

// links waits until bpfman says that every node's program is attached to these
// interfaces, and no others.
func links(t *testing.T, interfaces ...string) {
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

// taken waits until pods' traffic is Blixt's: kube-proxy is not told at once.
func taken(t *testing.T, application, vip string) {
	t.Helper()
	m, addr := c.Nodes[0], net.JoinHostPort(vip, "80")
	at := m.Name + " " + addr + "/tcp"
	kube.Wait(t, patience, "new flows of a node that its program counts", 10, func() (int, error) {
		before := flows(t, application)[at]
		_, err := asker{dial: m}.ask(t, "tcp", addr, 10)
		return int(flows(t, application)[at] - before), err
	})
}
