// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/dist"
)

// plan is what the tool of the clone is told. The one that tells it may be of another
// version.
type plan struct {
	release.Source
	Platforms []string
	Builder   string
	// Packages and Docs tell whether there will be any.
	Packages, Docs bool
	// Out is the directory to fill, and Work is for what is needed on the way.
	Out, Work string
	// Helm, Nfpm and Hugo are the paths of tools.
	Helm, Nfpm, Hugo string
}

// execute has the tool of the clone make the release, and returns what that tool prints.
func (p *plan) execute(ctx context.Context, d *dist.Dir, env []string, log io.Writer) (summary string, err error) {
	run := func(out io.Writer, name string, args ...string) error {
		c := exec.CommandContext(ctx, name, args...)
		var complaint strings.Builder
		c.Dir, c.Env, c.Stdout, c.Stderr = filepath.Join(p.Work, "clone"), env, out, io.MultiWriter(log, &complaint)
		d.Keep(c)
		asGroup(c)
		err := c.Run()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && isFull(complaint.String()) {
			return fmt.Errorf("%w: %w", err, syscall.ENOSPC)
		}
		return err
	}
	var version strings.Builder
	if err := run(&version, "go", "env", "GOVERSION"); err != nil {
		return "", fmt.Errorf("get %s, which go.mod asks for: %w: install it; or take another Go, whose release differs in all digests: GOTOOLCHAIN=local", p.Toolchain, err)
	}
	if p.GoVersion = strings.TrimSpace(version.String()); p.GoVersion != p.Toolchain {
		fmt.Fprintf(log, "this is %s, and not %s: all digests differ from those that others get\n", p.GoVersion, p.Toolchain)
	}
	var tools strings.Builder
	targets := []string{"--silent", "--no-print-directory", "release-tools"}
	if !p.Packages {
		targets = append(targets, "NFPM=")
	}
	if !p.Docs {
		targets = append(targets, "HUGO=")
	}
	if err := step(log, "Helm, nfpm and Hugo, built once", func() error { return run(&tools, "make", targets...) }); err != nil {
		return "", err
	}
	for line := range strings.Lines(tools.String()) {
		switch name, path, _ := strings.Cut(strings.TrimSpace(line), "="); name {
		case "helm":
			p.Helm = path
		case "nfpm":
			p.Nfpm = path
		case "hugo":
			p.Hugo = path
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		return "", err
	}
	file, tool := filepath.Join(p.Work, "plan.json"), filepath.Join(p.Work, "release")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return "", err
	}
	if err := step(log, "the tool that makes the release", func() error { return run(log, "go", "build", "-o", tool, "./operator/cmd/release") }); err != nil {
		return "", err
	}
	var printed strings.Builder
	err = run(&printed, tool, "stages", file)
	return printed.String(), err
}

// asGroup has a signal end the command together with all that it has started.
func asGroup(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error {
		err := syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	c.WaitDelay = 10 * time.Second
}

// step tells what is done, and how long it took.
func step(log io.Writer, what string, do func() error) error {
	start := time.Now()
	fmt.Fprintf(log, "%s …", what)
	if err := do(); err != nil {
		fmt.Fprintln(log)
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(log, " %.1f s\n", time.Since(start).Seconds())
	return nil
}
