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

// What etcd had a while ago is true again: a Gateway that came later is served no
// more, a route that has gone is, and nobody remembers the future for long.
func restored(t *testing.T, application string) {
	remove(t, "late.yaml", "", "") // of a run that was killed
	applied(t, "restored.yaml", "", "")
	applied(t, "more.yaml", "", "")
	choose(t, "node-1")
	t.Cleanup(func() {
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: "chosen", Namespace: "default"}}
		if err := c.Client.Delete(context.Background(), slice); err != nil {
			t.Error(err)
		}
	})
	vip := routeVIPs(t, "restored", c.Nodes[0])[0]
	tcp, more := net.JoinHostPort(vip, "80"), net.JoinHostPort(vip, "82")
	repliesFrom(t, tcp, "node-1")
	repliesFrom(t, more, "node-1")
	if err := c.SaveStore(); err != nil {
		t.Fatal(err)
	}
	saved := time.Now()
	kube.Wait(t, patience, "the API server's word", "ok", ready)

	apply(t, "late.yaml", "", "")
	late := net.JoinHostPort(routeVIPs(t, "late", c.Nodes[0])[0], "80")
	repliesFrom(t, late, "node-1")
	remove(t, "more.yaml", "", "")
	choose(t, "node-2")
	repliesFrom(t, tcp, "node-2")
	repliesFrom(t, more, "")
	before := epochs(t, application)
	for i := range 1000 { // as much as happens in minutes: nobody restores what was a moment ago
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
	forget(t, "/coredns", "/bpfman-agent", "/bpfman-operator")
	repliesFrom(t, tcp, "node-1")
	repliesFrom(t, more, "node-1")
	repliesFrom(t, late, "")
	t.Logf("back to %.1f s ago: the API server was away for %.1f s, and %.1f s later all was served as it was", future.Seconds(), back.Sub(restoring).Seconds(), time.Since(back).Seconds())
	if err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "late"}, &gwv1.Gateway{}); client.IgnoreNotFound(err) != nil || err == nil {
		t.Errorf("Gateway late, which etcd has forgotten: %v", err)
	}
	kube.Wait(t, patience, "nodes whose state is not of a later epoch", nil, func() (older []string, err error) {
		for node, epoch := range epochs(t, application) {
			if epoch <= before[node] {
				older = append(older, node)
			}
		}
		return older, nil
	})

	choose(t, "node-2")
	repliesFrom(t, tcp, "node-2")
	applied(t, "late.yaml", "", "")
	late = net.JoinHostPort(routeVIPs(t, "late", c.Nodes[0])[0], "80")
	repliesFrom(t, late, "node-2")
	for _, namespace := range []string{"kube-system", "bpfman", system, "default"} {
		awaitPods(t, namespace)
	}
	programmed(t, "balanced")
	programmed(t, "restored")
}

// forget ends what knows the future and is neither Blixt's nor Kubernetes' own: it
// is started again.
func forget(t *testing.T, commands ...string) {
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

func ready() (string, error) { return c.Kubectl(context.Background(), "get", "--raw=/readyz") }

// choose makes the server of a node the only endpoint of Service chosen.
func choose(t *testing.T, node string) {
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

// repliesFrom waits until the server of this node is who answers, "": nobody.
func repliesFrom(t *testing.T, addr, node string) {
	t.Helper()
	kube.Wait(t, patience, "the node that answers at "+addr, node, func() (string, error) {
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 1)
		for who := range got {
			return who.node, err
		}
		return "", nil // refused, or not answered
	})
}

// epochs returns those of what the nodes' maps hold.
func epochs(t *testing.T, application string) map[string]uint64 {
	t.Helper()
	all := map[string]uint64{}
	for _, m := range c.Nodes {
		all[m.Name] = status(t, m, program(t, m.Name, application)).Version.Epoch
	}
	return all
}
