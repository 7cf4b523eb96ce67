// SPDX-License-Identifier: Apache-2.0

package clone_test

import (
	stdcmp "cmp"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/clone"
)

// repository is one of a test.
type repository struct {
	t   *testing.T
	dir string
}

// newRepository makes one with a commit.
func newRepository(t *testing.T) *repository {
	t.Helper()
	r := &repository{t, t.TempDir()}
	r.git("init", "--quiet", "--initial-branch=main")
	r.write("go.mod", "module example.com/m\n\ngo 1.26.0\n\ntoolchain go1.26.8\n")
	r.write(".gitattributes", "*.crlf eol=crlf\n")
	r.write("program.sh", "#!/bin/sh\n")
	r.write("page.txt", "first\n")
	r.write("windows.crlf", "first\n")
	if err := os.Chmod(filepath.Join(r.dir, "program.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	r.commit("first")
	return r
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	c := exec.CommandContext(r.t.Context(), "git", args...)
	c.Dir = r.dir
	c.Env = []string{
		"PATH=" + os.Getenv("PATH"), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com",
		"GIT_COMMITTER_DATE=2026-11-30T12:00:00+0900",
	}
	out, err := c.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repository) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// commit commits everything, and returns the commit.
func (r *repository) commit(message string) string {
	r.t.Helper()
	r.git("add", "--all")
	r.git("commit", "--quiet", "--message="+message)
	return r.git("rev-parse", "HEAD")
}

// clone returns the source, the files of the clone, and what was said.
func (r *repository) clone() (s *release.Source, files map[string]string, said string, err error) {
	r.t.Helper()
	work := r.t.TempDir()
	env, err := clone.Environment(r.t.Context(), work)
	if err != nil {
		r.t.Fatal(err)
	}
	var log strings.Builder
	into := filepath.Join(work, "clone")
	s, err = clone.Make(r.t.Context(), clone.Options{Repository: r.dir, Version: "v1.2.3", Into: into, Env: env, Log: &log})
	if err != nil {
		return nil, nil, log.String(), err
	}
	files = map[string]string{}
	err = fs.WalkDir(os.DirFS(into), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == ".git" {
			return stdcmp.Or(err, fs.SkipDir)
		}
		if e.IsDir() {
			return nil
		}
		text, err := os.ReadFile(filepath.Join(into, path))
		if err != nil {
			return err
		}
		info, err := e.Info()
		files[path] = info.Mode().String()[:4] + " " + string(text)
		return err
	})
	return s, files, log.String(), err
}

func (r *repository) mustClone() (*release.Source, map[string]string, string) {
	r.t.Helper()
	s, files, said, err := r.clone()
	if err != nil {
		r.t.Fatal(err)
	}
	return s, files, said
}

func TestOnlyWhatIsCommitted(t *testing.T) {
	r := newRepository(t)
	r.git("tag", "--annotate", "--message=v1.2.3", "v1.2.3")
	r.write("page.txt", "changed\n")
	r.write("new.txt", "new\n")
	r.write(".git/info/attributes", "page.txt eol=crlf\n")
	s, files, said := r.mustClone()
	want := map[string]string{
		"go.mod":         "-rw- module example.com/m\n\ngo 1.26.0\n\ntoolchain go1.26.8\n",
		".gitattributes": "-rw- *.crlf eol=crlf\n", "program.sh": "-rwx #!/bin/sh\n", "page.txt": "-rw- first\n", "windows.crlf": "-rw- first\r\n",
	}
	if diff := cmp.Diff(want, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if said != "2 files are not committed: they are not in the release\n" {
		t.Errorf("said %q", said)
	}
	if !s.Tagged || s.Revision != r.git("rev-parse", "HEAD") || s.Toolchain != "go1.26.8" || s.Time.String() != "2026-11-30 03:00:00 +0000 UTC" {
		t.Errorf("source %+v", s)
	}
}

func TestTagTellsTheCommit(t *testing.T) {
	r := newRepository(t)
	first := r.git("rev-parse", "HEAD")
	r.git("tag", "v1.2.3")
	r.write("page.txt", "second\n")
	second := r.commit("second")
	r.git("branch", "v1.2.3") // which is no tag
	s, files, said := r.mustClone()
	if s.Revision != first || files["page.txt"] != "-rw- first\n" {
		t.Errorf("commit %s with page.txt %q, want the tagged one, %s", s.Revision, files["page.txt"], first)
	}
	if want := "v1.2.3 is commit " + first[:12] + ", and not HEAD, " + second[:12] + ": that commit is built\n"; said != want {
		t.Errorf("said %q, want %q", said, want)
	}
}

func TestWithoutTheTagHEADIsBuilt(t *testing.T) {
	r := newRepository(t)
	r.git("tag", "v1.2.4")
	r.write("page.txt", "second\n")
	second := r.commit("second")
	shallow := &repository{t, t.TempDir()}
	shallow.git("clone", "--quiet", "--depth=1", "file://"+r.dir, ".")
	for _, tc := range []struct {
		repository *repository
		remedy     string
	}{{r, "git fetch --tags."}, {shallow, "git fetch --tags --unshallow."}} {
		s, files, said := tc.repository.mustClone()
		if s.Tagged || s.Revision != second || files["page.txt"] != "-rw- second\n" {
			t.Errorf("source %+v, page.txt %q: want HEAD, %s, without a tag", s, files["page.txt"], second)
		}
		if !strings.HasPrefix(said, "there is no tag v1.2.3 here") || !strings.Contains(said, tc.remedy) {
			t.Errorf("said %q, want %q", said, tc.remedy)
		}
	}
}

// The same commit makes the same clone, whoever makes it, from whichever checkout.
func TestWhatIsConfiguredPlaysNoPart(t *testing.T) {
	r := newRepository(t)
	r.git("tag", "v1.2.3")
	_, want, _ := r.mustClone()

	home := t.TempDir()
	hostile := &repository{t, home}
	hostile.write(".gitconfig", `[core]
	autocrlf = true
	hooksPath = `+home+`/hooks
	attributesFile = `+home+`/attributes
	fsmonitor = `+home+`/hooks/post-checkout
[commit]
	gpgSign = true
[tag]
	gpgSign = true
	forceSignAnnotated = true
[init]
	templateDir = `+home+`/template
[fetch]
	fsckObjects = true
[transfer]
	hideRefs = refs
[protocol]
	allow = never
[filter "evil"]
	smudge = echo evil
`)
	hostile.write("attributes", "* filter=evil\n")
	for _, dir := range []string{"hooks", "template/info", ".config/git"} {
		if err := os.MkdirAll(filepath.Join(home, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, hook := range []string{"post-checkout", "reference-transaction"} {
		hostile.write("hooks/"+hook, "#!/bin/sh\ntouch "+home+"/ran\nexit 1\n")
		if err := os.Chmod(filepath.Join(home, "hooks", hook), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hostile.write("template/info/attributes", "* eol=crlf\n")
	hostile.write(".config/git/attributes", "* eol=crlf\n")
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	t.Setenv("GIT_DIR", "/nonexistent") // as in a hook
	t.Setenv("GIT_INDEX_FILE", "/nonexistent")
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
	t.Setenv("GIT_CONFIG_VALUE_0", "true")
	t.Setenv("GOFLAGS", "-mod=nonsense")
	t.Setenv("GOWORK", "/nonexistent/go.work")
	t.Setenv("LANG", "tr_TR.UTF-8")

	worktree := &repository{t, filepath.Join(t.TempDir(), "a tree")}
	r.git("worktree", "add", "--quiet", "--detach", worktree.dir)
	for _, from := range []*repository{r, worktree} {
		_, got, _ := from.mustClone()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("files from %s (-want +got):\n%s", from.dir, diff)
		}
	}
	if _, err := os.Stat(home + "/ran"); err == nil {
		t.Error("a hook of whoever makes it has run")
	}
}

// Root makes releases in checkouts of others, of which git wants to hear nothing by itself.
func TestCheckoutOfSomebodyElse(t *testing.T) {
	r := newRepository(t)
	err := filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, 65534, 65534)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	if _, files, _ := r.mustClone(); len(files) != 5 {
		t.Errorf("files %v, want all", slices.Sorted(maps.Keys(files)))
	}
}

func TestWhatCannotBeCloned(t *testing.T) {
	empty := &repository{t, t.TempDir()}
	unborn := &repository{t, t.TempDir()}
	unborn.git("init", "--quiet")
	old := newRepository(t)
	old.write("go.mod", "module example.com/m\n\ngo 1.26.0\n")
	old.commit("no toolchain")
	for _, tc := range []struct {
		repository *repository
		text       string
	}{
		{empty, "is in no checkout of git, which tells what a release is made of: git clone https://"},
		{unborn, "has no commit"},
		{old, "has no line toolchain"},
	} {
		if _, _, _, err := tc.repository.clone(); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("got %v, want an error with %q", err, tc.text)
		}
	}
}

// What changes the bytes that Go makes is not taken from whoever makes them, nor what he
// has written with go env -w.
func TestEnvironmentTellsOnlyWhereThingsAre(t *testing.T) {
	written := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(written, []byte("GOPROXY=https://proxy.example.com\nGOFLAGS=-tags=other\nGOAMD64=v2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", written)
	t.Setenv("GOPROXY", "")
	t.Setenv("GOAMD64", "v3")
	t.Setenv("GOFIPS140", "latest")
	t.Setenv("CC", "other")
	t.Setenv("MAKEFLAGS", "TAGS=other")
	t.Setenv("SOURCE_DATE_EPOCH", "1")
	env, err := clone.Environment(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"GOPROXY": "https://proxy.example.com", "GOFLAGS": "-trimpath", "GOENV": "off", "GOWORK": "off", "CGO_ENABLED": "0", "TZ": "UTC", "LC_ALL": "C",
		"PATH": os.Getenv("PATH"), "GOAMD64": "", "GOFIPS140": "", "CC": "", "MAKEFLAGS": "", "SOURCE_DATE_EPOCH": "",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if got["GOCACHE"] == "" || got["GOMODCACHE"] == "" {
		t.Errorf("no caches in %q", env)
	}
}
