// SPDX-License-Identifier: Apache-2.0

package release

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release/size"
)

// Binary is blixt, built for one architecture.
type Binary struct {
	Path, Arch string
	SHA256     string
	Info       *buildinfo.BuildInfo
}

// Build has make build compile the source of the current directory's module, as the
// Makefile says how, stamped with the version from git. Settings are more of its variables,
// such as DOCS=1.
func Build(ctx context.Context, path, arch string, settings ...string) (*Binary, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f={{.Dir}}").Output()
	if err != nil {
		return nil, fmt.Errorf("find the source: %w", err)
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, "make", append([]string{"--silent", "--no-print-directory", "build", "BIN=" + path}, settings...)...)
	c.Dir = strings.TrimSpace(string(root))
	c.Env = append(os.Environ(), "MAKEFLAGS=", "GOOS=linux", "GOARCH="+arch)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("build blixt for %s: %w", arch, err)
	}
	if err := size.Check(path); err != nil {
		return nil, fmt.Errorf("build blixt for %s: %w", arch, err)
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read build information of blixt for %s: %w", arch, err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(content)
	return &Binary{Path: path, Arch: arch, SHA256: hex.EncodeToString(sum[:]), Info: info}, nil
}

func (b *Binary) setting(key string) string {
	for _, s := range b.Info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// Version returns the version that Go has stamped.
func (b *Binary) Version() string { return strings.Trim(b.Info.Main.Version, "()") }

// Revision returns the commit, or nothing when it was not built from a git checkout.
func (b *Binary) Revision() string { return b.setting("vcs.revision") }

// Tag returns the version, in the characters that a tag may have.
func (b *Binary) Tag() string {
	return regexp.MustCompile(`[^A-Za-z0-9_.-]`).ReplaceAllString(b.Version(), "-")
}

// Time returns the time of the commit, so that what is made of the program depends on
// nothing else.
func (b *Binary) Time() time.Time {
	t, err := time.Parse(time.RFC3339, b.setting("vcs.time"))
	if err != nil { // not of a git checkout
		return time.Unix(0, 0).UTC()
	}
	return t.UTC()
}
