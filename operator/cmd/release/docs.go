// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"os"

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
