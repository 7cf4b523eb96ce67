// SPDX-License-Identifier: Apache-2.0

// Package release makes releases of the source as it is here, as users make them.
package release_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kubernetes-sigs/blixt/e2e/lib/kube"
	"github.com/kubernetes-sigs/blixt/operator/release"
)

const version = "v1.2.3-rc.1"

// run runs a command in a directory, and returns what it prints.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), name, args...)
	c.Dir, c.Env = dir, env
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// plain is the environment of this process, without what a make above has set.
func plain() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "MAKE") || strings.HasPrefix(v, "MFLAGS=") || strings.HasPrefix(v, "GOFLAGS=")
	})
}

// checkout makes a repository of the source as it is here, committed or not, with a tag.
func checkout(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blixt")
	env := append(plain(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
	root := strings.TrimSpace(run(t, ".", env, "git", "-c", "safe.directory=*", "rev-parse", "--show-toplevel"))
	run(t, root, env, "git", "-c", "safe.directory=*", "clone", "--quiet", "--no-checkout", root, dir)
	git := func(args ...string) {
		run(t, root, env, "git", append([]string{"--git-dir=" + dir + "/.git"}, args...)...)
	}
	git("--work-tree="+root, "add", "--all")
	git("commit", "--quiet", "--allow-empty", "--message=as it is")
	git("tag", version)
	run(t, dir, env, "git", "reset", "--quiet", "--hard")
	return dir
}

// digests returns the SHA-256 of all files below a directory, and their modes.
func digests(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		all[path] = info.Mode().String()
		if e.IsDir() {
			return nil
		}
		content, err := os.ReadFile(filepath.Join(dir, path))
		all[path] += fmt.Sprintf(" %x", sha256.Sum256(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// hostile returns the environment of somebody who has set up his machine differently, as far
// as it does not have all compiled again.
func hostile(t *testing.T) []string {
	t.Helper()
	home := t.TempDir()
	config := `[core]
	autocrlf = true
	hooksPath = ` + home + `
[tag]
	gpgSign = true
[transfer]
	hideRefs = refs
`
	for name, text := range map[string]string{".gitconfig": config, "post-checkout": "#!/bin/sh\nexit 1\n"} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	caches := strings.Fields(run(t, ".", plain(), "go", "env", "GOCACHE", "GOMODCACHE"))
	return append(plain(), "HOME="+home, "XDG_CACHE_HOME="+cache, "GOCACHE="+caches[0], "GOMODCACHE="+caches[1],
		"GOFLAGS=-mod=mod -ldflags=-X=main.version=other", "TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8",
		"SOURCE_DATE_EPOCH=1", "TMPDIR="+t.TempDir(), "HELM_NAMESPACE=other", "GIT_DIR=/nonexistent", "USER=other", "HOSTNAME=other")
}

// Who makes the same version gets the same bytes.
func TestSameReleaseWhoeverMakesIt(t *testing.T) {
	first := checkout(t)
	command := "make release VERSION=" + version + " REGISTRY=registry.example.com/blixt PLATFORMS=linux/" + runtime.GOARCH
	said := run(t, first, plain(), "sh", "-c", "exec "+command)
	t.Log(said)

	// Shallow, with other line ends, below somebody's workspace, with changes that are not committed.
	second := filepath.Join(t.TempDir(), "a", "b")
	run(t, ".", plain(), "git", "clone", "--quiet", "--depth=1", "--branch="+version, "--config=core.autocrlf=true", "file://"+first, second)
	for name, text := range map[string]string{
		"../go.work": "go 1.26.0\n", "operator/cmd/blixt/other.go": "package main\n", "LICENSE": "none\n", "charts/blixt/templates/other.yaml": "{}\n",
	} {
		if err := os.WriteFile(filepath.Join(second, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(t.TempDir(), "dist")
	said = run(t, second, hostile(t), "sh", "-c", "umask 077 && exec taskset --cpu-list 0 "+command+" DIST="+other)
	if !strings.Contains(said, "3 files are not committed: they are not in the release\n") {
		t.Errorf("it did not say what is not committed:\n%s", said)
	}
	if diff := cmp.Diff(digests(t, filepath.Join(first, "dist")), digests(t, other)); diff != "" {
		t.Errorf("modes and digests (-first +second):\n%s", diff)
	}
	t.Run("complete", func(t *testing.T) { testComplete(t, filepath.Join(first, "dist")) })
	t.Run("documentation", func(t *testing.T) { testDocs(t, filepath.Join(first, "dist")) })
	t.Run("install.yaml", func(t *testing.T) { testManifests(t, filepath.Join(first, "dist", "install.yaml")) })
}

// testComplete checks that release.json and SHA256SUMS list everything.
func testComplete(t *testing.T, dist string) {
	r, err := release.Read(dist)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Tagged || r.Version != version || r.GoVersion != r.Toolchain {
		t.Errorf("release %+v", r.Source)
	}
	listed := []string{"SHA256SUMS", "oci", "release.json"}
	for _, f := range r.Files {
		listed = append(listed, f.Name)
		info, err := os.Stat(filepath.Join(dist, f.Name))
		if err != nil || info.Size() != f.Size {
			t.Errorf("%s: %v, has not %d bytes", f.Name, err, f.Size)
		}
	}
	entries, err := os.ReadDir(dist)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, e := range entries {
		found = append(found, e.Name())
	}
	slices.Sort(listed)
	if diff := cmp.Diff(found, listed); diff != "" {
		t.Errorf("release.json (-files +listed):\n%s", diff)
	}
	sums := run(t, dist, plain(), "sha256sum", "--check", "--strict", "SHA256SUMS")
	if n := strings.Count(sums, ": OK\n"); n != len(found)-2 {
		t.Errorf("SHA256SUMS lists %d files, want %d:\n%s", n, len(found)-2, sums)
	}
	for _, i := range r.Images {
		index, err := os.ReadFile(filepath.Join(dist, i.Layout, "index.json"))
		if err != nil || !bytes.Contains(index, []byte(`"`+i.Digest+`"`)) {
			t.Errorf("%s: %v, want %s in %s", i.Repository, err, i.Digest, index)
		}
		if len(i.Attestations) != 2*(1+len(i.Manifests)) {
			t.Errorf("%s has %d attestations, want two for itself and for each of %d manifests", i.Repository, len(i.Attestations), len(i.Manifests))
		}
		for _, a := range i.Attestations {
			if !slices.Contains(listed, a.File) {
				t.Errorf("%s: attestation %s is no file of the release", i.Repository, a.File)
			}
		}
	}
}

// testDocs checks that the program has the documentation of its version built in.
func testDocs(t *testing.T, dist string) {
	name := "blixt_" + strings.TrimPrefix(version, "v")
	docs, err := os.ReadFile(filepath.Join(dist, name+"_docs.zip"))
	if err != nil {
		t.Fatal(err)
	}
	site, err := zip.NewReader(bytes.NewReader(docs), int64(len(docs)))
	if err != nil {
		t.Fatal(err)
	}
	if index, err := fs.ReadFile(site, "index.html"); err != nil || !bytes.Contains(index, []byte("/blob/"+version+"/docs/README.md")) {
		t.Errorf("index.html: %v: want links to files at %s", err, version)
	}
	dir := t.TempDir()
	run(t, dir, plain(), "tar", "xzf", filepath.Join(dist, name+"_linux_"+runtime.GOARCH+".tar.gz"), "blixt")
	program, err := os.ReadFile(filepath.Join(dir, "blixt"))
	if err != nil || !bytes.Contains(program, docs) {
		t.Errorf("%v: %s_docs.zip is not built in", err, name)
	}
}

// testManifests applies install.yaml to an empty cluster, twice.
func testManifests(t *testing.T, path string) {
	server, err := kube.Start(t.Context(), kube.Options{Bare: true})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	var generations []int64
	for range 2 {
		if err := server.Apply(t.Context(), path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		objects, err := kube.Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		kept := 0
		for _, o := range objects {
			if o.GetLabels()["blixt.x-k8s.io/kept"] != "" {
				kept++
			} else if o.GetKind() == "CustomResourceDefinition" {
				t.Errorf("%s would be deleted with all that people wrote", o.GetName())
			}
			if err := server.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
				t.Fatal(err)
			}
			generations = append(generations, o.GetGeneration())
		}
		if kept == 0 || kept == len(objects) {
			t.Errorf("%d of %d objects are kept", kept, len(objects))
		}
	}
	if n := len(generations) / 2; !slices.Equal(generations[:n], generations[n:]) {
		t.Error("applied again, it changes objects")
	}
}
