// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubernetes-sigs/blixt/bytecode"
	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/clone"
	"github.com/kubernetes-sigs/blixt/operator/release/dist"
)

type buildOptions struct {
	version, registry, platforms, dist, builder, without string
	log, out                                             io.Writer
}

// runBuild makes a release of the version. It only clones the commit: what is in the
// clone makes the release, so that an old version is made as it was then, and nothing
// that is not committed takes part.
func runBuild(ctx context.Context, args []string) error {
	o := buildOptions{log: os.Stderr, out: os.Stdout}
	f := flag.NewFlagSet("build", flag.ExitOnError)
	f.StringVar(&o.version, "version", "", "version to release, which is the tag of its commit, such as v1.2.3")
	f.StringVar(&o.registry, "registry", "", "host and path that images will be pushed to, such as registry.example.com/blixt")
	f.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "platforms to build for")
	f.StringVar(&o.dist, "dist", "dist", "directory to make; the release that is in it is replaced")
	f.StringVar(&o.builder, "builder", "", "URI of who builds, for the statement of provenance; none: a machine of one's own")
	f.StringVar(&o.without, "without", "", "what to leave out to be quicker, in tests: packages, docs, or both, with a comma")
	_ = f.Parse(args) // it exits
	if f.NArg() > 0 { // flags behind it would not count
		return fmt.Errorf("%q: it takes no arguments but flags, such as -version=v1.2.3", f.Arg(0))
	}
	return explain(o.run(ctx))
}

// explain says what to do about what happens to everybody.
func explain(err error) error {
	if err != nil && (errors.Is(err, syscall.ENOSPC) || isFull(err.Error())) {
		return fmt.Errorf("%w: a release needs about 500 MB beside the directory that it is made in, and as much in Go's cache; what was in that directory is as it was", err)
	}
	return err
}

// isFull tells whether a program says that a file system is full.
func isFull(text string) bool { return strings.Contains(strings.ToLower(text), syscall.ENOSPC.Error()) }

func (o *buildOptions) run(ctx context.Context) error {
	if err := o.check(); err != nil {
		return err
	}
	syscall.Umask(0o022)
	start := time.Now()
	d, err := dist.Begin(o.dist, release.ListName)
	if err != nil {
		return err
	}
	defer d.Close()
	env, err := clone.Environment(ctx, d.Work)
	if err != nil {
		return err
	}
	source, err := clone.Make(ctx, clone.Options{
		Repository: ".", Version: o.version, Into: filepath.Join(d.Work, "clone"), Env: env, Log: o.log,
	})
	if err != nil {
		return err
	}
	source.Registry = o.registry
	if os.Getenv("GOTOOLCHAIN") == "" {
		env = append(env, "GOTOOLCHAIN="+source.Toolchain)
	} else {
		env = append(env, "GOTOOLCHAIN="+os.Getenv("GOTOOLCHAIN"))
	}
	p := &plan{
		Source: *source, Platforms: strings.Split(o.platforms, ","), Builder: o.builder, Packages: !o.leavesOut("packages"), Docs: !o.leavesOut("docs"),
		Out: filepath.Join(d.Work, "dist"), Work: d.Work,
	}
	summary, err := p.execute(ctx, d, env, o.log)
	if err != nil {
		return err
	}
	if err := d.Replace(p.Out); err != nil {
		return err
	}
	fmt.Fprintf(o.log, "%s is in %s, after %s\n", o.version, o.dist, time.Since(start).Round(time.Second))
	_, err = io.WriteString(o.out, summary)
	return err
}

// leavesOut tells whether a part is not wanted.
func (o *buildOptions) leavesOut(part string) bool {
	return slices.Contains(strings.Split(o.without, ","), part)
}

// check finds typing errors before anything is done.
func (o *buildOptions) check() error {
	if err := release.CheckVersion(o.version); err != nil {
		return err
	}
	if o.registry == "" {
		return errors.New("which registry? Name host and path, such as REGISTRY=registry.example.com/blixt")
	}
	if _, err := architectures(o.platforms); err != nil {
		return err
	}
	for part := range strings.SplitSeq(o.without, ",") {
		if part != "" && part != "packages" && part != "docs" {
			return fmt.Errorf("-without=%s: only packages and docs can be left out", o.without)
		}
	}
	for _, repository := range slices.Concat(repositories, []string{chartRepository}) {
		if err := bytecode.CheckName(o.registry + "/" + repository + ":" + o.version); err != nil {
			return err
		}
	}
	return nil
}
