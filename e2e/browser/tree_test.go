// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
)

// node is one of the accessibility tree: what a screen reader reads.
type node struct {
	role, name, description string
	properties              map[string]string
}

// tree returns what a screen reader reads, in its order.
func (w *tab) tree() (all []node) {
	w.Helper()
	nodes := call(w, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{}).Nodes
	byID := map[accessibility.NodeID]*accessibility.Node{}
	for _, n := range nodes {
		byID[n.NodeID] = n
	}
	value := func(v *accessibility.Value) (text string) {
		if v != nil && json.Unmarshal(v.Value, &text) != nil {
			text = string(v.Value)
		}
		return text
	}
	var walk func(n *accessibility.Node)
	walk = func(n *accessibility.Node) {
		if !n.Ignored {
			one := node{role: value(n.Role), name: strings.TrimSpace(value(n.Name)), description: value(n.Description), properties: map[string]string{}}
			for _, p := range n.Properties {
				one.properties[string(p.Name)] = value(p.Value)
			}
			all = append(all, one)
		}
		for _, id := range n.ChildIDs {
			if child := byID[id]; child != nil {
				walk(child)
			}
		}
	}
	if len(nodes) > 0 {
		walk(nodes[0])
	}
	return all
}

// need are the roles that must have a name.
var need = []string{
	"button", "link", "textbox", "searchbox", "combobox", "checkbox", "radio", "DisclosureTriangle", "disclosureTriangle", "dialog",
	"table", "image", "img", "region", "navigation", "heading", "columnheader", "rowheader",
}

// All that a screen reader stops at has a name, headings form an outline, and tables are
// tables.
func TestScreenReader(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	eval[bool](w, `document.querySelectorAll('details').forEach(e => e.open = true) ?? true`)
	w.awaitText("B/s")
	if lang := eval[string](w, `document.documentElement.lang`); lang != "en" {
		t.Errorf("the language is %q: a screen reader reads it as that of its user", lang)
	}
	w.checkTree("the page")
	tree := w.tree()
	roles := map[string][]node{}
	for _, n := range tree {
		roles[n.role] = append(roles[n.role], n)
	}
	for _, want := range []string{"main", "banner", "status", "search", "table", "columnheader", "rowheader", "image"} {
		if len(roles[want]) == 0 && !(want == "image" && len(roles["img"]) > 0) {
			t.Errorf("there is no %s", want)
		}
	}
	if n := len(roles["main"]); n != 1 {
		t.Errorf("there are %d of main, want one", n)
	}
	expanded := slices.ContainsFunc(roles["button"], func(n node) bool { return strings.HasPrefix(n.name, "shop/web") && n.properties["expanded"] == "true" })
	if !expanded {
		t.Errorf("no button shop/web is expanded: %+v", roles["button"])
	}
	level := 0
	for _, n := range roles["heading"] {
		now := int(n.properties["level"][0] - '0')
		if now > level+1 {
			t.Errorf("the heading %q has level %d after one of level %d", n.name, now, level)
		}
		level = now
	}

	w.click("Trace…")
	await(w, "an open dialog", `document.querySelector('dialog').open`, func(is bool) bool { return is })
	w.checkTree("the dialog")
	for _, n := range w.tree() {
		if n.role == "dialog" && n.properties["modal"] != "true" {
			t.Errorf("the dialog is not modal: %+v", n)
		}
		if n.role == "textbox" && n.properties["required"] != "true" && n.name != "Token" {
			t.Errorf("%q is not said to be required", n.name)
		}
	}
}

// checkTree fails the test for what has no name, or one of two for the same thing.
func (w *tab) checkTree(where string) {
	w.Helper()
	buttons := map[string]int{}
	for _, n := range w.tree() {
		if slices.Contains(need, n.role) && n.name == "" {
			w.Errorf("%s: a %s has no name: %+v", where, n.role, n)
		}
		if n.role == "button" {
			buttons[n.name]++
		}
	}
	for name, n := range buttons {
		if n > 1 {
			w.Errorf("%s: %d buttons are called %q", where, n, name)
		}
	}
}

// What tells a state by colour tells it by a word, too.
func TestStatesAreWords(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.4")
	var read []string
	for _, n := range w.tree() {
		read = append(read, n.name, n.description)
	}
	all := strings.Join(read, "\n")
	for _, word := range []string{"failed", "warning", "well", "draining"} {
		if !strings.Contains(all, word) {
			t.Errorf("a screen reader does not read %q", word)
		}
	}
}
