// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"maps"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/kube"
	"github.com/kubernetes-sigs/blixt/operator/dataplane"
)

// Whatever of the control plane ends, the kernels of the nodes serve on.
func TestFaults(t *testing.T) {
	installGatewayAPI(t)
	application := dataplane.Name(installBlixt(t, pool, "--set="+bridge))
	applied(t, "balanced.yaml", "", "")
	vips := reached(t, "balanced", c.Nodes[0])
	links(t, "cni0", "eth0")
	l := begin(t, vips)
	t.Cleanup(l.end)
	fault := func(name string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			l.during(t, func() { do(t) })
			for _, vip := range vips {
				path(t, application, asker{name: "outside", by: c.Nodes[0], dial: c.Outside}, "tcp", net.JoinHostPort(vip, "80"))
			}
		})
	}
	fault("agents killed", func(t *testing.T) {
		ended := kill(t, "/blixt agent ")
		awaitPods(t, system)
		again(t, "/blixt agent ", ended)
	})
	fault("operators deleted", func(t *testing.T) {
		kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
		awaitPods(t, system)
		programmed(t, "balanced")
	})
	fault("bpfman-agents killed", func(t *testing.T) {
		ended := kill(t, "/bpfman-agent ")
		again(t, "/bpfman-agent ", ended)
	})
	fault("bpfman's daemons killed", func(t *testing.T) {
		ended := kill(t, "/usr/local/sbin/bpfman-rpc ")
		again(t, "/usr/local/sbin/bpfman-rpc ", ended)
		awaitPods(t, "bpfman")
		links(t, "cni0", "eth0")
	})
	fault("bpfman's pods deleted", func(t *testing.T) {
		before := programs(t, application)
		kubectl(t, "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon")
		awaitPods(t, "bpfman")
		links(t, "cni0", "eth0")
		if after := programs(t, application); !maps.Equal(before, after) {
			t.Errorf("programs %v, before they were %v", after, before)
		}
	})
	fault("API server away", func(t *testing.T) {
		if err := c.Control.Halt("kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(away())
		if err := c.Control.Resume("kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		kube.Wait(t, patience, "the API server's word", "ok", ready)
		programmed(t, "balanced")
	})
	fault("etcd restored", func(t *testing.T) { restored(t, application) })
	l.end()
	t.Run("power lost", func(t *testing.T) { power(t, application, vips) })
}

// power has a node lose its power: it serves again once it is back.
func power(t *testing.T, application string, vips []string) {
	node := c.Nodes[1]
	before := programs(t, application)[node.Name]
	if err := c.PowerOff(node); err != nil {
		t.Fatal(err)
	}
	if err := c.PowerOn(node); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 2*patience, "whether another program runs on "+node.Name, true, func() (bool, error) { return programs(t, application)[node.Name] != before, nil })
	awaitPods(t, "default")
	links(t, "cni0", "eth0")
	programmed(t, "balanced")
	reached(t, "balanced", node)
	for _, vip := range vips {
		addr := net.JoinHostPort(vip, "80")
		kube.Wait(t, patience, "nodes that answer", 2, func() (int, error) {
			got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 20)
			return len(got), err
		})
		path(t, application, asker{name: "outside", by: node, dial: c.Outside}, "tcp", addr)
	}
}

// programs returns the ids that the nodes' programs have.
func programs(t *testing.T, application string) map[string]uint32 {
	t.Helper()
	ids := map[string]uint32{}
	for _, m := range c.Nodes {
		ids[m.Name] = program(t, m.Name, application)
	}
	return ids
}

// kill ends processes on all nodes without asking, and returns which.
func kill(t *testing.T, command string) map[string]bool {
	t.Helper()
	ended := map[string]bool{}
	for _, m := range c.Nodes {
		for _, pid := range processes(t, m, command) {
			if _, err := m.Exec(t.Context(), "kill", "-KILL", pid); err != nil {
				t.Fatal(err)
			}
			ended[m.Name+" "+pid] = true
		}
	}
	return ended
}

// again waits until others run in the place of processes that have ended.
func again(t *testing.T, command string, ended map[string]bool) {
	t.Helper()
	kube.Wait(t, patience, "new processes of "+command, len(ended), func() (int, error) {
		n := 0
		for _, m := range c.Nodes {
			for _, pid := range running(t, m, command) {
				if !ended[m.Name+" "+pid] {
					n++
				}
			}
		}
		return n, nil
	})
}
