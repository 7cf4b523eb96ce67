// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"maps"
	"net"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
)

// scene is Blixt with clients.
type scene struct {
	vips []string
	// application takes new connections.
	application string
	// counted tells whether this test can read the application's maps.
	counted bool
	loads   []*load
}

// clients begins more of them.
func (s *scene) clients(t *testing.T) {
	l := begin(t, s.vips)
	t.Cleanup(l.end)
	s.loads = append(s.loads, l)
}

// leave has the first clients close their connections.
func (s *scene) leave() {
	s.loads[0].end()
	s.loads = s.loads[1:]
}

// run does something that no client may notice, and asks for more afterwards.
func (s *scene) run(t *testing.T, name string, do func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		s.during(t, do)
		s.ask(t)
	})
}

func (s *scene) during(t *testing.T, do func(t *testing.T)) {
	t.Helper()
	all := func() { do(t) }
	for _, l := range s.loads {
		inner := all
		all = func() { l.during(t, inner) }
	}
	all()
}

// ask has new clients be answered by the servers of both nodes, because of the
// program that is to do it.
func (s *scene) ask(t *testing.T) {
	t.Helper()
	outside := asker{name: "outside", by: c.Nodes[0], dial: c.Outside}
	for _, vip := range s.vips {
		addr := net.JoinHostPort(vip, "80")
		for _, network := range []string{"tcp", "udp"} {
			if s.counted {
				path(t, s.application, outside, network, addr)
				continue
			}
			got, err := outside.ask(t, network, addr, 20)
			if len(got) != len(c.Nodes) || err != nil {
				t.Errorf("%s to %s: answers %v, %v, want some of each node", network, addr, got, err)
			}
		}
	}
}

// Whatever of Blixt and of the control plane ends, or is replaced by something
// better or worse, the kernels of the nodes serve on. At last it is taken away.
func TestFaults(t *testing.T) {
	v := compileVariants(t)
	installGatewayAPI(t)
	first := installBlixt(t, pool, "--set="+bridge)
	applied(t, "balanced.yaml", "", "")
	s := &scene{vips: routeVIPs(t, "balanced", c.Nodes[0]), application: rollout.Name(first), counted: true}
	links(t, "cni0", "eth0")
	s.clients(t)

	s.run(t, "operator and agents exchanged", func(t *testing.T) { exchangeImages(t, s, v) })
	before := programs(t, s.application)
	s.run(t, "bytecode that the kernel refuses", func(t *testing.T) {
		askFor(t, v.objectImage(t, v.bad))
		nodesSay(t, "True UpgradeBlocked", "bpfman could not load the program")
		gatewaySays(t, "UpgradeBlocked: Node node-1 goes on with "+s.application)
	})
	s.run(t, "bytecode of an unknown layout", func(t *testing.T) {
		askFor(t, v.objectImage(t, v.unknown))
		nodesSay(t, "True ServingPrevious", fmt.Sprintf("does blixt bytecode inspect show layout %d for the image, which this version of Blixt writes?", bpf.Layout))
	})
	s.run(t, "bytecode given back", func(t *testing.T) {
		askFor(t, first)
		nodesSay(t, "True Serving", "")
		remain(t, s.application)
		if after := programs(t, s.application); !maps.Equal(before, after) {
			t.Errorf("programs %v, before they were %v", after, before)
		}
	})
	s.run(t, "registry away", func(t *testing.T) { registryAway(t, s, v) })
	s.clients(t)

	// Connections are with both programs now.
	s.run(t, "bpfman's daemons killed", func(t *testing.T) {
		ended := kill(t, "/usr/local/sbin/bpfman-rpc ")
		again(t, "/usr/local/sbin/bpfman-rpc ", ended)
		awaitPods(t, "bpfman")
		links(t, "cni0", "eth0")
	})
	s.run(t, "bpfman's pods deleted", func(t *testing.T) {
		before := programs(t, s.application)
		kubectl(t, "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon")
		awaitPods(t, "bpfman")
		links(t, "cni0", "eth0")
		if after := programs(t, s.application); !maps.Equal(before, after) {
			t.Errorf("programs %v, before they were %v", after, before)
		}
	})
	s.run(t, "API server away", func(t *testing.T) {
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
	s.leave()
	s.run(t, "old connections ended", func(t *testing.T) { servesAlone(t, s.application) })
	s.run(t, "etcd restored", func(t *testing.T) { restored(t, s.application) })
	s.leave()
	s.run(t, "power lost", func(t *testing.T) { power(t, s) })

	s.clients(t)
	s.run(t, "Blixt of another layout", func(t *testing.T) { anotherLayout(t, s, v) })
	s.clients(t)
	s.run(t, "agents killed", func(t *testing.T) {
		ended := kill(t, "/blixt agent ")
		awaitPods(t, system)
		again(t, "/blixt agent ", ended)
	})
	s.run(t, "operators deleted", func(t *testing.T) {
		kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
		awaitPods(t, system)
		programmed(t, "balanced")
	})
	s.run(t, "bpfman-agents killed", func(t *testing.T) {
		ended := kill(t, "/bpfman-agent ")
		again(t, "/bpfman-agent ", ended)
	})
	s.leave()
	s.run(t, "connections of the old layout ended", func(t *testing.T) { servesAlone(t, s.application) })
	s.leave()
	t.Run("uninstalled with a node down", uninstalled)
}

// power has a node lose its power: it serves again once it is back.
func power(t *testing.T, s *scene) {
	node := c.Nodes[1]
	before := programs(t, s.application)[node.Name]
	if err := c.PowerOff(node); err != nil {
		t.Fatal(err)
	}
	if err := c.PowerOn(node); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 2*patience, "whether another program runs on "+node.Name, true, func() (bool, error) { return programs(t, s.application)[node.Name] != before, nil })
	awaitPods(t, "default")
	links(t, "cni0", "eth0")
	programmed(t, "balanced")
	for _, m := range []*cluster.Machine{node, c.Nodes[0]} { // which may have to find another operator first
		routeVIPs(t, "balanced", m)
		for _, vip := range s.vips {
			addr := net.JoinHostPort(vip, "80")
			kube.Wait(t, patience, "nodes that answer who comes by "+m.Name, 2, func() (int, error) {
				got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 20)
				return len(got), err
			})
			path(t, s.application, asker{name: "outside", by: m, dial: c.Outside}, "tcp", addr)
		}
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
	return send(t, "-KILL", command)
}

// send sends a signal to processes on all nodes, and returns which they are.
func send(t *testing.T, name, command string) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, m := range c.Nodes {
		for _, pid := range processes(t, m, command) {
			if _, err := m.Exec(t.Context(), "kill", name, pid); err != nil {
				t.Fatal(err)
			}
			all[m.Name+" "+pid] = true
		}
	}
	return all
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
