// SPDX-License-Identifier: Apache-2.0

//go:build site

package browser_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/page"
	"github.com/kubernetes-sigs/blixt/operator/release/site"
)

// odd is a page as nobody should write it, and somebody will.
var odd = "# `<b>` & \"quotes\", 'n' *stars* — ünï 👩‍👩‍👧‍👦 \u05d0\u05d1\u05d2 {{ .Site }}\n\n" +
	"First " + strings.Repeat("W", 700) + ", `" + strings.Repeat("code", 200) + "` and <https://example.com/" + strings.Repeat("path/", 200) + ">.\n\n" +
	"- [the second](#same-1), [a file](../LICENSE), [a folder](../examples), [a page](deep/page.md#its-heading), [a folder with a page](../examples/tcp)\n\n" +
	"## Same\n\none\n\n## Same\n\ntwo\n\n### `" + strings.Repeat("long.heading.", 60) + "`\n\n" +
	"|" + strings.Repeat(" head |", 30) + "\n|" + strings.Repeat("-|", 30) + "\n|" + strings.Repeat(" a cell of `code` |", 30) + "\n\n" +
	"<!-- not run: it is odd -->\n```sh\necho " + strings.Repeat("x", 3000) + " </script><script>hacked('code')</script>\n```\n\n```\nno language\n```\n\n" +
	"```nolanguage\nof one that nobody knows\n```\n\n```console\n$ typed\nanswered\n# asroot\n```\n\n![a picture](pictures/a.svg)\n\n> " + strings.Repeat("quoted ", 100) + "\n"

// repositoryOf makes a repository of the site's files and of some documents.
func repositoryOf(t *testing.T, documents map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "docs", "site"), os.DirFS("../../docs/site")); err != nil {
		t.Fatal(err)
	}
	menu := "- name: All\n  pages:\n"
	for name, text := range documents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".md") {
			menu += "    - " + name + "\n"
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "docs", "site", "data", "menu.yaml"), []byte(menu), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// documents returns a good set, and more.
func documents(more ...string) map[string]string {
	all := map[string]string{
		"LICENSE": "", "docs/icon.svg": "<svg/>", "docs/pictures/a.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
		"docs/README.md": "# Blixt\n\nIt balances.\n", "docs/odd.md": odd, "docs/deep/page.md": "# Deep\n\n## Its heading\n\n[up](../odd.md), [root](../../SECURITY.md)\n",
		"SECURITY.md": "# Security\n\n[docs](docs/odd.md)\n", "examples/tcp/README.md": "# TCP\n\n[docs](../../docs/README.md)\n",
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	return all
}

func TestSiteOfOddPages(t *testing.T) {
	repository := repositoryOf(t, documents())
	dir, err := site.Make(t.Context(), site.Options{Repository: repository, Version: "v1.2.3", Hugo: os.Getenv("HUGO"), Work: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := site.Check(os.DirFS(dir), os.DirFS(repository), "v1.2.3"); err != nil {
		t.Error(err)
	}
	v := serve(t, newSource(), func(o *page.Options) { o.Manual = manualOf(t, dir) })
	w := newTab(t)
	w.open(v.URL + "docs/odd.html")
	for expression, want := range map[string]string{
		`document.title`: "<b> & \"quotes\", 'n' stars — ünï 👩‍👩‍👧‍👦 \u05d0\u05d1\u05d2 {{ .Site }} · Blixt",
		`document.querySelector('#menu [aria-current]').textContent`:                               "<b> & \"quotes\", 'n' stars — ünï 👩‍👩‍👧‍👦 \u05d0\u05d1\u05d2 {{ .Site }}",
		`document.getElementById('same-1').nextElementSibling.textContent`:                         "two",
		`[...document.querySelectorAll('main ul a')].map(a => a.getAttribute('href')).join(' ')`:   "#same-1 https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/LICENSE https://github.com/kubernetes-sigs/blixt/blob/v1.2.3/examples ./deep/page.html#its-heading ./examples/tcp/readme.html",
		`[...document.querySelectorAll('.copy')].map(b => b.parentElement.dataset.type).join(' ')`: "sh nolanguage console",
	} {
		if got := eval[string](w, expression); got != want {
			t.Errorf("%s is %q, want %q", expression, got, want)
		}
	}
	w.unharmedSite("a desktop")
	if found := w.ask("stars"); len(found) == 0 || !strings.HasSuffix(found[0], "/docs/odd.html") {
		t.Errorf("its title is found as %q", found)
	}
	w.fits("results")
	w.phone()
	w.unharmedSite("a telephone")
}

// unharmedSite fails the test if text of a page has become anything but text.
func (w *tab) unharmedSite(where string) {
	w.Helper()
	if n := eval[int](w, `document.querySelectorAll('script').length`); n != 2 {
		w.Errorf("%s: there are %d scripts", where, n)
	}
	w.fits(where)
}

// What is wrong is said with the name of the file.
func TestSiteOfWrongPages(t *testing.T) {
	for what, c := range map[string]struct{ file, text, want string }{
		"no title":         {"docs/none.md", "text\n", "docs/none.md has no title: begin it with a line like: # Policies"},
		"nothing":          {"docs/none.md", "", "docs/none.md has no title"},
		"only second ones": {"docs/none.md", "## Second\n", "docs/none.md has no title"},
		"a broken link":    {"docs/none.md", "# None\n\n[x](nowhere.md)\n", "none.html: links to docs/nowhere.md, which the repository has not"},
		"a broken anchor":  {"docs/none.md", "# None\n\n[x](odd.md#nowhere)\n", "none.html: links to ./odd.html#nowhere: there is no such heading"},
		"a picture":        {"docs/none.md", "# None\n\n![x](pictures/none.svg)\n", "none.html: links to ./pictures/none.svg: there is no such file"},
		"a script":         {"docs/none.md", "# None\n\n<script>alert(1)</script>\n", "none.html: has a script of its own"},
		"the same title":   {"docs/none.md", "# Deep\n", "none.html: the title \"Deep · Blixt\" is that of \"deep/page.html\", too"},
	} {
		repository := repositoryOf(t, documents(c.file, c.text))
		dir, err := site.Make(t.Context(), site.Options{Repository: repository, Version: "v1.2.3", Hugo: os.Getenv("HUGO"), Work: t.TempDir()})
		if err == nil {
			err = site.Check(os.DirFS(dir), os.DirFS(repository), "v1.2.3")
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: want %q, got %v", what, c.want, err)
		}
	}
}
