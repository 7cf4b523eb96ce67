// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kubernetes-sigs/blixt/operator/release"
	"github.com/kubernetes-sigs/blixt/operator/release/dist"
	"github.com/kubernetes-sigs/blixt/operator/release/site"
)

// runDocs makes the site of the documentation, of the files as they are here, and then says what
// is wrong with it: whoever writes a page wants to see that page.
func runDocs(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("docs", flag.ExitOnError)
	hugo := f.String("hugo", "hugo", "path of Hugo")
	version := f.String("version", "main", "tag or branch that the site shows, and links to")
	out := f.String("out", "bin/docs", "directory to make; the site that is in it is replaced")
	_ = f.Parse(args) // it exits
	d, err := dist.Begin(*out, site.Mark)
	if err != nil {
		return err
	}
	defer d.Close()
	made, err := site.Make(ctx, site.Options{Repository: ".", Version: *version, Hugo: *hugo, Work: d.Work, Run: d.Keep})
	if err != nil {
		return err
	}
	if err := d.Replace(made); err != nil {
		return err
	}
	fmt.Fprintf(os.Stdout, "made %s/index.html\n", *out)
	return site.Check(os.DirFS(*out), os.DirFS("."), *version)
}

// makeDocs makes the site of the documentation, which is built into the programs after it.
func (s *stages) makeDocs(ctx context.Context) error {
	if !s.Docs {
		return nil
	}
	work := filepath.Join(s.Work, "docs")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	made, err := site.Make(ctx, site.Options{Repository: ".", Version: s.Version, Hugo: s.Hugo, Work: work})
	if err != nil {
		return err
	}
	if err := site.Check(os.DirFS(made), os.DirFS("."), s.Version); err != nil {
		return err
	}
	archive, err := site.Zip(os.DirFS(made), s.Time)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join("operator", "manual", "site.zip"), archive, 0o644); err != nil {
		return err
	}
	return s.write("blixt_"+s.Number()+"_docs.zip", release.KindDocs, archive)
}
