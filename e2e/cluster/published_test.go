// SPDX-License-Identifier: Apache-2.0

//go:build e2e

package cluster_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/operator/control/rollout"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

// older and newer are the versions of two releases of the commit that is checked out, so
// that tests can go from one to the other and back.
const older, newer = "v0.9.0", "v0.9.1"

// published is where the releases are: their programs, and the key that has signed them.
type published struct{ key string }

// publishOnce makes both releases and publishes them in the cluster's registry, if no
// test has done so before.
var publishOnce = sync.OnceValues(func() (published, error) {
	p := published{filepath.Join(scratch, "release.pub")}
	private := filepath.Join(scratch, "release.key")
	blixt, err := buildOnce()
	if err != nil {
		return p, err
	}
	tool := filepath.Join(scratch, "release")
	if err := runIn("../..", exec.Command("go", "build", "-o", tool, "./operator/cmd/release")); err != nil {
		return p, err
	}
	key, err := exec.Command(blixt, "bytecode", "keygen", private).Output()
	if err == nil {
		err = os.WriteFile(p.key, key, 0o644)
	}
	if err != nil {
		return p, fmt.Errorf("make the key of the releases: %w", err)
	}
	for _, version := range []string{older, newer} {
		dist := p.dist(version)
		build := exec.Command(tool, "build", "-version="+version, "-registry="+c.Images(), "-platforms=linux/"+runtime.GOARCH, "-without=packages,docs", "-dist="+dist)
		push := outsideCommand(context.Background(), tool, "publish", "-untagged", "-dist="+dist, "-sign-key="+private, "-ca-file="+c.CA())
		unpack := exec.Command("tar", "-xf", filepath.Join(dist, "blixt_"+chartVersion(version)+"_linux_"+runtime.GOARCH+".tar.gz"), "--one-top-level="+p.programs(version))
		for _, cmd := range []*exec.Cmd{build, push, unpack} {
			if err := runIn("../..", cmd); err != nil {
				return p, err
			}
		}
	}
	return p, nil
})

func runIn(dir string, cmd *exec.Cmd) error {
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// chartVersion is a version as charts have it.
func chartVersion(version string) string { return strings.TrimPrefix(version, "v") }

func (published) dist(version string) string { return filepath.Join(scratch, "dist-"+version) }

// programs is a folder with the blixt of a release.
func (published) programs(version string) string { return filepath.Join(scratch, "blixt-"+version) }

// application returns the name of the application that runs the bytecode of a release.
func (p published) application(t *testing.T, version string) string {
	t.Helper()
	r, err := release.Read(p.dist(version))
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range r.Images {
		if strings.HasSuffix(i.Repository, "/bytecode") {
			return rollout.Name(i.Repository + "@" + i.Digest)
		}
	}
	t.Fatalf("release %s has no bytecode: %+v", version, r.Images)
	return ""
}

// user is a person who has a cluster, and a release of Blixt from the internet.
type user struct {
	published
	env []string
}

// newUser publishes the releases, and tells the cluster which authority the registry has.
func newUser(t *testing.T) *user {
	t.Helper()
	p, err := publishOnce()
	if err != nil {
		t.Fatal(err)
	}
	u := &user{p, outsiderEnv(t)}
	for i, v := range u.env {
		if path, is := strings.CutPrefix(v, "PATH="); is {
			u.env[i] = "PATH=" + p.programs(newer) + ":" + path
		}
	}
	if c.CA() == "" {
		return u
	}
	ca, err := os.ReadFile(c.CA())
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "registry-ca"}, Data: map[string]string{"ca.crt": string(ca)}},
	} {
		if err := client.IgnoreAlreadyExists(c.Client.Create(t.Context(), object)); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// takesChart finds commands that take a chart from a registry.
var takesChart = regexp.MustCompile(`(?m)^helm (?:install|upgrade) \S+ oci://(?:\\\n|.)*`)

// here returns commands as they have to be in this cluster: its registry has another name
// than the one that README.md names, and may have an authority of its own. bpfman's
// images are in it as well.
func (u *user) here(commands string) string {
	host, _, _ := strings.Cut(c.Images(), "/")
	commands = strings.ReplaceAll(commands, "ghcr.io/kubernetes-sigs/blixt", c.Images())
	if givenPool != "" {
		commands = strings.ReplaceAll(commands, "config.addresses.source=Node", "'config.addresses.source=Pool,config.addresses.pool={"+givenPool+"}'")
	}
	return takesChart.ReplaceAllStringFunc(commands, func(command string) string {
		if !strings.Contains(command, " --version ") {
			command += " --version " + chartVersion(newer)
		}
		if c.CA() != "" {
			command += " --ca-file " + c.CA() + " --set registryCA=registry-ca"
		}
		if !c.IsGiven() { // else nodes reach the registry of bpfman
			command += " --set global.imageRegistry=" + host
		}
		return command
	})
}

// try runs commands outside of the cluster, and returns what they print.
func (u *user) try(t *testing.T, commands string) (string, error) {
	t.Helper()
	cmd := outsideCommand(t.Context(), "bash", "-e", "-o", "pipefail", "-c", u.here(commands))
	cmd.Dir, cmd.Env = "../..", u.env // where examples are
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for commands that have to succeed.
func (u *user) run(t *testing.T, commands string) {
	t.Helper()
	if out, err := u.try(t, commands); err != nil {
		pods, _ := c.Kubectl(t.Context(), "get", "pods,events", "--all-namespaces") // only adds to the failure
		t.Fatalf("%s\n%v\n%s\n%s", commands, err, out, pods)
	}
}

// fail runs commands that have to fail, with an error that has these words.
func (u *user) fail(t *testing.T, commands, words string) {
	t.Helper()
	if out, err := u.try(t, commands); err == nil || !strings.Contains(out, words) {
		t.Errorf("%s\nwant an error with %q, got %v:\n%s", commands, words, err, out)
	}
}
