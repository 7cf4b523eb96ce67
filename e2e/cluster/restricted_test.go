// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

const (
	enforce     = "pod-security.kubernetes.io/enforce="
	profileName = "profiles/blixt-agent.json"
)

// testConfinement tries from within an agent's pod what an agent must not do, while
// traffic is served. filters is the number of seccomp filters that an agent has.
func testConfinement(t *testing.T, application string, vips []string, filters string) {
	testPrivileges(t)
	for _, m := range c.Nodes {
		for command, want := range map[string]string{"/blixt agent ": filters, "/blixt operator ": "1"} {
			for _, pid := range running(t, m, command) {
				status, err := m.Exec(t.Context(), "cat", "/proc/"+pid+"/status")
				for _, line := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp_filters:\t" + want, "Uid:\t65532\t65532\t65532\t65532"} {
					if err != nil || !strings.Contains(status, line+"\n") {
						t.Errorf("%son %s: want %q, got %v\n%s", command, m.Name, line, err, status)
					}
				}
			}
		}
	}
	want := map[string]string{
		"open its own map":                   "<nil>",
		"create a map":                       "operation not permitted",
		"load a program":                     "operation not permitted",
		"open a map by id":                   "operation not permitted",
		"open a program by id":               "operation not permitted",
		"open the maps of a program by path": "no such file or directory",
		"read a token of the API server":     "no such file or directory",
		"list Nodes":                         "403 Forbidden",
		"list Nodes by its token":            "401 Unauthorized",
	}
	node := c.Nodes[1]
	id := programID(t, node.Name, application)
	if diff := cmp.Diff(want, attempts(t, node, id)); diff != "" {
		t.Errorf("what comes of attempts in an agent's pod on %s (-want +got):\n%s", node.Name, diff)
	}
	for _, vip := range vips {
		checkPath(t, application, asker{name: "outside", by: c.Nodes[0], dial: c.Outside}, "tcp", net.JoinHostPort(vip, "80"))
	}
}

// testRestricted enforces the strictest level of Pod Security where Blixt is, with a
// seccomp profile on the nodes.
func testRestricted(t *testing.T, application string, vips []string) {
	profile, err := os.ReadFile("../../charts/blixt/files/seccomp/blixt-agent.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.Nodes {
		file := m.File("/var/lib/kubelet/seccomp/" + profileName)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, profile, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runKubectl(t, `patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"agent":{"seccompProfile":"`+profileName+`"}}}}`)
	kube.Wait(t, patience, "profile that agents are asked to have", profileName, func() (string, error) {
		return c.Kubectl(t.Context(), "--namespace="+system, "get", "daemonsets", "--output=jsonpath={.items[*].spec.template.spec.securityContext.seccompProfile.localhostProfile}")
	})
	awaitPods(t, system)
	// All pods are recreated under the enforced level.
	runKubectl(t, "label --overwrite namespace "+system+" "+enforce+"restricted", "--namespace="+system+" delete pods --all")
	awaitPods(t, system)
	awaitProgrammed(t, "balanced")
	testConfinement(t, application, vips, "2")
	runKubectl(t, `patch blixtconfig blixt --type=merge -p {"spec":{"dataplane":{"agent":null}}}`, "label --overwrite namespace "+system+" "+enforce+"baseline")
	awaitPods(t, system)
}

// attempts tries forbidden acts in a container of an agent's pod that may do what the
// agent may, and returns the results.
func attempts(t *testing.T, m *cluster.Machine, program uint32) map[string]string {
	t.Helper()
	var agents corev1.PodList
	if err := c.Client.List(t.Context(), &agents, client.InNamespace(system), client.MatchingLabels{"app.kubernetes.io/component": "agent"},
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("spec.nodeName", m.Name)}); err != nil || len(agents.Items) != 1 {
		t.Fatalf("agents on %s: %v, %v", m.Name, agents.Items, err)
	}
	own, err := ebpf.LoadPinnedMap(m.File(fmt.Sprintf("/run/bpfman/fs/maps/%d/frontends", program)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	info, err := own.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	pod, agent := &agents.Items[0], agents.Items[0].Spec.Containers[0]
	name := fmt.Sprintf("attempt-%d", len(pod.Spec.EphemeralContainers)) // ephemeral containers stay
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
		Name: name, Image: "blixt/test:1", ImagePullPolicy: corev1.PullAlways, Args: []string{"attempt", fmt.Sprint(program), fmt.Sprint(id)},
		SecurityContext: agent.SecurityContext, VolumeMounts: agent.VolumeMounts,
	}})
	if err := c.Client.SubResource("ephemeralcontainers").Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	kube.Wait(t, patience, "container "+name+" of pod "+pod.Name, "has ended", func() (string, error) {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(pod), pod)
		for _, s := range pod.Status.EphemeralContainerStatuses {
			if s.Name == name && s.State.Terminated != nil {
				return "has ended", err
			}
		}
		return fmt.Sprintf("%+v", pod.Status.EphemeralContainerStatuses), err
	})
	out, err := c.Kubectl(t.Context(), "--namespace="+system, "logs", pod.Name, "--container="+name)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(out) {
		what, came, _ := strings.Cut(strings.TrimSpace(line), ": ")
		got[what] = came
	}
	return got
}

// attempt tries all of them, on the program and the map with these ids.
func attempt() error {
	program, _ := strconv.Atoi(os.Args[2])
	table, _ := strconv.Atoi(os.Args[3])
	try := func(what string, err error) {
		for { // only the innermost error is the same everywhere
			inner := errors.Unwrap(err)
			if inner == nil {
				break
			}
			err = inner
		}
		fmt.Printf("%s: %v\n", what, err)
	}
	_, err := ebpf.LoadPinnedMap("/maps/frontends", nil)
	try("open its own map", err)
	_, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	try("create a map", err)
	_, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	try("load a program", err)
	_, err = ebpf.NewMapFromID(ebpf.MapID(table))
	try("open a map by id", err)
	_, err = ebpf.NewProgramFromID(ebpf.ProgramID(program))
	try("open a program by id", err)
	_, err = ebpf.LoadPinnedMap(fmt.Sprintf("/run/bpfman/fs/maps/%d/frontends", program), nil)
	try("open the maps of a program by path", err)
	_, err = os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/token")
	try("read a token of the API server", err)
	try("list Nodes", listNodes(""))
	try("list Nodes by its token", listNodes("/var/run/secrets/blixt/token/token"))
	os.Exit(0)
	return nil
}

// listNodes lists nodes at the API server, with the token in a file.
func listNodes(file string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), "443")+"/api/v1/nodes", nil)
	if err != nil {
		return err
	}
	if file != "" {
		token, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+string(token))
	}
	// The server's identity does not matter: it has to refuse.
	insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	answer, err := insecure.Do(r)
	if err != nil {
		return err
	}
	answer.Body.Close()
	return errors.New(answer.Status)
}
