// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// source is the address of the source.
const source = "https://github.com/kubernetes-sigs/blixt"

// binary is blixt, built for one architecture.
type binary struct {
	path, arch string
	sha256     string
	info       *buildinfo.BuildInfo
}

// build compiles the source of the current directory's module, stamped with the version
// from git.
func build(ctx context.Context, path, arch string) (*binary, error) {
	c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=auto", "-ldflags=-s -w", "-o", path,
		"github.com/kubernetes-sigs/blixt/operator/cmd/blixt")
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	c.Stderr = os.Stderr
	if err := c.Run(); err != nil {
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
	return &binary{path: path, arch: arch, sha256: hex.EncodeToString(sum[:]), info: info}, nil
}

func (b *binary) setting(key string) string {
	for _, s := range b.info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func (b *binary) version() string { return strings.Trim(b.info.Main.Version, "()") }

// tag returns the version, in the characters that a tag may have.
func (b *binary) tag() string {
	return regexp.MustCompile(`[^A-Za-z0-9_.-]`).ReplaceAllString(b.version(), "-")
}

// time returns the time of the commit, so that the image depends on nothing else.
func (b *binary) time() time.Time {
	t, err := time.Parse(time.RFC3339, b.setting("vcs.time"))
	if err != nil { // not of a git checkout
		return time.Unix(0, 0).UTC()
	}
	return t.UTC()
}
