// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/audit"
	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
)

// Who cannot reach the cluster is told so, by a status of its own.
func TestUnreachableCluster(t *testing.T) {
	file := filepath.Join(t.TempDir(), "config")
	text := `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]}`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"doctor", "audit", "uninstall", "page", "policy"} {
		for flags, says := range map[string]string{
			"--kubeconfig=" + file:                  "ask https://127.0.0.1:1",
			"--kubeconfig=" + file + "-not":         "find cluster",
			"--kubeconfig=" + file + " --context=x": "find cluster",
		} {
			c := command()
			c.SetArgs(append([]string{name}, strings.Fields(flags)...))
			c.SetOut(io.Discard)
			err := c.Execute()
			var exit *exitError
			if !errors.As(err, &exit) || exit.code != unreachable || !strings.Contains(err.Error(), says) {
				t.Errorf("blixt %s %s: got %v, want an error with %q, and status %d", name, flags, err, says, unreachable)
			}
		}
	}
}

// Of files that are missing the name is what helps.
func TestMissingKubeconfigIsNamed(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("{apiVersion: v1, kind: Config}"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for given, want := range map[string]string{
		dir + "/not":                "find cluster: " + dir + "/not does not exist: name it with --kubeconfig and --context",
		empty:                       "find cluster: " + empty + " has no current context: name it with --kubeconfig and --context",
		dir + "/not:" + dir + "/no": "find cluster: " + dir + "/not does not exist, " + dir + "/no does not exist: name it with --kubeconfig and --context",
	} {
		t.Setenv("KUBECONFIG", given)
		if _, err := blixt(t, "doctor"); err == nil || err.Error() != want {
			t.Errorf("KUBECONFIG=%s: got %v, want %s", given, err, want)
		}
	}
	t.Setenv("KUBECONFIG", "")
	if _, err := blixt(t, "doctor", "--kubeconfig", empty); err == nil || !strings.Contains(err.Error(), empty+" has no current context") {
		t.Errorf("got %v, want an error that names %s", err, empty)
	}
}

func TestFindingTable(t *testing.T) {
	var out bytes.Buffer
	findingTable(&out, []doctor.Finding{
		{Check: "kernel", Verdict: doctor.OK, Seen: "2 nodes have Linux 6.6 or newer"},
		{Check: "bpfman-csi", Verdict: doctor.Failed, Object: "CSINode n1", Seen: "it is not there", Remedy: "Start it."},
	})
	want := `CHECK       VERDICT  SEEN
kernel      ok       2 nodes have Linux 6.6 or newer
bpfman-csi  failed   CSINode n1: it is not there
                     → Start it.

1 ok, 0 warnings, 1 failed, 0 unknown
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

func TestReportTable(t *testing.T) {
	at := metav1.NewTime(time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local))
	digest := "sha256:" + strings.Repeat("1", 64)
	var out bytes.Buffer
	reportTable(&out, &audit.Report{
		Declared: "r.example.com/b@" + digest,
		Programs: []audit.Program{{
			Node: "n1", Digest: digest, ID: new(int64(7)), Layout: 1, Frontends: 2, Backends: 3, Since: &at,
			Links: []v1alpha1.LinkStatus{{Interface: "eth0", Direction: "Ingress", LinkID: new(int64(9))}},
		}},
		Images: []audit.Image{{Name: "r.example.com/b@" + digest, Layout: 1, VerifiedBy: []string{"key"}}},
		Writers: []audit.Writer{{Subject: "User ann", Binding: "b", Role: "r", Resources: []string{"blixtconfigs"}},
			{Subject: "User bob", Namespace: "blixt-system", Binding: "b", Role: "r", Resources: []string{"pods"}}},
		Problems: []audit.Problem{{Severity: audit.Failed, Reason: audit.LinkMissing, Object: "ClusterBpfApplicationState x", Node: "n1", Message: "no egress"}},
	})
	want := `Declared: r.example.com/b@` + digest + `

NODE  DIGEST               SIGNED BY  PROGRAM  LINKS           LAYOUT  SERVES                   SINCE                WRITTEN
n1    sha256:111111111111  -          7        eth0 ingress 9  1       2 frontends, 3 backends  2026-11-23 12:00:00  -

IMAGE                                                                                    LAYOUT  VERIFIED BY
r.example.com/b@` + digest + `  1       key

MAY CHANGE IT  WHAT          BY
User ann       blixtconfigs  ClusterRoleBinding b, role r
User bob       pods          RoleBinding blixt-system/b, role r

PROBLEM  REASON       OBJECT                              MESSAGE
failed   LinkMissing  ClusterBpfApplicationState x on n1  no egress

1 programs on nodes, 1 things not as declared, 0 warnings
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}
