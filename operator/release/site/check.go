// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/html"

	"github.com/kubernetes-sigs/blixt/operator/release"
)

// page is what there is to know of one.
type page struct {
	title  string
	firsts int // headings of the first level
	ids    map[string]bool
	links  []string // of all that it loads or leads to
	menu   []string // of its menu
	wrong  []string
}

// Check returns an error that lists all that is wrong with the site of a version: links that
// lead nowhere, in the site and in the repository; pages without a title or with that of
// another one, or that the menu has not; ids that are there twice; and what a browser does not
// run or show under the policy of Blixt's page.
func Check(site, repository fs.FS, version string) error {
	address := release.Home + "/blob/" + version + "/"
	names, err := pages(site)
	if err != nil {
		return err
	}
	all := map[string]*page{}
	for _, name := range names {
		if all[name], err = read(site, name); err != nil {
			return err
		}
	}
	if all["index.html"] == nil {
		return errors.New("the site has no index.html: docs/README.md is to be its first page")
	}
	var wrong []error
	titles := map[string]string{}
	for _, name := range names {
		p := all[name]
		complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(name+": "+format, args...)) }
		for _, w := range p.wrong {
			complain("%s", w)
		}
		if p.firsts != 1 {
			complain("has %d headings of the first level: want one, which is its title", p.firsts)
		}
		if other := titles[p.title]; other != "" || p.title == "" {
			complain("the title %q is that of %q, too: want one of its own", p.title, other)
		}
		titles[p.title] = name
		if !slices.Contains(all["index.html"].menu, name) {
			complain("is not in the menu: add its file to docs/site/data/menu.yaml")
		}
		for _, link := range p.links {
			if err := follow(site, repository, address, all, name, link); err != nil {
				complain("%w", err)
			}
		}
	}
	return errors.Join(wrong...)
}

// follow returns an error if a link of a page leads nowhere.
func follow(site, repository fs.FS, address string, all map[string]*page, from, link string) error {
	u, err := url.Parse(link)
	if err != nil {
		return err
	}
	if file, is := strings.CutPrefix(link, address); is {
		file, _, _ = strings.Cut(file, "#")
		if _, err := fs.Stat(repository, strings.TrimSuffix(file, "/")); err != nil {
			return fmt.Errorf("links to %s, which the repository has not", file)
		}
		return nil
	}
	switch {
	case u.Scheme == "https" || u.Scheme == "http":
		return nil // of others: nothing is asked of the network
	case u.Scheme != "" || u.Host != "" || path.IsAbs(u.Path):
		return fmt.Errorf("links to %s: want a path that is relative, or https", link)
	}
	to := from
	if u.Path != "" {
		to = path.Join(path.Dir(from), u.Path)
	}
	if info, err := fs.Stat(site, to); err != nil || info.IsDir() {
		return fmt.Errorf("links to %s: there is no such file", link)
	}
	if p := all[to]; u.Fragment != "" && (p == nil || !p.ids[u.Fragment]) {
		return fmt.Errorf("links to %s: there is no such heading", link)
	}
	return nil
}

// read reads a page.
func read(site fs.FS, name string) (*page, error) {
	f, err := site.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	doc, err := html.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &page{ids: map[string]bool{}}
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode {
			p.see(n, name)
		}
	}
	return p, nil
}

// see takes notice of an element.
func (p *page) see(n *html.Node, name string) {
	attributes := map[string]string{}
	for _, a := range n.Attr {
		attributes[a.Key] = a.Val
		if a.Key == "style" || strings.HasPrefix(a.Key, "on") {
			p.wrong = append(p.wrong, fmt.Sprintf("<%s> has the attribute %s, which the policy of Blixt's page forbids", n.Data, a.Key))
		}
	}
	if id, is := attributes["id"]; is {
		if p.ids[id] {
			p.wrong = append(p.wrong, fmt.Sprintf("the id %q is there twice", id))
		}
		p.ids[id] = true
	}
	switch n.Data {
	case "title":
		if n.Parent.Data == "head" {
			p.title = text(n)
		}
	case "h1":
		p.firsts++
	case "a":
		if inMenu(n) {
			p.menu = append(p.menu, path.Join(path.Dir(name), attributes["href"]))
		}
	case "img":
		if _, is := attributes["alt"]; !is {
			p.wrong = append(p.wrong, fmt.Sprintf("the picture %s has no text for those who do not see it", attributes["src"]))
		}
	case "style", "iframe", "object", "embed", "base":
		p.wrong = append(p.wrong, fmt.Sprintf("has <%s>, which the policy of Blixt's page forbids", n.Data))
	case "script":
		if attributes["src"] == "" {
			p.wrong = append(p.wrong, "has a script of its own, which the policy of Blixt's page forbids")
		}
	}
	for _, key := range []string{"href", "src", "srcset"} {
		if link, is := attributes[key]; is {
			p.links = append(p.links, link)
		}
	}
}

func inMenu(n *html.Node) bool {
	for a := range n.Ancestors() {
		if a.Data == "nav" && slices.Contains(a.Attr, html.Attribute{Key: "id", Val: "menu"}) {
			return true
		}
	}
	return false
}

// text returns the text in an element.
func text(n *html.Node) string {
	var out strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			out.WriteString(d.Data)
		}
	}
	return strings.TrimSpace(out.String())
}
