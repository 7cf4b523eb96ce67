// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// fix is one fix of bpfman in the chart, and what happens without it.
type fix struct {
	name string
	// undo returns a file without the fix, or "" if the file is the fix.
	undo func(t *testing.T, file, text string) string
	// broken fails the test unless bpfman is broken without the fix.
	broken func(t *testing.T)
	long   bool
}

// TestFixes checks that each fix of bpfman in the chart is needed: without it bpfman breaks
// as the chart's page says, and Blixt reports it.
func TestFixes(t *testing.T) {
	installGatewayAPI(t)
	for _, f := range []fix{
		{name: "pins", undo: released, broken: testLostProgram},
		{name: "override", long: true, undo: func(t *testing.T, file, text string) string {
			return managed(t, file, text)
		}, broken: awaitReleased},
		{name: "link ids", long: true, undo: func(_ *testing.T, file, text string) string {
			if strings.HasSuffix(file, "states.yaml") {
				return strings.ReplaceAll(text, "format: int64", "format: int32")
			}
			return text
		}, broken: testOrphans},
		{name: "signatures", long: true, undo: func(_ *testing.T, _, text string) string {
			return strings.ReplaceAll(text, "verify_enabled = false", "verify_enabled = true")
		}, broken: testLoadOffline},
	} {
		if f.long && !*long {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			dir := bpfmanFiles(t)
			changed := 0
			files, _ := filepath.Glob(dir + "/*.yaml")
			crds, _ := filepath.Glob(dir + "/crds/*.yaml")
			for _, file := range slices.Concat(files, crds) {
				before, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				after := f.undo(t, filepath.Base(file), string(before))
				if after == string(before) {
					continue
				}
				changed++
				if err := os.WriteFile(file, []byte(after), 0o600); err != nil {
					t.Fatal(err)
				}
				if after == "" {
					if err := os.Remove(file); err != nil {
						t.Fatal(err)
					}
				}
			}
			if changed == 0 {
				t.Fatal("the chart does not have the fix")
			}
			installBpfman(t, dir)
			f.broken(t)
		})
		if t.Failed() {
			return // leave everything for inspection
		}
	}
	installBpfman(t, bpfmanFiles(t))
}

// managed has bpfman's operator manage all that the Config says it leaves alone.
func managed(t *testing.T, file, text string) string {
	t.Helper()
	if file != "1-config.yaml" {
		return text
	}
	before, rest, found := strings.Cut(text, "  overrides:\n")
	if !found {
		t.Fatalf("no overrides in %s:\n%s", file, text)
	}
	for line := range strings.Lines(rest) {
		if !strings.HasPrefix(line, "  -") && !strings.HasPrefix(line, "    ") {
			break
		}
		rest = strings.TrimPrefix(rest, line)
	}
	return before + rest
}

// released has bpfman's operator make the DaemonSet as released.
func released(t *testing.T, file, text string) string {
	if file == "2-daemonset-bpfman-daemon.yaml" {
		return ""
	}
	return managed(t, file, text)
}

// bpfmanFiles writes what the chart installs of bpfman into a folder.
func bpfmanFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := cluster.WriteBpfman(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// installBpfman installs bpfman from a folder, in the place of one that has no
// programs.
func installBpfman(t *testing.T, dir string) {
	t.Helper()
	crds := "--filename=" + dir + "/crds"
	kubectl(t, "apply", "--server-side", "--force-conflicts", crds)
	kubectl(t, "wait", "--for=condition=Established", "--timeout=30s", crds)
	kubectl(t, "delete", "--ignore-not-found", "configs.bpfman.io/bpfman-config", "--timeout=1m")
	kubectl(t, "delete", "--ignore-not-found", "--namespace=bpfman", "daemonset/bpfman-daemon", "--cascade=foreground", "--timeout=1m")
	// With a Config that is gone they go, too, if bpfman's operator has made or changed them.
	kubectl(t, "delete", "--ignore-not-found", "--namespace=bpfman", "configmap/bpfman-config", "csidriver/csi.bpfman.io", "--timeout=1m")
	for _, m := range c.Nodes {
		if _, err := m.Exec(t.Context(), "sh", "-c", "umount /run/bpfman/fs 2>/dev/null; rm -rf /run/bpfman/db /run/bpfman/fs"); err != nil {
			t.Fatal(err)
		}
	}
	kubectl(t, "apply", "--server-side", "--force-conflicts", "--filename="+dir)
	kube.Wait(t, patience, "DaemonSet bpfman-daemon", true, func() (bool, error) {
		_, err := pinned(t)
		return err == nil, err
	})
	awaitPods(t, "bpfman")
}

// pinned reports whether pins outlive bpfman's container, as its DaemonSet is now.
func pinned(t *testing.T) (bool, error) {
	d := &appsv1.DaemonSet{}
	err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "bpfman", Name: "bpfman-daemon"}, d)
	return slices.ContainsFunc(d.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "pins" }), err
}

// awaitReleased waits until bpfman's operator has restored the released DaemonSet.
func awaitReleased(t *testing.T) {
	kube.Wait(t, patience, "whether pins outlive the container", false, func() (bool, error) { return pinned(t) })
	awaitPods(t, "bpfman")
}

// testLostProgram has the program of a node end with bpfman's pod, which bpfman does
// not report. Blixt has to report it soon, with a remedy that helps.
func testLostProgram(t *testing.T) {
	const soon = 10 * time.Second
	installBlixt(t, pool, "--set="+bridge)
	applyUntilEnd(t, "balanced.yaml", "", "")
	vips := routeVIPs(t, "balanced", c.Nodes[0])
	awaitLinks(t, "cni0", "eth0")
	time.Sleep(35 * time.Second) // agents learn the usual number of packets
	node := c.Nodes[0]
	ended := time.Now().Add(patience)
	kubectl(t, "--namespace=bpfman", "delete", "--wait=false", daemonOn(t, node))
	for len(leftOn(t, node)) > 0 {
		if time.Now().After(ended) {
			t.Fatalf("%s still has %v without the pod of bpfman", node.Name, leftOn(t, node))
		}
		time.Sleep(20 * time.Millisecond)
	}
	ended = time.Now()
	remedy := "Delete /run/bpfman/db on the node, the node's bpfman-daemon pod"
	kube.Wait(t, patience, "what NodeDataplane "+node.Name+" says", "ProgramGone, with the remedy", func() (string, error) { return conditionOf(t, node.Name, v1alpha1.NodeReady, remedy) })
	noticed := time.Since(ended)
	// Gateways name a missing node after 45 s, and take turns: all of a cluster would be
	// written each time that a node flaps.
	kube.Wait(t, 3*patience, "what the Gateway says", "missing: node-1, with the remedy", func() (string, error) {
		gw := &gwv1.Gateway{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "balanced"}, gw)
		p := meta.FindStatusCondition(gw.Status.Conditions, "Programmed")
		if strings.Contains(p.Message, "missing: "+node.Name) && strings.Contains(p.Message, remedy) {
			return "missing: node-1, with the remedy", err
		}
		return p.Message, err
	})
	told := time.Since(ended)
	t.Logf("the program has ended: noticed after %.1f s, in the Gateway's status after %.1f s", noticed.Seconds(), told.Seconds())
	if noticed > soon {
		t.Errorf("it took %v until the NodeDataplane says that a node's program is gone, want %v", noticed, soon)
	}
	awaitPods(t, "bpfman")

	if _, err := node.Exec(t.Context(), "rm", "-rf", "/run/bpfman/db"); err != nil {
		t.Fatal(err)
	}
	agent := agentOn(t, node)
	kubectl(t, "--namespace=bpfman", "delete", daemonOn(t, node))
	kubectl(t, "--namespace="+system, "delete", agent)
	awaitPods(t, "bpfman")
	awaitProgrammed(t, "balanced")
	for _, vip := range vips {
		addr := net.JoinHostPort(vip, "80")
		kube.Wait(t, patience, "nodes that answer at "+addr, len(c.Nodes), func() (int, error) {
			got, err := asker{dial: c.Outside}.ask(t, "tcp", addr, 20)
			return len(got), err
		})
	}
}

// conditionOf returns the reason of a condition of a NodeDataplane, and whether its
// message has the remedy.
func conditionOf(t *testing.T, node, condition, remedy string) (string, error) {
	ndp := &v1alpha1.NodeDataplane{}
	err := c.Client.Get(t.Context(), client.ObjectKey{Name: node}, ndp)
	said := meta.FindStatusCondition(ndp.Status.Conditions, condition)
	switch {
	case said == nil:
		return "nothing", err
	case strings.Contains(said.Message, remedy):
		return said.Reason + ", with the remedy", err
	}
	return fmt.Sprintf("%s: %s", said.Reason, said.Message), err
}

// daemonOn and agentOn name the pod of bpfman and of Blixt on a node.
func daemonOn(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return podOn(t, m, "bpfman", client.MatchingLabels{"name": "bpfman-daemon"})
}

func agentOn(t *testing.T, m *cluster.Machine) string {
	t.Helper()
	return podOn(t, m, system, client.MatchingLabels{"app.kubernetes.io/component": "agent"})
}

func podOn(t *testing.T, m *cluster.Machine, namespace string, of client.MatchingLabels) string {
	t.Helper()
	var list corev1.PodList
	if err := c.Client.List(t.Context(), &list, client.InNamespace(namespace), of); err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Spec.NodeName == m.Name && p.DeletionTimestamp == nil {
			return "pod/" + p.Name
		}
	}
	t.Fatalf("no pod of namespace %s on %s has labels %v", namespace, m.Name, of)
	return ""
}

// testOrphans has the API server refuse the ids of bpfman's links, until they are small
// by chance. Blixt has to report the copies that this leaves, with the remedy.
func testOrphans(t *testing.T) {
	installBlixt(t, pool)
	for _, m := range c.Nodes {
		kube.Wait(t, 2*patience, "what NodeDataplane "+m.Name+" says", "Orphans, with the remedy", func() (string, error) {
			return conditionOf(t, m.Name, v1alpha1.NodeDrifted, "Change the format to int64, as Blixt's chart does")
		})
	}
}

// testLoadOffline checks that bpfman loads nothing where it cannot reach the internet.
func testLoadOffline(t *testing.T) {
	installBlixt(t, pool)
	for _, m := range c.Nodes {
		kube.Wait(t, patience, "what NodeDataplane "+m.Name+" says", "LoadFailed, with the remedy", func() (string, error) {
			return conditionOf(t, m.Name, v1alpha1.NodeReady, "verify_enabled = false")
		})
	}
}
