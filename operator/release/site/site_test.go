// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/release/site"
)

// good is a site of two pages, which is in order.
func good() fstest.MapFS {
	menu := func(from string) string {
		return `<nav id="menu"><a href="` + from + `index.html">Blixt</a><a href="` + from + `guide/host.html">A host</a></nav>`
	}
	return fstest.MapFS{
		"index.html": {Data: []byte(`<!doctype html><html><head><title>Blixt</title><link rel="stylesheet" href="./docs.css"><script src="./docs.js" defer></script></head><body>` + menu("./") +
			`<main><h1 id="blixt">Blixt</h1><p><a href="./guide/host.html#start">start</a> <img src="./icon.svg" alt=""> MORE</main></body></html>`)},
		"guide/host.html": {Data: []byte(`<!doctype html><html><head><title>A host</title></head><body>` + menu("../") +
			`<main><h1 id="a-host">A host</h1><h2 id="start">Start</h2><a href="../index.html">back</a> <a href="#start">up</a> <a href="https://example.com/none">elsewhere</a>` +
			`<a href="https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/examples/policy">files</a></main></body></html>`)},
		"docs.css": {}, "docs.js": {}, "icon.svg": {Data: []byte("<svg/>")},
	}
}

var repository = fstest.MapFS{"examples/policy/edge.yaml": {}}

func TestCheck(t *testing.T) {
	if err := site.Check(good(), repository, "v1.2.3"); err != nil {
		t.Fatalf("a good site: %v", err)
	}
	for what, c := range map[string]struct{ more, want string }{
		"a page that there is not":      {`<a href="./nowhere.html">x</a>`, "index.html: links to ./nowhere.html: there is no such file"},
		"a page in other letters":       {`<a href="./Guide/host.html">x</a>`, "links to ./Guide/host.html: there is no such file"},
		"a folder":                      {`<a href="./guide/">x</a>`, "links to ./guide/: there is no such file"},
		"above the site":                {`<a href="../../etc/passwd">x</a>`, "links to ../../etc/passwd: there is no such file"},
		"a heading that there is not":   {`<a href="./guide/host.html#stop">x</a>`, "links to ./guide/host.html#stop: there is no such heading"},
		"one of this page":              {`<a href="#stop">x</a>`, "links to #stop: there is no such heading"},
		"a path from the root":          {`<a href="/guide/host.html">x</a>`, "want a path that is relative"},
		"a script as a link":            {`<a href="javascript:alert(1)">x</a>`, "want a path that is relative, or https"},
		"another host without a scheme": {`<a href="//example.com/x">x</a>`, "want a path that is relative, or https"},
		"no address at all":             {`<a href="http://[::1">x</a>`, "missing ']'"},
		"a file that was removed":       {`<a href="https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/examples/none.yaml">x</a>`, "links to examples/none.yaml, which the repository has not"},
		"a file outside of it":          {`<a href="https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/../x">x</a>`, "links to ../x, which the repository has not"},
		"a picture that there is not":   {`<picture><source srcset="./dark.webp"><img src="./light.webp" alt="x"></picture>`, "links to ./dark.webp"},
		"a picture without words":       {`<img src="./icon.svg">`, "the picture ./icon.svg has no text"},
		"a second title":                {`<h1>Again</h1>`, "has 2 headings of the first level"},
		"an id that is there twice":     {`<h2 id="blixt">Again</h2>`, `the id "blixt" is there twice`},
		"a style":                       {`<p style="color: red">x`, "<p> has the attribute style"},
		"a style sheet of its own":      {`<style>a{}</style>`, "has <style>"},
		"a script of its own":           {`<script>alert(1)</script>`, "has a script of its own"},
		"a handler":                     {`<p onclick="x()">x`, "<p> has the attribute onclick"},
		"a frame":                       {`<iframe src="./guide/host.html"></iframe>`, "has <iframe>"},
	} {
		s := good()
		s["index.html"].Data = bytes.Replace(s["index.html"].Data, []byte("MORE"), []byte(c.more), 1)
		if err := site.Check(s, repository, "v1.2.3"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", what, c.want, err)
		}
	}
	for what, c := range map[string]struct {
		change func(fstest.MapFS)
		want   string
	}{
		"no first page": {func(s fstest.MapFS) { delete(s, "index.html") }, "has no index.html"},
		"a page without a menu": {func(s fstest.MapFS) {
			s["lost.html"] = &fstest.MapFile{Data: []byte("<title>Lost</title><h1>Lost</h1>")}
		}, "lost.html: is not in the menu: add its file to docs/site/data/menu.yaml"},
		"no title": {func(s fstest.MapFS) {
			s["guide/host.html"].Data = bytes.Replace(s["guide/host.html"].Data, []byte("<title>A host"), []byte("<title>"), 1)
		}, `guide/host.html: the title ""`},
		"one title twice": {func(s fstest.MapFS) {
			s["guide/host.html"].Data = bytes.Replace(s["guide/host.html"].Data, []byte("<title>A host"), []byte("<title>Blixt"), 1)
		}, `the title "Blixt" is that of "guide/host.html", too`},
		"two mistakes": {func(s fstest.MapFS) { delete(s, "docs.css"); delete(s, "icon.svg") }, "docs.css: there is no such file\nindex.html: links to ./icon.svg"},
	} {
		s := good()
		c.change(s)
		if err := site.Check(s, repository, "v1.2.3"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", what, c.want, err)
		}
	}
}

// An archive depends on what files there are and what they contain.
func TestZip(t *testing.T) {
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.FixedZone("", 3600))
	first, err := site.Zip(good(), at)
	if err != nil {
		t.Fatal(err)
	}
	other := good()
	for _, f := range other {
		f.Mode, f.ModTime = 0o600, time.Now()
	}
	if second, err := site.Zip(other, at.UTC()); err != nil || !bytes.Equal(first, second) {
		t.Errorf("modes, times or the time zone of files change the archive: %v", err)
	}
	r, err := zip.NewReader(bytes.NewReader(first), int64(len(first)))
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range good() {
		got, err := fs.ReadFile(r, name)
		if err != nil || !bytes.Equal(got, f.Data) {
			t.Errorf("%s: %v, %q", name, err, got)
		}
	}
	if len(r.File) != len(good()) || !r.File[0].Modified.Equal(at) || r.File[0].Mode() != 0o644 {
		t.Errorf("%d files, the first of %v, %v", len(r.File), r.File[0].Modified, r.File[0].Mode())
	}
}
