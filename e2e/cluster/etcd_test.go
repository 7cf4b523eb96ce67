// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testRestoredEtcd restores etcd from a backup: a Gateway that is younger is served no
// more, a route that was deleted since is served again, and no component keeps the
// newer state for long.
func testRestoredEtcd(t *testing.T, application string) {
	deleteFile(t, "late.yaml", "", "") // left by a run that was killed
	applyUntilEnd(t, "restored.yaml", "", "")
	applyUntilEnd(t, "more.yaml", "", "")
	chooseServer(t, "node-1")
	t.Cleanup(func() {
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "chosen", Namespace: "default"}}
		if err := c.Client.Delete(context.Background(), slice); err != nil {
			t.Error(err)
		}
	})
	vip := routeVIPs(t, "restored", c.Nodes[0])[0]
	tcp, more := net.JoinHostPort(vip, "80"), net.JoinHostPort(vip, "82")
	awaitServer(t, tcp, "node-1")
	awaitServer(t, more, "node-1")
	if err := c.SaveStore(); err != nil {
		t.Fatal(err)
	}
	saved := time.Now()
	kube.Wait(t, patience, "the API server's word", "ok", apiReady)

	applyFile(t, "late.yaml", "", "")
	late := net.JoinHostPort(routeVIPs(t, "late", c.Nodes[0])[0], "80")
	awaitServer(t, late, "node-1")
	deleteFile(t, "more.yaml", "", "")
	chooseServer(t, "node-2")
	awaitServer(t, tcp, "node-2")
	awaitServer(t, more, "")
	before := readEpochs(t, application)
	for i := range 1000 { // as many writes as in minutes: a backup is not from a moment ago
		if err := c.Client.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}},
			client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata": {"annotations": {"test": "%d"}}}`, i))); err != nil {
			t.Fatal(err)
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	future, restoring := time.Since(saved), time.Now()
	if err := c.RestoreStore(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	restartProcesses(t, "/coredns", "/bpfman-agent", "/bpfman-operator")
	awaitServer(t, tcp, "node-1")
	awaitServer(t, more, "node-1")
	awaitServer(t, late, "")
	t.Logf("back to %.1f s ago: the API server was away for %.1f s, and %.1f s later all was served as it was", future.Seconds(), back.Sub(restoring).Seconds(), time.Since(back).Seconds())
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "late"}, &gwv1.Gateway{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("Gateway late, which etcd has forgotten: %v", err)
	}
	kube.Wait(t, patience, "nodes whose state is not of a later epoch", nil, func() (older []string, err error) {
		for node, epoch := range readEpochs(t, application) {
			if epoch <= before[node] {
				older = append(older, node)
			}
		}
		return older, nil
	})

	chooseServer(t, "node-2")
	awaitServer(t, tcp, "node-2")
	applyUntilEnd(t, "late.yaml", "", "")
	late = net.JoinHostPort(routeVIPs(t, "late", c.Nodes[0])[0], "80")
	awaitServer(t, late, "node-2")
	for _, namespace := range []string{"kube-system", "bpfman", system, "default"} {
		awaitPods(t, namespace)
	}
	awaitProgrammed(t, "balanced")
	awaitProgrammed(t, "restored")
}

// restartProcesses kills processes that remember the newer state and are neither
// Blixt's nor Kubernetes' own. They are started again.
func restartProcesses(t *testing.T, commands ...string) {
	t.Helper()
	for _, m := range c.Nodes {
		for _, command := range commands {
			for _, pid := range running(t, m, command+" ") {
				if _, err := m.Exec(t.Context(), "kill", "-KILL", pid); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func apiReady() (string, error) { return c.Kubectl(context.Background(), "get", "--raw=/readyz") }

// chooseServer makes the server of a node the only endpoint of Service chosen.
func chooseServer(t *testing.T, node string) {
	t.Helper()
	pod := &corev1.Pod{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: podsOn(t, "server")[node]}, pod); err != nil {
		t.Fatal(err)
	}
	port, name, protocol := int32(8080), "tcp", corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{
		TypeMeta:    metav1.TypeMeta{APIVersion: "discovery.k8s.io/v1", Kind: "EndpointSlice"},
		ObjectMeta:  metav1.ObjectMeta{Name: "chosen", Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: "chosen"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{pod.Status.PodIP}, NodeName: &node}},
	}
	err := c.Client.Update(t.Context(), slice)
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = c.Client.Create(t.Context(), slice)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// awaitServer waits until the server of a node answers, or with "" until nobody does.
func awaitServer(t *testing.T, addr, node string) {
	t.Helper()
	kube.Wait(t, patience, "the node that answers at "+addr, node, func() (string, error) {
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 1)
		for who := range got {
			return who.node, err
		}
		return "", nil // refused, or not answered
	})
}

// readEpochs returns the epochs of the states that the nodes' maps hold.
func readEpochs(t *testing.T, application string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for _, m := range c.Nodes {
		all[m.Name] = status(t, m, programID(t, m.Name, application)).Version.Epoch
	}
	return all
}
