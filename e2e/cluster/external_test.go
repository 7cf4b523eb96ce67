// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"encoding/json"
	"net"
	"os/exec"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// givenPool and givenNodes are of a cluster that others run: the addresses that
// Gateways get, if not those of the nodes, and the names of the nodes.
var (
	givenPool  string
	givenNodes []string
)

// outside is the place of clients. Where others run the cluster it is this machine.
func outside() dialer {
	if c.IsGiven() {
		return here{}
	}
	return c.Outside
}

// outsideCommand makes a command that runs outside of the cluster.
func outsideCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	if c.IsGiven() {
		return exec.CommandContext(ctx, name, args...)
	}
	return c.Outside.Command(ctx, append([]string{name}, args...)...)
}

// testAnyCluster checks what can be seen of Blixt in any cluster, by its API, from pods
// and from outside: who is answered, whose program has counted it, and that clients do
// not notice when pods are deleted.
func testAnyCluster(t *testing.T) {
	applyUntilEnd(t, "clients.yaml", "", "")
	applyUntilEnd(t, "balanced.yaml", "", "")
	awaitPods(t, "default")
	vips := awaitAddresses(t, "balanced")
	t.Run("answers", func(t *testing.T) {
		for _, vip := range vips {
			for _, network := range []string{"tcp", "udp"} {
				addr := net.JoinHostPort(vip, "80")
				checkAnswers(t, asker{name: "outside", dial: outside()}, network, addr, true)
				for node, pod := range podsOn(t, "client") {
					// Packets to a node's own address do not leave the node.
					if !slices.Contains(nodeAddressesOf(t, node), vip) {
						checkAnswers(t, asker{name: "a pod on " + node, pod: pod}, network, addr, givenPool != "")
					}
				}
			}
		}
	})
	l := startLoad(t, vips)
	t.Cleanup(l.end)
	for _, pods := range []struct{ name, namespace, selector string }{
		{"operators", system, "app.kubernetes.io/component=operator"},
		{"agents", system, "app.kubernetes.io/component=agent"},
		{"bpfman", "bpfman", "name=bpfman-daemon"},
	} {
		t.Run(pods.name+" deleted", func(t *testing.T) {
			l.during(t, func() {
				kubectl(t, "--namespace="+pods.namespace, "delete", "pods", "--selector="+pods.selector)
				awaitPods(t, pods.namespace)
			})
			checkAnswers(t, asker{name: "outside", dial: outside()}, "tcp", net.JoinHostPort(vips[0], "80"), false)
		})
	}
}

// awaitAddresses waits until a Gateway is served at some addresses and returns them.
func awaitAddresses(t *testing.T, gateway string) (all []string) {
	t.Helper()
	gw := &gwv1.Gateway{}
	kube.Wait(t, patience, "whether Gateway "+gateway+" is Programmed", true, func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: gateway}, gw)
		return meta.IsStatusConditionTrue(gw.Status.Conditions, "Programmed"), err
	})
	for _, a := range gw.Status.Addresses {
		all = append(all, a.Value)
	}
	return all
}

func nodeAddressesOf(t *testing.T, name string) (all []string) {
	t.Helper()
	node := &corev1.Node{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: name}, node); err != nil {
		t.Fatal(err)
	}
	for _, a := range node.Status.Addresses {
		all = append(all, a.Address)
	}
	return all
}

// checkAnswers asks 20 times. Servers of several nodes have to answer, if there are
// several, and if Blixt is to balance the connections its programs have to count each.
func checkAnswers(t *testing.T, a asker, network, addr string, counts bool) {
	t.Helper()
	const n = 20
	before := newFlowsOfAll(t)
	got, err := a.ask(t, network, addr, n)
	if err != nil {
		t.Errorf("%s from %s to %s: %v", network, a.name, addr, err)
		return
	}
	nodes := map[string]bool{}
	for who := range got {
		nodes[who.node] = true
	}
	if want := min(2, len(podsOn(t, "server"))); len(nodes) < want {
		t.Errorf("%s from %s to %s: answers %v, want some of at least %d nodes", network, a.name, addr, got, want)
	}
	if rose := newFlowsOfAll(t) - before; counts && rose != n {
		t.Errorf("%s from %s to %s: the programs counted %d new flows, want %d", network, a.name, addr, rose, n)
	}
}

// newFlowsOfAll returns the sum of new flows that the programs of all nodes have
// counted.
func newFlowsOfAll(t *testing.T) (sum int) {
	t.Helper()
	var agents corev1.PodList
	if err := c.Client.List(t.Context(), &agents, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/component": "agent"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range agents.Items {
		text, err := c.Kubectl(t.Context(), "--namespace="+system, "exec", p.Name, "--", "/blixt", "status", "--maps=/maps", "--output=json")
		if err != nil {
			t.Fatal(err)
		}
		var status struct{ Counters map[string]int }
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			t.Fatalf("agent %s: %v in:\n%s", p.Name, err, text)
		}
		n, ok := status.Counters["flow_new"]
		if !ok {
			t.Fatalf("agent %s does not tell of new flows:\n%s", p.Name, text)
		}
		sum += n
	}
	return sum
}
