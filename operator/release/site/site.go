// SPDX-License-Identifier: Apache-2.0

// Package site makes the site of the documentation: HTML of the Markdown files of the
// repository, which needs no server.
package site

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Mark is a file that each site has, and hardly anything else.
const Mark = "search-index.js"

// Options say what to make a site of.
type Options struct {
	// Repository is the root of a checkout.
	Repository string
	// Version is shown, and is where links to files lead that are no pages: a tag, or a branch.
	Version string
	// Hugo is the path of the program.
	Hugo string
	// Work is a directory for what is needed on the way. The site is made in it, too.
	Work string
	// Run prepares a command, if it is not nil.
	Run func(*exec.Cmd)
}

// Make makes a site, in a directory that it returns.
func Make(ctx context.Context, o Options) (dir string, err error) {
	root, err := filepath.Abs(o.Repository)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(o.Work, "site")
	c := exec.CommandContext(ctx, o.Hugo, "--logLevel=error", "--minify", "--noBuildLock", "--destination="+dir, "--cacheDir="+filepath.Join(o.Work, "hugo"))
	c.Dir = filepath.Join(root, "docs", "site")
	// Whoever makes it has Hugo configured by variables, or has another time zone.
	c.Env = []string{"HOME=" + o.Work, "TMPDIR=" + o.Work, "PATH=" + os.Getenv("PATH"), "TZ=UTC", "LC_ALL=C.UTF-8", "HUGO_PARAMS_VERSION=" + o.Version}
	if o.Run != nil {
		o.Run(c)
	}
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("hugo: %w: %s", err, bytes.TrimSpace(out))
	}
	return dir, nil
}

// Zip returns the files of a site as an archive that depends on them alone.
func Zip(site fs.FS, at time.Time) ([]byte, error) {
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	err := fs.WalkDir(site, ".", func(name string, e fs.DirEntry, err error) error { // sorted
		if err != nil || e.IsDir() {
			return err
		}
		text, err := fs.ReadFile(site, name)
		if err != nil {
			return err
		}
		header := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: at.UTC()}
		header.SetMode(0o644)
		f, err := w.CreateHeader(header)
		if err != nil {
			return err
		}
		_, err = f.Write(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// pages returns the names of a site's pages.
func pages(site fs.FS) (all []string, err error) {
	err = fs.WalkDir(site, ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".html") {
			all = append(all, name)
		}
		return err
	})
	return all, err
}
