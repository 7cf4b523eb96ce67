// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// testUninstall uninstalls Blixt with Helm while there are Gateways and a node is down.
// The uninstaller reports that, and ends when the node is back. Nothing of Blixt is
// left.
func testUninstall(t *testing.T) {
	for _, m := range c.Nodes {
		if len(leftOn(t, m)) < 2 {
			t.Errorf("%s has only %v while Blixt is installed", m.Name, leftOn(t, m))
		}
	}
	down := c.Nodes[1]
	if err := c.PowerOff(down); err != nil {
		t.Fatal(err)
	}
	awaitNotReady(t, down)
	back := make(chan error, 1)
	go func() { back <- powerOnWhenMissed(down) }()
	helm(t, "uninstall", "blixt", "--namespace="+system)
	if err := <-back; err != nil {
		t.Error(err)
	}
	for _, m := range c.Nodes {
		if left := leftOn(t, m); len(left) > 0 {
			t.Errorf("%s still has %s", m.Name, strings.Join(left, ", "))
		}
	}
	for _, kinds := range []string{
		"clusterbpfapplications,clusterbpfapplicationstates,nodedataplanes",
		"services,endpointslices,secrets,configmaps,daemonsets,deployments,pods,leases,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings",
	} {
		// The pods of the node that was down end last.
		kube.Wait(t, patience, "what is left of Blixt", nil, func() (found []string, err error) {
			out, err := c.Kubectl(t.Context(), "get", kinds, "--all-namespaces", "--output=name", "--no-headers")
			for name := range strings.Lines(out) {
				if strings.Contains(name, "blixt") || strings.HasPrefix(kinds, "clusterbpf") {
					found = append(found, name)
				}
			}
			return found, err
		})
	}
	out, err := c.Kubectl(t.Context(), "get", "gateways,tcproutes,udproutes,gatewayclasses", "--all-namespaces", "--output=jsonpath={.items[*].metadata.finalizers}")
	if err != nil || out != "" {
		t.Errorf("finalizers: %s, %v", out, err)
	}
	kubectl(t, "delete", "namespace", system, "--timeout=30s")
}

// awaitNotReady waits until Kubernetes has noticed that a node is down.
func awaitNotReady(t *testing.T, m *cluster.Machine) {
	t.Helper()
	kube.Wait(t, 2*patience, "whether "+m.Name+" is ready", corev1.ConditionUnknown, func() (corev1.ConditionStatus, error) {
		node := &corev1.Node{}
		err := c.Client.Get(t.Context(), client.ObjectKey{Name: m.Name}, node)
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status, err
			}
		}
		return "", err
	})
}

// powerOnWhenMissed waits until the uninstaller's log says that it waits for a node,
// and then starts the node.
func powerOnWhenMissed(m *cluster.Machine) error {
	said, missed := "", "on node "+m.Name+": the node is not ready, so that nobody there can unload the program"
	for deadline := time.Now().Add(2 * patience); !strings.Contains(said, missed); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			return fmt.Errorf("blixt uninstall has not said %q but:\n%s", missed, said)
		}
		said, _ = c.Kubectl(context.Background(), "--namespace="+system, "logs", "--selector=job-name=blixt-uninstall", "--tail=-1") // there may be no pod yet
	}
	return c.PowerOn(m)
}

// leftOn returns what a node still has of Blixt's programs: those at any interface, and
// the folders of their maps.
func leftOn(t *testing.T, m *cluster.Machine) (found []string) {
	t.Helper()
	err := m.Do(func() error {
		all, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range all {
			for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
				programs, err := link.QueryPrograms(link.QueryOptions{Target: i.Index, Attach: at})
				if err != nil {
					return err
				}
				if len(programs.Programs) > 0 {
					found = append(found, "a program at "+i.Name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(m.File("/run/bpfman/fs/maps/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if _, err := os.Stat(filepath.Join(f, "frontends")); err == nil {
			found = append(found, "maps in "+filepath.Base(f))
		}
	}
	return found
}
