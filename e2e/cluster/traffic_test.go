// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bpfmanv1alpha1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/operator/dataplane"
)

// pool has Gateways get addresses, or choose those of the nodes.
const pool = "--set=config.addresses.source=Pool,config.addresses.alsoSources={Node},config.addresses.pool={198.51.100.20-198.51.100.29,2001:db8:100::20-2001:db8:100::29}"

// bridge has Blixt see the packets of pods where they pass each other: on the
// bridge that they are ports of.
const bridge = "config.dataplane.interfaces.names={eth0,cni0}"

// TestTraffic sends connections by every way that there is.
func TestTraffic(t *testing.T) {
	installGatewayAPI(t)
	application := dataplane.Name(installBlixt(t, pool, "--set=config.addresses.podTraffic=KubeProxy"))
	applied(t, "clients.yaml", "", "")
	applied(t, "balanced.yaml", "", "")
	awaitPods(t, "default")
	vips := reached(t, "balanced", c.Nodes[0])

	t.Run("pods by kube-proxy", func(t *testing.T) { paths(t, application, vips, true) })
	helm(t, "upgrade", "blixt", "../../charts/blixt", "--namespace="+system, "--reuse-values", "--wait", "--set="+bridge+",config.addresses.podTraffic=Blixt")
	links(t, "cni0", "eth0")
	taken(t, application, vips[0])
	t.Run("paths", func(t *testing.T) { paths(t, application, vips, false) })
	t.Run("Local policy", func(t *testing.T) { local(t, application) })
	t.Run("addresses of nodes", func(t *testing.T) { nodeAddresses(t, application) })
	t.Run("weights", func(t *testing.T) { weights(t, application) })
	t.Run("grant", grant)
	t.Run("64 listeners", func(t *testing.T) { listeners(t, application) })
	t.Run("200 listeners of ListenerSets", func(t *testing.T) { listenerSets(t, application) })
	t.Run("names", func(t *testing.T) { names(t, application) })
	t.Run("transfers", func(t *testing.T) { transfers(t, application) })
	t.Run("servers come and go", func(t *testing.T) { rolling(t, application) })
	t.Run("privileges", privileges)
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
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	objects, err := kube.Decode([]byte(strings.ReplaceAll(string(text), word, with)))
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
func reached(t *testing.T, gateway string, by *cluster.Machine) []string {
	t.Helper()
	vips := programmed(t, gateway)
	if len(vips) != 2 || !netip.MustParseAddr(vips[0]).Is4() {
		t.Fatalf("addresses %v of Gateway %s, want one of each family", vips, gateway)
	}
	c.Outside.IP("route replace "+vips[0]+" via "+by.IPv4, "route replace "+vips[1]+" via "+by.IPv6)
	if err := c.Outside.Err(); err != nil {
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

// asker is a place that connections come from.
type asker struct {
	name string
	// by is whose program sees them first.
	by *cluster.Machine
	// pod asks, or dial if there is none.
	pod  string
	dial dialer
}

// ask asks n times, from ports that no flow had that may be remembered.
func (a asker) ask(t *testing.T, network, addr string, n int) (got map[answer]int, err error) {
	t.Helper()
	first := port + 1
	port += n
	got = map[answer]int{}
	if a.pod != "" {
		out, err := c.Kubectl(t.Context(), "exec", a.pod, "--", "/test", "client", network, addr, fmt.Sprint(first), fmt.Sprint(n))
		for line := range strings.Lines(out) {
			var who answer
			if _, err := fmt.Sscan(line, &who.node, &who.sees); err != nil {
				return got, err
			}
			got[who]++
		}
		return got, err
	}
	for ; n > 0; n-- {
		who, err := ask(a.dial, network, fmt.Sprintf(":%d", first), addr)
		if err != nil {
			return got, err
		}
		got[who]++
		first++
	}
	return got, nil
}

// podsOn returns the pods of an app by their nodes.
func podsOn(t *testing.T, app string) map[string]string {
	t.Helper()
	var list corev1.PodList
	if err := c.Client.List(t.Context(), &list, client.InNamespace("default"), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	pods := map[string]string{}
	for _, p := range list.Items {
		pods[p.Spec.NodeName] = p.Name
	}
	return pods
}

// flows reads how many new flows the programs have counted, by node and frontend.
func flows(t *testing.T, application string) map[string]uint64 {
	t.Helper()
	counted := map[string]uint64{}
	for _, m := range c.Nodes {
		for _, f := range status(t, m, program(t, m.Name, application)).Frontends {
			counted[m.Name+" "+f.Frontend] = f.NewFlows
		}
	}
	return counted
}

// paths asks from everywhere, by each protocol and family: the servers of both
// nodes answer, and the program that is to have done it has counted. Where
// kube-proxy has pods' traffic, that is none.
func paths(t *testing.T, application string, vips []string, kubeProxy bool) {
	servers, clients := podsOn(t, "server"), podsOn(t, "client")
	askers := []asker{{name: "outside", by: c.Nodes[0], dial: c.Outside}}
	for _, m := range c.Nodes {
		askers = append(askers,
			asker{name: m.Name, by: m, dial: m},
			asker{name: "a pod on " + m.Name, by: m, pod: clients[m.Name]},
			asker{name: "a server on " + m.Name + " itself", by: m, pod: servers[m.Name]})
	}
	for _, a := range askers {
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				path(t, application, a, network, net.JoinHostPort(vip, "80"), kubeProxy && a.name != "outside")
			}
		}
	}
}

func path(t *testing.T, application string, a asker, network, addr string, kubeProxy bool) {
	t.Helper()
	const n = 20
	what := fmt.Sprintf("%s from %s to %s", network, a.name, addr)
	want := flows(t, application)
	if !kubeProxy {
		want[a.by.Name+" "+addr+"/"+network] += n
	}
	got, err := a.ask(t, network, addr, n)
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	nodes := map[string]bool{}
	for who := range got {
		nodes[who.node] = true
	}
	if len(nodes) != len(c.Nodes) {
		t.Errorf("%s: answers %v, want some of each node", what, got)
	}
	if diff := cmp.Diff(want, flows(t, application)); diff != "" {
		t.Errorf("%s: new flows that the programs have counted (-want +got):\n%s", what, diff)
	}
	for who := range got { // whom another node answers would see it otherwise
		if a.name == "outside" && who.node == a.by.Name && who.sees != cluster.Outside4 && who.sees != cluster.Outside6 {
			t.Errorf("%s: the server on that node sees %s, not the client", what, who.sees)
		}
	}
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
