// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Typing errors are found before anything is done.
func TestReleaseIsCheckedFirst(t *testing.T) {
	for _, tc := range []struct {
		change func(*buildOptions)
		text   string
	}{
		{func(o *buildOptions) { o.version = "" }, "VERSION=v1.2.3"},
		{func(o *buildOptions) { o.version = "1.2.3" }, "want v1.2.3"},
		{func(o *buildOptions) { o.registry = "" }, "which registry?"},
		{func(o *buildOptions) { o.registry = "https://registry.example.com/blixt" }, "leave out https://"},
		{func(o *buildOptions) { o.registry = "blixt" }, "names no registry"},
		{func(o *buildOptions) { o.registry = "registry.example.com/blixt/" }, "leave out one slash, as in registry.example.com/blixt/operator"},
		{func(o *buildOptions) { o.registry = "registry.example.com/Blixt" }, "registry.example.com/Blixt/operator"},
		{func(o *buildOptions) { o.platforms = "amd64" }, "want linux/amd64, linux/arm64 or both"},
		{func(o *buildOptions) { o.platforms = "linux/amd64,linux/amd64" }, "linux/amd64 twice"},
		{func(o *buildOptions) { o.without = "chart" }, "only packages and docs can be left out"},
	} {
		var log strings.Builder
		dir := t.TempDir()
		o := &buildOptions{version: "v1.2.3", registry: "registry.example.com/blixt", platforms: "linux/amd64", dist: dir + "/dist", log: &log, out: &log}
		tc.change(o)
		if err := o.run(t.Context()); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("got %v, want an error with %q", err, tc.text)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 || log.Len() > 0 {
			t.Errorf("%s: it has begun already: %v %v %s", tc.text, entries, err, &log)
		}
	}
}

func TestArgumentsAreNotPassedOver(t *testing.T) {
	err := runBuild(t.Context(), []string{"-registry=registry.example.com/blixt", "v1.2.3", "-dist=" + t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), `"v1.2.3": it takes no arguments but flags`) {
		t.Errorf("got %v", err)
	}
}

// A full disk leaves what there was, and nothing else.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a small file system: %v: run this as root", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	old := filepath.Join(dir, "dist")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (&release.Release{Source: release.Source{Version: "v1.2.2"}}).Write(old); err != nil {
		t.Fatal(err)
	}
	repository := t.TempDir()
	script := `git init --quiet . && head --bytes=4000000 /dev/urandom > random && git add --all &&
git -c user.name=a -c user.email=a@example.com -c commit.gpgSign=false commit --quiet --message=large`
	c := exec.CommandContext(t.Context(), "sh", "-c", script)
	c.Dir = repository
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Chdir(repository)
	o := &buildOptions{version: "v1.2.3", registry: "registry.example.com/blixt", platforms: "linux/amd64", dist: old, log: os.Stderr, out: os.Stdout}
	err := explain(o.run(t.Context()))
	if err == nil || !strings.Contains(err.Error(), "a release needs about 500 MB") {
		t.Errorf("got %v, want that there is no space", err)
	}
	if r, err := release.Read(old); err != nil || r.Version != "v1.2.2" {
		t.Errorf("release %+v, %v, want the old one", r, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left over: %v %v", entries, err)
	}
}
