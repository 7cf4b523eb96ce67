// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// TestRelease does with releases what users do, in a cluster that has neither bpfman nor
// Gateway API, and whose nodes reach no registry but one that has what was published.
// Connections outlast all but the removal, which leaves nothing but CRDs.
func TestRelease(t *testing.T) {
	requireMachines(t)
	if !c.Options.NoBpfman {
		t.Fatal("the cluster has bpfman, which a release has to bring: test with -args -no-bpfman")
	}
	u := newUser(t)
	removeKinds(t)
	before := allObjects(t)

	u.run(t, "helm install blixt oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.0 --namespace blixt-system --create-namespace --wait")
	applyFile(t, "balanced.yaml", "", "")
	s := &scene{vips: u.balanced(t), application: u.application(t, older), counted: true, nodePorts: true}
	awaitHealthy(t, u.programs(older)+"/blixt")
	s.checkNewClients(t)

	s.startLoad(t)
	s.run(t, "installed twice", func(t *testing.T) { u.installTwice(t) })
	s.run(t, "upgraded", func(t *testing.T) {
		u.run(t, "helm upgrade blixt oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.1 --namespace blixt-system --wait")
		s.awaitRelease(t, u, newer)
	})
	s.startLoad(t)
	s.endFirstLoad() // what is older than the upgrade does not outlast a rollback
	s.run(t, "rolled back", func(t *testing.T) {
		u.run(t, "helm rollback blixt --namespace blixt-system --wait")
		s.awaitRelease(t, u, older)
	})
	s.endFirstLoad()
	awaitAlone(t, s.application)

	s.startLoad(t)
	s.run(t, "upgraded while bpfman's daemons are killed", func(t *testing.T) {
		u.run(t, "helm upgrade blixt oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.1 --namespace blixt-system")
		killWhileLoading(t, u.application(t, newer))
		s.awaitRelease(t, u, newer)
		awaitPods(t, "bpfman")
	})
	s.run(t, "upgraded to an image that does not exist", func(t *testing.T) { u.upgradeToNothing(t) })
	s.run(t, "restarted without a registry", func(t *testing.T) { testRestartWithoutRegistry(t, s.application) })
	if *long {
		s.endFirstLoad()
		awaitAlone(t, s.application)
		t.Run("rolled back with a node down", func(t *testing.T) { u.testNodeDown(t, s) })
	}

	u.run(t, "helm uninstall blixt --namespace blixt-system") // while clients ask
	for _, l := range s.loads {
		l.end()
	}
	checkRemoved(t, before)

	// The CRDs are there already now.
	u.run(t, "helm install another oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.1 --namespace blixt-system --wait --set-file config.dataplane.bytecode.verificationKeys[0]="+u.key)
	s.vips = u.balanced(t)
	u.takeKinds(t)
	awaitHealthy(t, u.programs(newer)+"/blixt")
	s.checkNewClients(t)
	u.run(t, "helm uninstall another --namespace blixt-system")
	checkRemoved(t, before)

	if *long {
		u.installByKubectl(t, s)
		checkRemoved(t, before)
	}
	deleteFile(t, "balanced.yaml", "", "")
	removeKinds(t)
	kubectl(t, "delete", "namespace", system, "--ignore-not-found", "--timeout=1m")
}

// balanced gives the Gateway addresses, as a cloud would, and returns them when all
// nodes serve them.
func (u *user) balanced(t *testing.T) (vips []string) {
	t.Helper()
	const addresses = `{"status":{"loadBalancer":{"ingress":[{"ip":"` + vip4 + `"},{"ip":"` + vip6 + `"}]}}}`
	kube.Wait(t, patience, "whether the Gateway has a Service", true, func() (bool, error) {
		_, err := c.Kubectl(t.Context(), "patch", "service", "blixt-balanced", "--subresource=status", "--type=merge", "--patch="+addresses)
		return err == nil, err
	})
	return routeVIPs(t, "balanced", c.Nodes[0])
}

// installTwice checks that Helm refuses a second Blixt, which would take the first one's
// objects.
func (u *user) installTwice(t *testing.T) {
	const again = " oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.1 --namespace blixt-system --wait"
	u.fail(t, "helm install blixt"+again, "cannot re-use a name that is still in use")
	u.fail(t, "helm install another"+again, "invalid ownership metadata")
}

// installByKubectl installs without Helm, as the head of install.yaml says, and removes it.
func (u *user) installByKubectl(t *testing.T, s *scene) {
	t.Helper()
	manifests := u.dist(newer) + "/install.yaml"
	u.run(t, "kubectl apply --server-side -f "+manifests)
	awaitPods(t, "bpfman")
	awaitPods(t, system)
	s.vips = u.balanced(t)
	s.checkNewClients(t)
	u.run(t, "blixt uninstall --yes --with-bpfman && kubectl delete -f "+manifests+" --selector '!blixt.x-k8s.io/kept'")
}

// takeKinds does what blixt doctor says about kinds that another release has left.
func (u *user) takeKinds(t *testing.T) {
	t.Helper()
	for _, f := range runDoctor(t, u.programs(newer)+"/blixt") {
		if _, command, found := strings.Cut(f.Remedy, "then helm upgrade: "); f.Check == "kinds-release" && found {
			u.run(t, command)
			return
		}
	}
	t.Error("blixt doctor does not say whose the kinds are")
}

// upgradeToNothing upgrades to an operator that no registry has. The one before goes on,
// and a rollback mends the release.
func (u *user) upgradeToNothing(t *testing.T) {
	const upgrade = "helm upgrade blixt oci://ghcr.io/kubernetes-sigs/blixt/charts/blixt --version 0.9.0 --namespace blixt-system --timeout=20s" +
		" --set image.digest=sha256:0000000000000000000000000000000000000000000000000000000000000000"
	u.fail(t, upgrade+" --wait", "context deadline exceeded")
	awaitProgrammed(t, "balanced")
	u.run(t, "helm rollback blixt --namespace blixt-system --wait")
	awaitPods(t, system)
	u.fail(t, upgrade+" --atomic", "has been rolled back due to atomic being set")
	awaitPods(t, system)
	awaitProgrammed(t, "balanced")
}

// awaitRelease waits until nodes have new connections balanced by the program of a
// release. An older program that has connections drains.
func (s *scene) awaitRelease(t *testing.T, u *user, version string) {
	t.Helper()
	old := s.application
	s.application = u.application(t, version)
	kube.Wait(t, 2*patience, "nodes whose old program drains", []string{"node-1", "node-2"}, func() ([]string, error) { return draining(t, old), nil })
	kube.Wait(t, patience, "nodes whose new program drains", nil, func() ([]string, error) { return draining(t, s.application), nil })
	awaitPods(t, system)
	awaitProgrammed(t, "balanced")
}

// killWhileLoading kills bpfman's daemons as soon as they are told of an application, and
// once more.
func killWhileLoading(t *testing.T, application string) {
	t.Helper()
	kube.Wait(t, patience, "whether bpfman is told of "+application, true, func() (bool, error) {
		out, err := c.Kubectl(t.Context(), "get", "clusterbpfapplications", "--output=name")
		return strings.Contains(out, "/"+application), err
	})
	for range 2 {
		ended := killAll(t, "/usr/local/sbin/bpfman-rpc ")
		awaitRestarted(t, "/usr/local/sbin/bpfman-rpc ", ended)
	}
}

// testRestartWithoutRegistry deletes all pods of Blixt and bpfman's daemons while no image can be
// pulled: nodes have those that they need. The one pod of bpfman's operator may get to a node that
// has not had it, and lacks its image.
func testRestartWithoutRegistry(t *testing.T, application string) {
	reachable := refuseRegistry(t)
	t.Cleanup(reachable)
	before := programIDs(t, application)
	kubectl(t, "--namespace="+system, "delete", "pods", "--all")
	kubectl(t, "--namespace=bpfman", "delete", "pods", "--selector=name=bpfman-daemon")
	awaitPods(t, "bpfman")
	awaitPods(t, system)
	awaitProgrammed(t, "balanced")
	reachable()
	if after := programIDs(t, application); !maps.Equal(before, after) {
		t.Errorf("programs %v, before they were %v", after, before)
	}
}

// testNodeDown changes the release while a node is down. The other one goes on, and the
// node that was away follows.
func (u *user) testNodeDown(t *testing.T, s *scene) {
	down := c.Nodes[1]
	if err := c.PowerOff(down); err != nil {
		t.Fatal(err)
	}
	awaitNotReady(t, down)
	addr := net.JoinHostPort(s.vips[0], "80")
	kube.Wait(t, patience, "servers that answer", map[string]bool{c.Nodes[0].Name: true}, func() (map[string]bool, error) {
		all := map[string]bool{}
		got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 20)
		for a := range got {
			all[a.node] = true
		}
		return all, err
	})
	l := startLoad(t, s.vips)
	t.Cleanup(l.end)
	l.during(t, func() {
		u.run(t, "helm rollback blixt --namespace blixt-system")
		kube.Wait(t, 2*patience, "whether the older program drains", true, func() (bool, error) {
			return status(t, c.Nodes[0], programID(t, c.Nodes[0].Name, s.application)).Draining, nil
		})
		if err := c.PowerOn(down); err != nil {
			t.Fatal(err)
		}
		s.application = u.application(t, older)
		awaitPods(t, system)
		awaitProgrammed(t, "balanced")
	})
	l.end()
	s.checkNewClients(t)
}

// removeKinds deletes the CRDs that stay when Blixt is removed.
func removeKinds(t *testing.T) {
	t.Helper()
	out, err := c.Kubectl(t.Context(), "get", "customresourcedefinitions", "--output=name")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(out) {
		_, kind, _ := strings.Cut(name, "/")
		_, group, _ := strings.Cut(kind, ".")
		if slices.Contains([]string{"blixt.x-k8s.io", "bpfman.io", "gateway.networking.k8s.io"}, group) {
			kubectl(t, "delete", name, "--timeout=1m")
		}
	}
}

// allObjects returns all objects of the cluster, but pods of namespaces that are not
// Blixt's, and events.
func allObjects(t *testing.T) (all []string) {
	t.Helper()
	kinds, err := c.Kubectl(t.Context(), "api-resources", "--verbs=list,delete", "--output=name")
	if err != nil {
		t.Fatal(err)
	}
	names := slices.DeleteFunc(strings.Fields(kinds), func(name string) bool { return strings.HasPrefix(name, "events") })
	out, err := c.Kubectl(t.Context(), "get", strings.Join(names, ","), "--all-namespaces",
		`--output=jsonpath={range .items[*]}{.kind} {.metadata.namespace} {.metadata.name}{"\n"}{end}`)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "Pod default ") && !strings.HasPrefix(line, "Pod kube-system ") {
			all = append(all, strings.TrimSpace(line))
		}
	}
	slices.Sort(all)
	return all
}

// checkRemoved fails the test if the cluster has more than before, besides CRDs, the
// namespace of bpfman, and what users have written.
func checkRemoved(t *testing.T, before []string) {
	t.Helper()
	kube.Wait(t, patience, "objects that are left", nil, func() (left []string, err error) {
		for _, o := range allObjects(t) {
			if !slices.Contains(before, o) && !mayStay(o) {
				left = append(left, o)
			}
		}
		return left, nil
	})
	kube.Wait(t, patience, "drivers that kubelets know", "", func() (string, error) {
		return c.Kubectl(t.Context(), "get", "csinodes", "--output=jsonpath={.items[*].spec.drivers[*].name}")
	})
	for _, m := range c.Nodes {
		if diff := cmp.Diff([]string(nil), leftOn(t, m)); diff != "" {
			t.Errorf("left on %s (-want +got):\n%s", m.Name, diff)
		}
		for _, program := range []string{"/usr/local/sbin/bpfman-rpc ", "/bpfman-agent ", "/registrar ", "/blixt "} {
			if pids := running(t, m, program); len(pids) > 0 {
				t.Errorf("%s still runs %s: %v", m.Name, program, pids)
			}
		}
	}
}

// mayStay reports whether an object stays when Blixt is removed.
func mayStay(object string) bool {
	kind, rest, _ := strings.Cut(object, " ")
	namespace, name, _ := strings.Cut(rest, " ")
	switch kind {
	case "CustomResourceDefinition", "APIService", "Gateway", "TCPRoute", "UDPRoute", "BlixtGatewayConfig":
		return true
	case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding": // of the kinds, with which it stays
		return rest == " safe-upgrades.gateway.networking.k8s.io"
	case "Lease": // bpfman's operator
		return namespace == "bpfman"
	case "BlixtConfig":
		return name == "blixt"
	case "Namespace":
		return name == "bpfman"
	case "ConfigMap":
		return namespace == "bpfman" && name == "kube-root-ca.crt"
	case "ServiceAccount":
		return namespace == "bpfman" && name == "default"
	}
	return false
}
