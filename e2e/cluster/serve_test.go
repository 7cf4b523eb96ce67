// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	bpfmanv1alpha1 "github.com/bpfman/bpfman-operator/apis/v1alpha1"
	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// vip4 and vip6 lead to the servers, by node-1.
const vip4, vip6 = "198.51.100.10", "2001:db8:100::10"

// TestUnprivilegedPodsServe has bpfman load the program from the registry on every
// node, and pods without privilege write its maps. Packets from outside find their way,
// also after bpfman was restarted: its pins are shared for that.
func TestUnprivilegedPodsServe(t *testing.T) {
	requireMachines(t)
	applyFile(t, "application.yaml", "BYTECODE", bytecodeImage(t, builtBlixt(t), "65536"))
	programs := awaitLoaded(t)
	publish(t, vip4, vip6)
	applyFile(t, "writers.yaml", "MAPS", strings.Join(mapNames(t), ","))
	awaitPods(t, "default")
	c.Outside.Route(vip4+" via "+c.Nodes[0].IPv4, vip6+" via "+c.Nodes[0].IPv6)
	if err := c.Outside.Err(); err != nil {
		t.Fatal(err)
	}
	served := func(t *testing.T) {
		for _, m := range c.Nodes {
			checkAttached(t, m, programs[m.Name])
		}
		for _, network := range []string{"tcp", "udp"} {
			checkServes(t, network, net.JoinHostPort(vip4, "80"), programs["node-1"], map[answer]bool{
				{"node-1", cluster.Outside4}: true, {"node-2", c.Nodes[0].IPv4}: true})
			checkServes(t, network, net.JoinHostPort(vip6, "80"), programs["node-1"], map[answer]bool{
				{"node-1", cluster.Outside6}: true, {"node-2", c.Nodes[0].IPv6}: true})
		}
	}
	t.Run("at once", served)

	if _, err := c.Kubectl(t.Context(), "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon"); err != nil {
		t.Fatal(err)
	}
	awaitPods(t, "bpfman")
	if again := awaitLoaded(t); !maps.Equal(programs, again) {
		t.Errorf("after bpfman was started again its programs are %v, want %v", again, programs)
	}
	t.Run("after bpfman was started again", served)

	for _, kind := range []string{"daemonset/writer", "clusterbpfapplication/blixt"} {
		if _, err := c.Kubectl(t.Context(), "delete", "--wait", "--timeout=60s", kind); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range c.Nodes {
		checkAttached(t, m)
	}
}

// port is the last that a connection to Blixt came from.
var port = 40000 // above Blixt's SNAT range, with room for every question

// checkServes sends connections, and compares who answered and what the program on the
// first node counted.
func checkServes(t *testing.T, network, addr string, program uint32, want map[answer]bool) {
	t.Helper()
	const n = 50
	before := newFlows(t, c.Nodes[0], program, addr+"/"+network)
	got := map[answer]bool{}
	for range n {
		port++ // the kernel might choose the port of an earlier flow
		a, err := ask(c.Outside, network, fmt.Sprintf(":%d", port), addr)
		if err != nil {
			t.Fatalf("%s to %s: %v", network, addr, err)
		}
		got[a] = true
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{})); diff != "" {
		t.Errorf("%s to %s: who answered, and saw whom (-want +got):\n%s", network, addr, diff)
	}
	if rose := newFlows(t, c.Nodes[0], program, addr+"/"+network) - before; rose != n {
		t.Errorf("%s to %s: the program counted %d new flows, want %d", network, addr, rose, n)
	}
}

// bytecodeImage pushes a bytecode image with room for so many flows, and returns its
// name by digest.
func bytecodeImage(t *testing.T, blixt, flows string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := c.Control.Run(patience, blixt, "bytecode", "build", "-d", out, "--flows", flows); err != nil {
		t.Fatal(err)
	}
	name, err := c.Control.Run(patience, blixt, "bytecode", "push", out, cluster.Registry+"/blixt/bytecode:v1", "--ca-file", c.CA())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(name)
}

// mapNames returns the names of the program's maps.
func mapNames(t *testing.T) (names []string) {
	t.Helper()
	object, err := bytecode.ParseObject(bpf.Object())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range object.Maps {
		names = append(names, m.Name)
	}
	return names
}

// applyFile applies a file of testdata with a word replaced.
func applyFile(t *testing.T, file, word, with string) {
	t.Helper()
	text, err := testdata(file, word, with)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ApplyYAML(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// awaitLoaded waits until bpfman reports that every node has the program with two
// links, and returns its id on each.
func awaitLoaded(t *testing.T) map[string]uint32 {
	t.Helper()
	programs := map[string]uint32{}
	want := map[string]string{"node-1": "eth0 Ingress, eth0 Egress", "node-2": "eth0 Ingress, eth0 Egress"}
	kube.Wait(t, patience, "links that bpfman has attached", want, func() (map[string]string, error) {
		var states bpfmanv1alpha1.ClusterBpfApplicationStateList
		err := c.Client.List(t.Context(), &states)
		got := map[string]string{}
		for _, s := range states.Items {
			for _, p := range s.Status.Programs {
				var links []string
				for _, l := range p.TCX.Links {
					if l.LinkStatus == bpfmanv1alpha1.ApAttachAttached {
						links = append(links, fmt.Sprintf("%s %s", l.InterfaceName, l.Direction))
					}
				}
				if p.ProgramId != nil {
					programs[s.Status.Node] = *p.ProgramId
				}
				got[s.Status.Node] = strings.Join(links, ", ")
			}
		}
		return got, err
	})
	return programs
}

// checkAttached fails the test unless exactly these programs are attached to a node's
// interface.
func checkAttached(t *testing.T, m *cluster.Machine, programs ...uint32) {
	t.Helper()
	err := m.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			found, err := link.QueryPrograms(link.QueryOptions{Target: eth0.Index, Attach: at})
			if err != nil {
				return err
			}
			var ids []uint32
			for _, p := range found.Programs {
				ids = append(ids, uint32(p.ID))
			}
			if !slices.Equal(ids, programs) {
				t.Errorf("%s has programs %v at %v, want %v", m.Name, ids, at, programs)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// publish writes what each node is to serve: VIPs that lead to all servers.
func publish(t *testing.T, vips ...string) {
	t.Helper()
	var servers corev1.PodList
	if err := c.Client.List(t.Context(), &servers, client.MatchingLabels{"app": "server"}); err != nil {
		t.Fatal(err)
	}
	states := &corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "states", Namespace: "default"}, Data: map[string]string{},
	}
	for _, m := range c.Nodes {
		var s lb.State
		for _, vip := range vips {
			ip := netip.MustParseAddr(vip)
			s.Addresses = append(s.Addresses, lb.Address{IP: ip, Exclusive: true})
			var backends []lb.Backend
			for _, p := range servers.Items {
				for _, podIP := range p.Status.PodIPs {
					if addr := netip.MustParseAddr(podIP.IP); addr.Is4() == ip.Is4() {
						backends = append(backends, lb.Backend{Addr: netip.AddrPortFrom(addr, 8080), Weight: lb.WeightUnit, Local: p.Spec.NodeName == m.Name})
					}
				}
			}
			for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
				s.Frontends = append(s.Frontends, lb.Frontend{Addr: ip, Protocol: protocol, Port: 80, IdleTimeout: lb.DefaultIdleTimeout(protocol), Backends: slices.Clone(backends)})
			}
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		states.Data[m.Name] = string(text)
	}
	if err := c.Client.Create(t.Context(), states); err != nil {
		t.Fatal(err)
	}
}

// newFlows returns the new flows that the program on a node has counted for a frontend.
func newFlows(t *testing.T, m *cluster.Machine, program uint32, frontend string) uint64 {
	t.Helper()
	s := status(t, m, program)
	for _, f := range s.Frontends {
		if f.Frontend == frontend {
			return f.NewFlows
		}
	}
	t.Fatalf("no frontend %s in %+v", frontend, s.Frontends)
	return 0
}

// status reads the maps of the program on a node.
func status(t *testing.T, m *cluster.Machine, program uint32) writer.Status {
	t.Helper()
	tables, err := datapath.Open(m.File(fmt.Sprintf("/run/bpfman/fs/maps/%d", program)))
	if err != nil {
		t.Fatal(err)
	}
	defer tables.Close()
	s, err := writer.ReadStatus(tables, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}
