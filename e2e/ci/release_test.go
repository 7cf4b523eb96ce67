// SPDX-License-Identifier: Apache-2.0

package ci_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// github is what the scripts see of GitHub, by the gh of testdata.
type github struct {
	t   *testing.T
	dir string
	env []string
}

func newGitHub(t *testing.T) *github {
	t.Helper()
	bin, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	g := &github{t, dir, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "GITHUB="+dir, "GITHUB_REPOSITORY=example/blixt", "GITHUB_REF_TYPE=tag",
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")}
	g.write("runs", "")
	return g
}

func (g *github) write(file, text string) {
	g.t.Helper()
	path := filepath.Join(g.dir, file)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// run runs a command in a directory, and returns all that it prints.
func (g *github) run(dir string, command ...string) (string, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir, cmd.Env = dir, g.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (g *github) must(dir string, command ...string) string {
	g.t.Helper()
	out, err := g.run(dir, command...)
	if err != nil {
		g.t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return out
}

// clone makes what a runner has after its checkout: a repository with main, release-1.2
// and a pull request's branch, and tags.
func (g *github) clone() (dir string, commits map[string]string) {
	g.t.Helper()
	dir = filepath.Join(g.dir, "clone")
	script, err := os.ReadFile(filepath.Join(root, ".ci/release-check"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.write("clone/.ci/release-check", string(script))
	g.write("clone/CHANGELOG.md", "# Changelog\n\n## [Unreleased]\n\n## [1.3.0] - 2026-12-01\n\n## [1.2.1] - 2026-12-02\n\n## [0.1.0]\n")
	git := func(args ...string) string {
		return strings.TrimSpace(g.must(dir, append([]string{"git", "-c", "user.name=n", "-c", "user.email=e", "-c", "tag.gpgSign=false"}, args...)...))
	}
	git("init", "-q", "-b", "work")
	commit := func(message string, tags ...string) string {
		git("commit", "-q", "--allow-empty", "-m", message)
		for _, tag := range tags {
			git("tag", "-a", "-m", tag, tag)
		}
		return git("rev-parse", "HEAD")
	}
	git("add", ".")
	commits = map[string]string{}
	commits["base"] = commit("base", "v0.1.0", "v1.2.0", "v1.2", "1.2.0", "v01.2.3", "v1.2.3+build", "v1.2.3-", "v1.2.3-01")
	commits["main"] = commit("main", "v1.3.0", "v1.3.0-rc.1", "v1.4.0", "v1.10.0-alpha")
	git("update-ref", "refs/remotes/origin/main", "HEAD")
	git("checkout", "-q", commits["base"])
	commits["patch"] = commit("patch", "v1.2.1", "v2.0.0")
	git("update-ref", "refs/remotes/origin/release-1.2", "HEAD")
	git("checkout", "-q", commits["base"])
	commits["stranger"] = commit("stranger", "v9.9.9")
	git("update-ref", "refs/remotes/origin/pull", "HEAD")
	return dir, commits
}

func TestReleaseCheck(t *testing.T) {
	g := newGitHub(t)
	dir, commits := g.clone()
	passed := func(names ...string) (runs string) {
		for _, n := range names {
			runs += "success push " + commits[n] + "\n"
		}
		return runs
	}
	all := passed(slices.Collect(maps.Keys(commits))...)
	for _, c := range []struct{ name, tag, runs, want string }{
		{"of main", "v1.3.0", all, "prerelease=false\nlatest=false\n"}, // v1.4.0 is newer
		{"a prerelease", "v1.3.0-rc.1", all, "prerelease=true\nlatest=false\n"},
		{"a prerelease of what is newest", "v1.10.0-alpha", all, "prerelease=true\nlatest=false\n"},
		{"a patch of its line", "v1.2.1", all, "prerelease=false\nlatest=false\n"},
		{"another line's branch", "v2.0.0", all, "is neither on main nor on release-2.0"},
		{"of a pull request", "v9.9.9", all, "is neither on main nor on release-9.9"},
		{"a branch with the name of a version", "main", all, "main is not released: want a version"},
		{"no tag", "v5.0.0", all, "there is no such tag"},
		{"two numbers", "v1.2", all, "want a version"},
		{"no v", "1.2.0", all, "want a version"},
		{"a zero before", "v01.2.3", all, "want a version"},
		{"build metadata", "v1.2.3+build", all, "can have no +"},
		{"an empty prerelease", "v1.2.3-", all, "want a version"},
		{"a prerelease with a zero before", "v1.2.3-01", all, "want a version"},
		{"a command", "v1.2.3$(touch x)", all, "want a version"},
		{"CI has not run", "v1.3.0", "", "CI has not passed for commit " + commits["main"] + "\n"},
		{"CI has passed for another commit", "v1.3.0", passed("base", "patch"), "CI has not passed"},
		{"CI has passed for a pull request", "v1.3.0", "success pull_request " + commits["main"] + "\n", "CI has not passed"},
		{"CI has failed", "v1.3.0", "failure push " + commits["main"] + "\n", "CI has not passed for commit " + commits["main"] + "\n"},
		{"CI runs", "v1.3.0", "in_progress push " + commits["main"] + "\n", "yet: run this again when it has"},
		{"CI waits", "v1.3.0", "queued push " + commits["main"] + "\n", "yet: run this again when it has"},
		{"not in the changelog", "v1.4.0", all, "no section '## [1.4.0] - DATE'"},
		{"without a date in the changelog", "v0.1.0", all, "no section '## [0.1.0] - DATE'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.write("runs", c.runs)
			out, err := g.run(dir, "bash", ".ci/release-check", c.tag)
			if released := strings.HasPrefix(c.want, "prerelease="); released != (err == nil) || released && out != c.want || !strings.Contains(out, c.want) {
				t.Errorf("%v, prints\n%s\nwant %s", err, out, c.want)
			}
		})
	}
	g.write("runs", all)
	if out, err := g.run(dir, "env", "GITHUB_REF_TYPE=branch", "bash", ".ci/release-check", "v1.3.0"); err == nil || !strings.Contains(out, "for the branch v1.3.0: choose the tag") {
		t.Errorf("of a branch with the name of a tag: %v\n%s", err, out)
	}
	g.must(dir, "git", "tag", "-d", "v1.4.0", "v2.0.0", "v9.9.9")
	g.write("runs", all)
	if out := g.must(dir, "bash", ".ci/release-check", "v1.3.0"); out != "prerelease=false\nlatest=true\n" {
		t.Errorf("the newest: %s", out)
	}
}

// dist writes a release's files and their sums, and returns its directory.
func (g *github) dist(files map[string]string) string {
	g.t.Helper()
	dir := filepath.Join(g.dir, "dist")
	if err := os.RemoveAll(dir); err != nil {
		g.t.Fatal(err)
	}
	var sums string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		g.write("dist/"+name, files[name])
		sums += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(files[name])), name)
	}
	g.write("dist/SHA256SUMS", sums)
	g.write("dist/SHA256SUMS.sigstore.json", "signature")
	return dir
}

// assets returns the names of the files that a release has.
func (g *github) assets() (all []string) {
	g.t.Helper()
	err := filepath.WalkDir(filepath.Join(g.dir, "release/assets"), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, d.Name())
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

func (g *github) state(file string) string {
	text, _ := os.ReadFile(filepath.Join(g.dir, "release", file)) // none: nothing was done
	return strings.TrimSpace(string(text))
}

func TestReleaseGitHub(t *testing.T) {
	script, err := filepath.Abs(filepath.Join(root, ".ci/release-github"))
	if err != nil {
		t.Fatal(err)
	}
	content := map[string]string{"blixt_1.2.3_linux_amd64.tar.gz": "a", "install.yaml": "b", "RELEASE_NOTES.md": "c", "oci/operator/index.json": "d"}
	want := []string{"RELEASE_NOTES.md", "SHA256SUMS", "SHA256SUMS.sigstore.json", "blixt_1.2.3_linux_amd64.tar.gz", "install.yaml"}

	t.Run("it fails half-way, twice, and is done the third time", func(t *testing.T) {
		g := newGitHub(t)
		dist := g.dist(content)
		for _, uploads := range []string{"UPLOADS=0", "UPLOADS=2"} {
			if out, err := g.run(g.dir, "env", uploads, script, "v1.2.3", dist, "false", "true"); err == nil || g.state("draft") != "true" {
				t.Fatalf("%s: %v, draft: %s\n%s", uploads, err, g.state("draft"), out)
			}
		}
		g.must(g.dir, script, "v1.2.3", dist, "false", "true")
		if got := g.assets(); !slices.Equal(got, want) || g.state("draft") != "false" {
			t.Errorf("files %v, want %v; draft: %s", got, want, g.state("draft"))
		}
		if got := g.state("edited"); got != "release edit v1.2.3 --draft=false --prerelease=false --latest=true" {
			t.Error(got)
		}
		if out := g.must(g.dir, script, "v1.2.3", dist, "false", "true"); !strings.Contains(out, "published already, with these files") {
			t.Errorf("a run after the last: %s", out)
		}
		// The signature is another one each time.
		g.write("dist/SHA256SUMS.sigstore.json", "another")
		g.must(g.dir, script, "v1.2.3", dist, "false", "true")
	})
	t.Run("a draft with a file that nobody has signed stays one", func(t *testing.T) {
		g := newGitHub(t)
		dist := g.dist(content)
		if out, err := g.run(g.dir, "env", "UPLOADS=0", script, "v1.2.3", dist, "false", "true"); err == nil {
			t.Fatal(out)
		}
		g.write("release/assets/evil.deb", "evil")
		out, err := g.run(g.dir, script, "v1.2.3", dist, "false", "true")
		if err == nil || !strings.Contains(out, "< evil.deb\nthe draft of v1.2.3 has other files") || g.state("draft") != "true" {
			t.Errorf("%v, draft: %s\n%s", err, g.state("draft"), out)
		}
	})
	t.Run("a prerelease is one, and not the latest", func(t *testing.T) {
		g := newGitHub(t)
		g.must(g.dir, script, "v1.2.3-rc.1", g.dist(content), "true", "false")
		if got := g.state("edited"); got != "release edit v1.2.3-rc.1 --draft=false --prerelease=true --latest=false" {
			t.Error(got)
		}
		if got := g.state("created"); !strings.Contains(got, "--draft --verify-tag") || !strings.HasSuffix(got, "--prerelease=true") {
			t.Error(got)
		}
	})
	t.Run("what is published never changes", func(t *testing.T) {
		g := newGitHub(t)
		g.must(g.dir, script, "v1.2.3", g.dist(content), "false", "true")
		other := maps.Clone(content)
		other["install.yaml"] = "other"
		out, err := g.run(g.dir, script, "v1.2.3", g.dist(other), "false", "true")
		if err == nil || !strings.Contains(out, "published with other files") || !strings.Contains(out, "install.yaml") {
			t.Errorf("%v\n%s", err, out)
		}
		delete(other, "install.yaml")
		if out, err := g.run(g.dir, script, "v1.2.3", g.dist(other), "false", "true"); err == nil {
			t.Errorf("a file less: %s", out)
		}
	})
	t.Run("files that were changed on the way are refused", func(t *testing.T) {
		g := newGitHub(t)
		dist := g.dist(content)
		g.write("dist/install.yaml", "other")
		if out, err := g.run(g.dir, script, "v1.2.3", dist, "false", "true"); err == nil || g.state("draft") != "" {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("a name that GitHub would change is refused", func(t *testing.T) {
		g := newGitHub(t)
		bad := maps.Clone(content)
		bad["blixt_1.2.3~rc1_amd64.deb"] = "e"
		out, err := g.run(g.dir, script, "v1.2.3", g.dist(bad), "false", "true")
		if err == nil || !strings.Contains(out, "blixt_1.2.3~rc1_amd64.deb another name") || g.state("draft") != "" {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("an unsigned release is refused", func(t *testing.T) {
		g := newGitHub(t)
		dist := g.dist(content)
		if err := os.Remove(filepath.Join(dist, "SHA256SUMS.sigstore.json")); err != nil {
			t.Fatal(err)
		}
		if out, err := g.run(g.dir, script, "v1.2.3", dist, "false", "true"); err == nil || !strings.Contains(out, "is not signed") || g.state("draft") != "" {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// Nothing is published that two machines have not made alike, that somebody has not approved,
// or that another run could have put into a cache.
func TestReleaseWorkflow(t *testing.T) {
	text := read(t, ".github/workflows/release.yaml")
	var w struct {
		Jobs map[string]struct {
			Needs any
			job
		}
	}
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{"check": nil, "build": "check", "publish": []any{"check", "build"}, "verify": "publish"} {
		if got := w.Jobs[name].Needs; !reflect.DeepEqual(got, want) {
			t.Errorf("job %s needs %v, want %v", name, got, want)
		}
	}
	if got := w.Jobs["publish"].Environment; got != "release" {
		t.Errorf("publish is in environment %v", got)
	}
	var steps []string
	for _, s := range w.Jobs["publish"].Steps {
		steps = append(steps, s.Uses+s.Run)
	}
	last := -1
	for _, want := range []string{"actions/download-artifact@", "diff --recursive", "docker login", "make publish", ".ci/release-github"} {
		at := slices.IndexFunc(steps, func(s string) bool { return strings.HasPrefix(s, want) })
		if at <= last {
			t.Errorf("publish: %q is step %d, after %d", want, at, last)
		}
		last = at
	}
	for name, j := range w.Jobs {
		for _, s := range j.Steps {
			if strings.HasPrefix(s.Uses, "actions/cache@") || strings.HasPrefix(s.Uses, "actions/setup-go@") && s.With["cache"] != false {
				t.Errorf("job %s has a cache: %s", name, s.Uses)
			}
		}
	}
}
