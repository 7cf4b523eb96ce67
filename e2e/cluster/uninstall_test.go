// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/kubernetes-sigs/blixt/e2e/cluster"
)

// Helm takes Blixt away while there are Gateways: nothing of it is left.
func TestUninstallLeavesNothing(t *testing.T) {
	installGatewayAPI(t)
	t.Run("installed", func(t *testing.T) {
		installBlixt(t, pool, "--set="+bridge) // until this ends
		apply(t, "balanced.yaml", "", "")
		programmed(t, "balanced")
		for _, m := range c.Nodes {
			if len(left(t, m)) < 2 {
				t.Errorf("%s has only %v while Blixt is installed", m.Name, left(t, m))
			}
		}
	})
	for _, m := range c.Nodes {
		if left := left(t, m); len(left) > 0 {
			t.Errorf("%s still has %s", m.Name, strings.Join(left, ", "))
		}
	}
	for _, kinds := range []string{
		"clusterbpfapplications,clusterbpfapplicationstates,nodedataplanes",
		"services,endpointslices,secrets,configmaps,daemonsets,deployments,pods,leases,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings",
	} {
		out, err := c.Kubectl(t.Context(), "get", kinds, "--all-namespaces", "--output=name", "--no-headers")
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.Lines(out) {
			if strings.Contains(name, "blixt") || strings.HasPrefix(kinds, "clusterbpf") {
				t.Errorf("left over: %s", name)
			}
		}
	}
	out, err := c.Kubectl(t.Context(), "get", "gateways,tcproutes,udproutes,gatewayclasses", "--all-namespaces", "--output=jsonpath={.items[*].metadata.finalizers}")
	if err != nil || out != "" {
		t.Errorf("finalizers: %s, %v", out, err)
	}
	remove(t, "balanced.yaml", "", "")
	kubectl(t, "delete", "namespace", system, "--timeout=30s")
}

// left returns what of Blixt's programs a node has: those at any interface, and
// the folders of their maps.
func left(t *testing.T, m *cluster.Machine) (found []string) {
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
