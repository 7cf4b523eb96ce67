// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
)

// field is a line of /proc/PID/status.
var field = regexp.MustCompile(`(?m)^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Uid|Gid):\t(.*)$`)

// testPrivileges checks what the kernel and the API report of the running agents: they
// may do nothing but write maps.
func testPrivileges(t *testing.T) {
	const none, same = "0000000000000000", "65532\t65532\t65532\t65532"
	want := map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
		"NoNewPrivs": "1", "Seccomp": "2", "Uid": same, "Gid": same,
	}
	for _, m := range c.Nodes {
		for _, pid := range processes(t, m, "/blixt agent ") {
			status, err := m.Exec(t.Context(), "cat", "/proc/"+pid+"/status")
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for _, match := range field.FindAllStringSubmatch(status, -1) {
				got[match[1]] = match[2]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("agent on %s (-want +got):\n%s", m.Name, diff)
			}
		}
	}
	var agents corev1.PodList
	if err := c.Client.List(t.Context(), &agents, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/component": "agent"}); err != nil {
		t.Fatal(err)
	}
	if len(agents.Items) != len(c.Nodes) {
		t.Errorf("%d agents, want one on each of %d nodes", len(agents.Items), len(c.Nodes))
	}
	for _, p := range agents.Items {
		checkVolumes(t, &p)
	}
	if out, err := c.Kubectl(t.Context(), "label", "--dry-run=server", "--overwrite", "namespace", system, "pod-security.kubernetes.io/enforce=baseline"); err != nil || strings.Contains(out, "Warning") {
		t.Errorf("%s, %v", out, err)
	}
}

// checkVolumes checks that an agent has four volumes: bpfman's maps, a token that only
// the operator accepts, a certificate, and the token of those who may read metrics.
func checkVolumes(t *testing.T, p *corev1.Pod) {
	t.Helper()
	got := map[string]string{}
	for _, v := range p.Spec.Volumes {
		switch {
		case v.CSI != nil:
			got[v.Name] = v.CSI.Driver
		case v.Projected != nil:
			for _, s := range v.Projected.Sources {
				got[v.Name] += fmt.Sprintf("token for %s", s.ServiceAccountToken.Audience)
			}
		case v.ConfigMap != nil:
			got[v.Name] = "ConfigMap " + v.ConfigMap.Name
		case v.Secret != nil:
			got[v.Name] = "Secret " + v.Secret.SecretName
		default:
			got[v.Name] = fmt.Sprintf("%+v", v)
		}
	}
	want := map[string]string{"maps": "csi.bpfman.io", "token": "token for operator.blixt.x-k8s.io", "ca": "ConfigMap blixt-ca", "metrics": "Secret blixt-metrics"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("volumes of %s, which mounts %v (-want +got):\n%s", p.Name, slices.Sorted(maps.Keys(got)), diff)
	}
}

// processes returns the ids of processes on a machine whose command line begins with
// this.
func processes(t *testing.T, m *cluster.Machine, command string) []string {
	t.Helper()
	pids := running(t, m, command)
	if len(pids) == 0 {
		t.Fatalf("no process %s on %s", command, m.Name)
	}
	return pids
}

func running(t *testing.T, m *cluster.Machine, command string) []string {
	t.Helper()
	out, _ := m.Exec(t.Context(), "pgrep", "--full", "^"+command) // fails if there is none
	return strings.Fields(out)
}
