//go:build e2e

// SPDX-License-Identifier: Apache-2.0

// Package packages installs, upgrades and removes the packages for Debian and RPM on a host
// that a systemd of its own runs, while traffic flows.
package packages

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/packages"
)

var (
	nfpm    = flag.String("nfpm", "", "path of nfpm")
	rootDir = flag.String("root", "/", "files of the distribution that the host runs, with systemd")
)

// versions are those of the packages that are installed one after the other.
var versions = []string{"v0.9.0", "v0.9.1"}

// options are how the packages are made; built has their directory.
var (
	options packages.Options
	built   string
)

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "blixt-packages-")
		if err == nil {
			defer os.RemoveAll(dir)
			err = build(dir)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// build makes packages of this checkout.
func build(dir string) error {
	blixt, err := lab.Build(dir)
	if err != nil {
		return err
	}
	options = packages.Options{
		Source: release.Source{Dir: "../..", Time: time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)},
		Binary: &release.Binary{Path: blixt, Arch: runtime.GOARCH},
		Man:    filepath.Join(dir, "man"), Completions: filepath.Join(dir, "completions"), Nfpm: *nfpm, Out: filepath.Join(dir, "packages"),
	}
	built = options.Out
	for _, d := range []string{options.Completions, options.Out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	if out, err := exec.Command(blixt, "man", options.Man).CombinedOutput(); err != nil {
		return fmt.Errorf("blixt man: %w\n%s", err, out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		text, err := exec.Command(blixt, "completion", shell).Output()
		if err == nil {
			err = os.WriteFile(filepath.Join(options.Completions, "blixt."+shell), text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("blixt completion %s: %w", shell, err)
		}
	}
	for _, version := range versions {
		o := options
		o.Version = version
		if _, err := packages.Build(context.Background(), o); err != nil {
			return err
		}
	}
	return nil
}

// file returns a package of this machine's architecture.
func file(format, number string) string {
	return filepath.Join(built, packages.Name(format, number, runtime.GOARCH))
}
