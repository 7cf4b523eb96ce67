// SPDX-License-Identifier: Apache-2.0

// Package clone copies one commit of a repository, so that a release has what is
// committed and nothing else, and what whoever builds it has configured plays no part.
package clone

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// Options say what to copy.
type Options struct {
	// Repository is a directory in a checkout.
	Repository string
	Version    string
	// Into is the directory of the clone, which there must not be.
	Into string
	// Env is what git gets, as Environment returns it.
	Env []string
	// Log gets what one might not expect.
	Log io.Writer
}

// Make copies the commit that has the version as its tag, or HEAD if none has it, and
// gives the copy that tag. Returns an error outside a checkout, and in one without commits.
func Make(ctx context.Context, o Options) (*release.Source, error) {
	root, err := o.git(ctx, o.Repository, "rev-parse", "--show-toplevel")
	if err != nil {
		return nil, fmt.Errorf("%s is in no checkout of git, which tells what a release is made of: git clone %s: %w", o.Repository, release.Home, err)
	}
	s := &release.Source{Dir: o.Into, Version: o.Version}
	if s.Revision, s.Tagged, err = o.find(ctx, root); err != nil {
		return nil, err
	}
	if err := o.copy(ctx, root, s); err != nil {
		return nil, fmt.Errorf("clone %s at %s: %w", root, s.Revision, err)
	}
	at, err := o.git(ctx, o.Into, "show", "--no-patch", "--format=%ct", "HEAD")
	if err != nil {
		return nil, err
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("time of commit %s: %w", s.Revision, err)
	}
	s.Time = time.Unix(seconds, 0).UTC()
	s.Toolchain, err = toolchain(o.Into)
	return s, err
}

// find returns the commit to release.
func (o Options) find(ctx context.Context, root string) (revision string, tagged bool, err error) {
	head, err := o.git(ctx, root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if err != nil {
		return "", false, fmt.Errorf("%s has no commit: %w", root, err)
	}
	changed, err := o.git(ctx, root, "-c", "core.fsmonitor=false", "status", "--porcelain")
	if err != nil {
		return "", false, err
	}
	if changed != "" {
		fmt.Fprintf(o.Log, "%d files are not committed: they are not in the release\n", strings.Count(changed, "\n")+1)
	}
	revision, err = o.git(ctx, root, "rev-parse", "--verify", "--quiet", "refs/tags/"+o.Version+"^{commit}")
	if err == nil {
		if revision != head {
			fmt.Fprintf(o.Log, "%s is commit %s, and not HEAD, %s: that commit is built\n", o.Version, short(revision), short(head))
		}
		return revision, true, nil
	}
	fetch := "git fetch --tags"
	if shallow, _ := o.git(ctx, root, "rev-parse", "--is-shallow-repository"); shallow == "true" {
		fetch = "git fetch --tags --unshallow"
	}
	fmt.Fprintf(o.Log, "there is no tag %s here: HEAD, %s, is built as if it had it, which cannot be published. "+
		"If others have the tag: %s. Else: git tag %s\n", o.Version, short(head), fetch, o.Version)
	return head, false, nil
}

// copy makes the clone: of the one commit, whatever else its repository has or lacks.
func (o Options) copy(ctx context.Context, root string, s *release.Source) error {
	format, err := o.git(ctx, root, "rev-parse", "--show-object-format")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.Into, 0o755); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"init", "--quiet", "--template=", "--object-format=" + format},
		{"fetch", "--quiet", "--depth=1", "--no-tags", root, s.Revision},
		{"update-ref", "refs/tags/" + s.Version, s.Revision},
		{"checkout", "--quiet", "--detach", s.Revision},
	} {
		if _, err := o.git(ctx, o.Into, args...); err != nil {
			return err
		}
	}
	return nil
}

// git returns what git prints, without the end of the line.
func (o Options) git(ctx context.Context, dir string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, "git", args...)
	c.Dir, c.Env = dir, o.Env
	var complaint strings.Builder
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(complaint.String()))
	}
	return strings.TrimRight(string(out), "\n"), nil
}

func short(revision string) string { return revision[:12] }

var toolchains = regexp.MustCompile(`(?m)^toolchain (go\S+)$`)

// toolchain returns the Go that go.mod asks for.
func toolchain(dir string) (string, error) {
	text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	match := toolchains.FindSubmatch(text)
	if match == nil {
		return "", fmt.Errorf("go.mod of the release has no line toolchain: it must name the one Go that makes these bytes")
	}
	return string(match[1]), nil
}
