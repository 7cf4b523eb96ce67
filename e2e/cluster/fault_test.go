// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
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
	// application is the one that gets new connections.
	application string
	// counted reports whether this test can read the application's maps.
	counted bool
	// nodePorts reports whether nodes serve ports of their own addresses, too, as they do
	// for Gateways with addresses of a cloud.
	nodePorts bool
	loads     []*load
}

// startLoad starts more clients.
func (s *scene) startLoad(t *testing.T) {
	l := startLoad(t, s.vips)
	t.Cleanup(l.end)
	s.loads = append(s.loads, l)
}

// endFirstLoad has the first clients close their connections.
func (s *scene) endFirstLoad() {
	s.loads[0].end()
	s.loads = s.loads[1:]
}

// run does something that no client may notice, and checks new clients afterwards.
func (s *scene) run(t *testing.T, name string, do func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		s.during(t, do)
		s.checkNewClients(t)
	})
	s.awaitOwn(t)
}

// awaitOwn waits until nothing is served but the scene's addresses: what a step has made
// is deleted when the step ends, and frontends that leave while flows are counted look
// like flows that were lost.
func (s *scene) awaitOwn(t *testing.T) {
	t.Helper()
	if !s.counted || s.nodePorts {
		return
	}
	kube.Wait(t, patience, "frontends of Gateways that are deleted", nil, func() (others []string, err error) {
		for at := range countFlows(t, s.application) {
			if !slices.ContainsFunc(s.vips, func(vip string) bool { return strings.Contains(at, " "+net.JoinHostPort(vip, "")) }) {
				others = append(others, at)
			}
		}
		return others, nil
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

// checkNewClients has new clients ask. Servers of both nodes have to answer, and the
// program that is to balance them has to count them.
func (s *scene) checkNewClients(t *testing.T) {
	t.Helper()
	outside := asker{name: "outside", by: c.Nodes[0], dial: c.Outside}
	for _, vip := range s.vips {
		addr := net.JoinHostPort(vip, "80")
		for _, network := range []string{"tcp", "udp"} {
			if s.counted {
				checkPath(t, s.application, outside, network, addr)
				continue
			}
			got, err := outside.ask(t, network, addr, 20)
			if len(got) != len(c.Nodes) || err != nil {
				t.Errorf("%s to %s: answers %v, %v, want some of each node", network, addr, got, err)
			}
		}
	}
}

// TestFaults ends, kills and exchanges each part of Blixt, bpfman and the control
// plane, under load: the kernels of the nodes go on serving. At last it uninstalls
// Blixt.
func TestFaults(t *testing.T) {
	v := compileVariants(t)
	installGatewayAPI(t)
	first := installBlixt(t, pool, "--set="+bridge)
	applyUntilEnd(t, "balanced.yaml", "", "")
	s := &scene{vips: routeVIPs(t, "balanced", c.Nodes[0]), application: rollout.Name(first), counted: true}
	awaitLinks(t, "cni0", "eth0")
	s.startLoad(t)

	if *long { // TestRelease exchanges all of them, and rollout's tests tell what becomes of images
		testExchanges(t, s, v, first)
	}
	s.run(t, "registry away", func(t *testing.T) { testRegistryAway(t, s, v) })
	s.startLoad(t)

	// Both programs have connections now.
	s.run(t, "bpfman's daemons killed", func(t *testing.T) {
		ended := killAll(t, "/usr/local/sbin/bpfman-rpc ")
		awaitRestarted(t, "/usr/local/sbin/bpfman-rpc ", ended)
		awaitPods(t, "bpfman")
		awaitLinks(t, "cni0", "eth0")
	})
	s.run(t, "bpfman's pods deleted", func(t *testing.T) {
		before := programIDs(t, s.application)
		kubectl(t, "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon")
		awaitPods(t, "bpfman")
		awaitLinks(t, "cni0", "eth0")
		if after := programIDs(t, s.application); !maps.Equal(before, after) {
			t.Errorf("programs %v, before they were %v", after, before)
		}
	})
	s.run(t, "API server away", func(t *testing.T) {
		if err := c.Control.Halt("kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(outageTime())
		if err := c.Control.Resume("kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		kube.Wait(t, patience, "the API server's word", "ok", apiReady)
		awaitProgrammed(t, "balanced")
	})
	s.endFirstLoad()
	s.run(t, "old connections ended", func(t *testing.T) { awaitAlone(t, s.application) })
	s.run(t, "etcd restored", func(t *testing.T) { testRestoredEtcd(t, s.application) })
	s.endFirstLoad()
	s.run(t, "power lost", func(t *testing.T) { testPowerLoss(t, s) })

	s.startLoad(t)
	s.run(t, "Blixt of another layout", func(t *testing.T) { testAnotherLayout(t, s, v) })
	s.startLoad(t)
	s.run(t, "agents killed", func(t *testing.T) {
		ended := killAll(t, "/blixt agent ")
		awaitPods(t, system)
		awaitRestarted(t, "/blixt agent ", ended)
	})
	s.run(t, "operators deleted", func(t *testing.T) {
		kubectl(t, "--namespace="+system, "delete", "pods", "--selector=app.kubernetes.io/component=operator")
		awaitPods(t, system)
		awaitProgrammed(t, "balanced")
	})
	s.run(t, "bpfman-agents killed", func(t *testing.T) {
		ended := killAll(t, "/bpfman-agent ")
		awaitRestarted(t, "/bpfman-agent ", ended)
	})
	s.endFirstLoad()
	s.run(t, "connections of the old layout ended", func(t *testing.T) { awaitAlone(t, s.application) })
	s.endFirstLoad()
	t.Run("uninstalled with a node down", testUninstall)
}

// testExchanges exchanges the images of Blixt, also for bytecode that no node can run.
func testExchanges(t *testing.T, s *scene, v *variants, bytecode string) {
	s.run(t, "operator and agents exchanged", func(t *testing.T) { testExchangedImages(t, s, v) })
	before := programIDs(t, s.application)
	s.run(t, "bytecode that the kernel refuses", func(t *testing.T) {
		setBytecode(t, v.objectImage(t, v.bad))
		awaitNodes(t, "True UpgradeBlocked", "bpfman could not load the program")
		awaitGateway(t, "UpgradeBlocked: Node node-1 goes on with "+s.application)
	})
	s.run(t, "bytecode of an unknown layout", func(t *testing.T) {
		setBytecode(t, v.objectImage(t, v.unknown))
		awaitNodes(t, "True ServingPrevious", fmt.Sprintf("does blixt bytecode inspect show layout %d for the image, which this version of Blixt writes?", bpf.Layout))
	})
	s.run(t, "bytecode given back", func(t *testing.T) {
		setBytecode(t, bytecode)
		awaitNodes(t, "True Serving", "")
		awaitApplications(t, s.application)
		if after := programIDs(t, s.application); !maps.Equal(before, after) {
			t.Errorf("programs %v, before they were %v", after, before)
		}
	})
}

// testPowerLoss powers a node off. It has to serve again once it is back.
func testPowerLoss(t *testing.T, s *scene) {
	node := c.Nodes[1]
	before := programIDs(t, s.application)[node.Name]
	if err := c.PowerOff(node); err != nil {
		t.Fatal(err)
	}
	if err := c.PowerOn(node); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, 2*patience, "whether another program runs on "+node.Name, true, func() (bool, error) { return programIDs(t, s.application)[node.Name] != before, nil })
	awaitPods(t, "default")
	awaitLinks(t, "cni0", "eth0")
	awaitProgrammed(t, "balanced")
	for _, m := range []*cluster.Machine{node, c.Nodes[0]} { // whose agent may have to find another operator first
		routeVIPs(t, "balanced", m)
		for _, vip := range s.vips {
			addr := net.JoinHostPort(vip, "80")
			kube.Wait(t, patience, "nodes that answer who comes by "+m.Name, 2, func() (int, error) {
				got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 20)
				return len(got), err
			})
			checkPath(t, s.application, asker{name: "outside", by: m, dial: c.Outside}, "tcp", addr)
		}
	}
}

// programIDs returns the ids of the nodes' programs.
func programIDs(t *testing.T, application string) map[string]uint32 {
	t.Helper()
	ids := map[string]uint32{}
	for _, m := range c.Nodes {
		ids[m.Name] = programID(t, m.Name, application)
	}
	return ids
}

// killAll kills processes on all nodes, and returns which.
func killAll(t *testing.T, command string) map[string]bool {
	t.Helper()
	return signalAll(t, "-KILL", command)
}

// signalAll sends a signal to processes on all nodes, and returns which they are.
func signalAll(t *testing.T, name, command string) map[string]bool {
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

// awaitRestarted waits until as many new processes run as have ended.
func awaitRestarted(t *testing.T, command string, ended map[string]bool) {
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
