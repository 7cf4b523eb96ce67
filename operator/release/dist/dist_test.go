// SPDX-License-Identifier: Apache-2.0

package dist_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/dist"
)

// fill makes a directory with a release of a version.
func fill(t *testing.T, dir, version string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := (&release.Release{Source: release.Source{Version: version}}).Write(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, version), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// names returns all that there is in a directory.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func begin(t *testing.T, path string) *dist.Dir {
	t.Helper()
	d, err := dist.Begin(path, release.ListName)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// replace makes a release of a version in path.
func replace(t *testing.T, path, version string) {
	t.Helper()
	d := begin(t, path)
	made := filepath.Join(d.Work, "dist")
	fill(t, made, version)
	if err := d.Replace(made); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReleaseIsReplacedCompletely(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "deep", "dist")
	for _, version := range []string{"v1.0.0", "v1.0.1", "v1.0.0"} {
		replace(t, path, version)
		if diff := cmp.Diff([]string{"release.json", version}, names(t, path)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"dist"}, names(t, filepath.Dir(path))); diff != "" {
			t.Errorf("left over (-want +got):\n%s", diff)
		}
	}
}

// A run that fails, or is killed, leaves the old release. The next one removes what is left.
func TestKilledRunLeavesTheOldRelease(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dist")
	replace(t, path, "v1.0.0")
	left := filepath.Join(filepath.Dir(path), ".dist.partial", "clone")
	if err := os.MkdirAll(left, 0o755); err != nil {
		t.Fatal(err)
	}
	d := begin(t, path)
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed run left is there")
	}
	fill(t, filepath.Join(d.Work, "dist"), "v1.0.1")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"release.json", "v1.0.0"}, names(t, path)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// Even when the first is killed, what it has started may still write.
func TestTwoRunsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "dist")
	first := begin(t, path)
	refused := func(when string) {
		t.Helper()
		if _, err := dist.Begin(path, release.ListName); err == nil || !strings.Contains(err.Error(), "somebody else is making "+path) {
			t.Errorf("%s: got %v, want that somebody else is making it", when, err)
		}
	}
	refused("while the first runs")
	child := exec.CommandContext(t.Context(), "cat")
	first.Keep(child)
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if err := first.Die(); err != nil {
		t.Fatal(err)
	}
	refused("while what the first has started runs")
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := begin(t, path).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOnlyReleasesAreReplaced(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := dist.Begin(dir, release.ListName); err == nil || !strings.Contains(err.Error(), "holds something else") {
		t.Errorf("got %v, want that it holds something else", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	target := t.TempDir() // empty
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	replace(t, link, "v1.0.0")
	if diff := cmp.Diff([]string{"release.json", "v1.0.0"}, names(t, target)); diff != "" {
		t.Errorf("files where the link leads (-want +got):\n%s", diff)
	}
}

// In a directory of all, as /tmp, somebody else may have been first, and could change what is
// made while it is made.
func TestWorkOfSomebodyElse(t *testing.T) {
	for name, prepare := range map[string]func(work string) error{
		"link":          func(work string) error { return os.Symlink(t.TempDir(), work) },
		"for everybody": func(work string) error { return errors.Join(os.Mkdir(work, 0o700), os.Chmod(work, 0o777)) },
		"another's":     func(work string) error { return errors.Join(os.Mkdir(work, 0o755), os.Chown(work, 65534, 65534)) },
	} {
		dir := t.TempDir()
		work := filepath.Join(dir, ".dist.partial")
		if err := prepare(work); err != nil {
			t.Fatal(err)
		}
		if _, err := dist.Begin(filepath.Join(dir, "dist"), release.ListName); err == nil || !strings.Contains(err.Error(), work+" is ") || !strings.Contains(err.Error(), "remove it") {
			t.Errorf("%s: got %v, want that only its user may write it", name, err)
		}
	}
}
