// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubernetes-sigs/blixt/e2e/lib/cluster"
	"github.com/kubernetes-sigs/blixt/e2e/lib/document"
	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
)

// block has commands of a README, and what they print if the next block shows that.
// Commands with output only read, and may be run again. A line … stands for any lines
// that are left out.
type block struct{ commands, prints string }

var variable = regexp.MustCompile(`(?m)^[A-Z]+=.*$`)

// blocks returns the commands of a README that are marked as run by TestReadme, and what
// they print: the text that follows them.
func blocks(t *testing.T, file string) (all []block) {
	t.Helper()
	read, err := document.Read(filepath.Join("../..", file))
	if err != nil {
		t.Fatal(err)
	}
	mine := false
	for _, b := range read {
		text := strings.TrimRight(b.Text, "\n")
		switch {
		case b.HasCommands():
			m, err := b.Mark()
			if err != nil {
				t.Fatal(err)
			}
			if mine = m.Tested == "TestReadme"; mine {
				all = append(all, block{commands: text})
			}
		case !mine || b.Language != "text":
		case all[len(all)-1].prints != "":
			t.Fatalf("%s: of which commands is this the output?", b)
		default:
			all[len(all)-1].prints = text
		}
	}
	if len(all) < 3 {
		t.Fatalf("%s has only these commands: %+v", file, all)
	}
	return all
}

// runBlocks runs blocks one after the other outside of the cluster. The test fails
// unless they print what the README shows. It returns what each has printed.
func runBlocks(t *testing.T, u *user, all []block) (printed []string) {
	t.Helper()
	var variables string
	for _, b := range all {
		run := func() (string, error) {
			out, err := u.try(t, variables+b.commands)
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			return renameNodes(out), err
		}
		var out string
		if b.prints == "" {
			var err error
			if out, err = run(); err != nil {
				pods, _ := c.Kubectl(t.Context(), "get", "pods,events", "--all-namespaces") // only adds to the failure
				t.Fatalf("%s\n%v\n%s", b.commands, err, pods)
			}
		} else {
			want, complete := shape(b.prints), true
			if i := slices.Index(want, "…"); i >= 0 {
				want, complete = slices.Delete(want, i, i+1), false
			}
			func() {
				defer logIfFailed(t, &out)
				kube.Wait(t, patience, "output of\n"+b.commands+"\n", want, func() (got []string, err error) {
					out, err = run()
					return slices.DeleteFunc(shape(out), func(line string) bool { return !complete && !slices.Contains(want, line) }), err
				})
			}()
		}
		for _, line := range variable.FindAllString(b.commands, -1) {
			variables += line + "\n"
		}
		printed = append(printed, out)
	}
	return printed
}

// logIfFailed logs what commands have printed at last, which may say more than what was
// expected of it.
func logIfFailed(t *testing.T, out *string) {
	if t.Failed() {
		t.Logf("printed at last:\n%s", *out)
	}
}

// renameNodes gives the nodes of a cluster that others run the names that they have in
// READMEs.
func renameNodes(out string) string {
	for _, name := range givenNodes {
		out = regexp.MustCompile(`\b`+regexp.QuoteMeta(name)+`\b`).ReplaceAllString(out, "node-1")
	}
	return out
}

// What differs from run to run: the ends of pods' names, ages, and numbers.
var (
	podEnd  = regexp.MustCompile(`-[a-z0-9]{6,10}-[a-z0-9]{5}\b`)
	holder  = regexp.MustCompile(`_[0-9a-f-]{36}\b`)
	age     = regexp.MustCompile(`\b(?:\d+[dhms])+\b`)
	number  = regexp.MustCompile(`\d+`)
	columns = regexp.MustCompile(`\s+`)
)

// shape returns the set of lines of an output, without what differs from run to run.
func shape(out string) (lines []string) {
	for line := range strings.Lines(out) {
		line = strings.ReplaceAll(line, ", 0 ", ", no ") // warnings, such as doctor counts
		line = age.ReplaceAllString(holder.ReplaceAllString(podEnd.ReplaceAllString(line, "-POD"), "_ID"), "AGE")
		lines = append(lines, columns.ReplaceAllString(strings.TrimSpace(number.ReplaceAllString(line, "0")), " "))
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// outsiderEnv returns the environment of a person who has a cluster, and whose machine is
// in the nodes' network.
func outsiderEnv(t *testing.T) (env []string) {
	t.Helper()
	home := t.TempDir()
	config, err := os.ReadFile(c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	if c.IsGiven() {
		return append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "CA_FILE="+c.CA())
	}
	config = regexp.MustCompile(`server: .*`).ReplaceAll(config, []byte("server: https://"+cluster.Control4+":6443"))
	if err := os.WriteFile(filepath.Join(home, "config"), config, 0o600); err != nil {
		t.Fatal(err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"helm": "helm-v3.22.0", "kubectl": "kubernetes-v1.37.2/kubectl"} {
		if err := os.Symlink(filepath.Join(cache, "blixt", program), filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	return append(os.Environ(), "PATH="+home+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(home, "config"), "CA_FILE="+c.CA(),
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
}

// TestReadme follows README.md, and so docs/quickstart/cluster.md, whose commands are the
// same, as a test of docs sees to: afterwards traffic is balanced, each example works, and
// all of it can be removed.
func TestReadme(t *testing.T) {
	u := newUser(t)
	if c.IsGiven() {
		var nodes corev1.NodeList
		if err := c.Client.List(t.Context(), &nodes); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes.Items {
			givenNodes = append(givenNodes, n.Name)
		}
	}
	all := blocks(t, "README.md")
	end := len(all) - 1
	runBlocks(t, u, all[:end])
	for _, e := range examples {
		t.Run(e.name, func(t *testing.T) { e.check(t, runBlocks(t, u, blocks(t, "examples/"+e.name+"/README.md"))) })
	}
	t.Run("audit", func(t *testing.T) {
		runBlocks(t, u, []block{{commands: `blixt audit --ca-file "$CA_FILE"`}})
	})
	t.Run("pods", testAnyCluster)
	if !c.IsGiven() {
		t.Run("a hostile tenant", func(t *testing.T) { testTenant(t, onlyApplication(t), false) })
	}
	runBlocks(t, u, all[end:])
	for _, m := range c.Nodes {
		checkAttached(t, m)
	}
	if out, err := c.Kubectl(t.Context(), "get", "all", "--output=name", "--namespace="+system); err != nil || out != "" {
		t.Errorf("left over (%v): %s", err, out)
	}
	out, err := c.Kubectl(t.Context(), "get", "clusterbpfapplications,clusterbpfapplicationstates,nodedataplanes,gatewayclasses,"+
		"services,endpointslices,secrets,configmaps,leases,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings", "--all-namespaces", "--output=name")
	if err != nil {
		t.Fatal(err)
	}
	for object := range strings.Lines(out) {
		if strings.Contains(object, "blixt") {
			t.Errorf("left over: %s", object)
		}
	}
}
