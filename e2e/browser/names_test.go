// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// hostile are names that a tenant may try, and that the page must show as they are.
var hostile = []string{
	`<img src=x onerror=hacked('img')>`,
	`"><svg/onload=hacked('svg')>`,
	`<script>hacked('script')</script>`,
	`</script><script>hacked('end')</script>`,
	`javascript:hacked('url')`,
	`'-hacked('quote')-'`, `"-hacked("quotes")-"`, "`${hacked('template')}`",
	`{{constructor.constructor("hacked('mustache')")()}}`,
	`<a href="javascript:hacked('link')">click</a>`,
	`<iframe srcdoc="<script>parent.hacked('frame')</script>">`,
	`<math><mtext><table><mglyph><style><img src onerror=hacked('math')>`,
	`</style><style>*{background:url(http://evil.example/css)}`,
	`url(http://evil.example/url)`, `");background:url("http://evil.example/quoted`,
	`<link rel=stylesheet href=http://evil.example/link>`,
	`<base href=http://evil.example/>`, `<meta http-equiv=refresh content=0;url=http://evil.example/>`,
	`<form action=http://evil.example/><input name=token>`,
	`&lt;img src=x onerror=hacked('entity')&gt;`, `<!--`, `]]>`, `%3Cimg%20src=x%20onerror=hacked('percent')%3E`,
	// Names of members and of elements.
	"__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "valueOf", "then", "length",
	"content", "#content", "main", "gateway-1", "health", "view", "\\", "#open=x&q=y",
	// Text that pretends to be an event of the stream, or another line.
	"x\n\nevent: view\ndata: {}\n\n", "a\r\nb", "\u2028\u2029", "\x00nul\x00", "\x1b[31mred\x7f",
	// Text that turns what is around it, hides, or has no end.
	"\u202Egnp.exe", "\u2066\u2067\u2068", "\u05d0\u05d1\u05d2 123", "\u200b\u200d\ufeff", "Z\u0335\u0321\u0327\u0322" + strings.Repeat("\u0335", 200), "👩‍👩‍👧‍👦💥🏳️‍🌈", " ", "",
	strings.Repeat("W", 10_000), strings.Repeat("wide ", 2_000), strings.Repeat("👩‍👩‍👧‍👦", 1_000),
}

// hostileSource is one whose every text is hostile.
func hostileSource() *source {
	s := newSource()
	at := 0
	next := func() string { at++; return hostile[at%len(hostile)] }
	s.overview = page.Overview{Kind: next(), Name: next(), Version: next()}
	s.overview.Status.Verdict = finding.Level(next())
	s.nodes = []string{hostile[0], hostile[1]}
	for i, name := range hostile {
		s.overview.Status.Findings = append(s.overview.Status.Findings,
			finding.Finding{Check: next(), Verdict: finding.Failed, Object: name, Seen: next(), Remedy: next()},
			finding.Finding{Check: next(), Verdict: finding.Level(name), Object: next(), Seen: next(), Remedy: next()})
		d := s.add(name, uint16(i), []string{next(), next()}, 3)
		d.Class, d.Addresses, d.Problem, d.Verdict = next(), []string{next(), next()}, next(), finding.Level(next())
		d.Listeners[0] = page.DeclaredListener{Name: next(), Protocol: next(), Port: uint16(i), Routes: []string{next(), next()}, Problem: next()}
		f := &s.frontends[name][0]
		f.Listener, f.Route, f.Frontend = d.Listeners[0].Name, next(), next()
		for j := range f.Backends {
			f.Backends[j].Address, f.Backends[j].State = next(), []string{"serving", "draining", next()}[j%3]
		}
		s.overview.Nodes = append(s.overview.Nodes, page.Node{Name: name, Verdict: finding.Level(next()), Reason: next(), Version: next(), Kernel: next()})
		s.drops["drop_"+name] = uint64(i + 1)
		r := s.flow(i)
		r.Node, r.Protocol, r.Reason, r.EndedBy, r.Gateway, r.Listener, r.Route, r.Service = next(), next(), next(), next(), name, next(), next(), next()
		s.flows = append(s.flows, r)
	}
	s.trace = map[string]any{
		"protocol": next(), "client": next(), "server": next(), "hook": next(), "interface": next(), "verdict": next(), "why": next(), "counter": next(), "way": next(), "ended": next(),
		"address": map[string]any{"exclusive": true}, "frontend": map[string]any{"index": 1, "gateway": next(), "listener": next(), "route": next()},
		"flow": map[string]any{"state": next(), "table": next(), "idle": 3}, "ring": map[string]any{"size": 1021, "slot": 7},
		"backend": map[string]any{"address": next(), "service": next()}, "snat": map[string]any{"address": next(), "port": 1},
		"nextHop": map[string]any{"via": next(), "interface": next()}, "notes": []string{next(), next(), next()},
	}
	return s
}

// unharmed fails the test if a name has become anything but text, or has spread.
func (w *tab) unharmed(where string) {
	w.Helper()
	elements := eval[[]string](w, `[...document.querySelectorAll('script, iframe, base, meta[http-equiv], link, object, embed, form[action], [onerror], [onload], [href^="javascript:"], img')].map(e => e.outerHTML)`)
	for _, e := range elements {
		ours := false
		for _, part := range []string{`src="page.js"`, `href="icon.svg"`, `href="page.css"`, `src="icon.svg"`} {
			ours = ours || strings.Contains(e, part)
		}
		if !ours {
			w.Errorf("%s: there is an element that no file of the page has: %s", where, e)
		}
	}
	if odd := eval[[]string](w, `[...document.querySelectorAll('[id]')].map(e => e.id).filter(id => !/^[a-z][a-z0-9-]*$/.test(id))`); len(odd) > 0 {
		w.Errorf("%s: ids are made of names: %.200q", where, odd)
	}
	if twice := eval[[]string](w, `[...document.querySelectorAll('[id]')].map(e => e.id).filter((id, i, all) => all.indexOf(id) !== i)`); len(twice) > 0 {
		w.Errorf("%s: ids are there twice: %q", where, twice)
	}
	w.fits(where)
}

// fits fails the test if the page must be scrolled sideways, and names what is too wide.
func (w *tab) fits(where string) {
	w.Helper()
	wide := eval[[]string](w, `(() => {
		const width = document.documentElement.clientWidth;
		if (document.documentElement.scrollWidth <= width) return [];
		const all = watched.seen('body *').filter(e => e.getBoundingClientRect().right > width + 1 || e.getBoundingClientRect().left < -1);
		return [document.documentElement.scrollWidth + ' > ' + width].concat(all.slice(0, 5).map(e => e.tagName + '#' + e.id + '.' + e.className + ' ' + e.textContent.slice(0, 40)));
	})()`)
	if len(wide) > 0 {
		w.Errorf("%s: the page must be scrolled sideways: %q", where, wide)
	}
}

// Hostile names are shown, and do nothing: in no part of the page, at no width.
func TestHostileNamesAreText(t *testing.T) {
	s := hostileSource()
	v := serve(t, s)
	w := newTab(t)
	w.allow("400 (Bad Request)")
	w.open(v.URL)
	w.awaitText(hostile[0], "__proto__")
	w.unharmed("a desktop")
	if n := eval[int](w, `document.querySelectorAll('#gateways > tbody').length`); n != 25 {
		t.Errorf("%d Gateways are shown, want a page of 25", n)
	}
	eval[bool](w, `document.querySelectorAll('details').forEach(e => e.open = true) ?? true`)
	w.unharmed("all details open")
	w.size(320, 600)
	w.unharmed("a phone")
	w.size(1280, 900)

	for _, name := range hostile {
		if name == "" || strings.TrimSpace(name) == "" || len(name) > 320 {
			continue
		}
		// A link may be made by anybody, too.
		eval[bool](w, `(location.hash = %s, watched.draws = [], true)`, url.Values{"open": {name}, "q": {name}}.Encode())
		await(w, fmt.Sprintf("a picture of %q", name), `watched.draws.length > 1 && document.querySelectorAll('svg.picture').length === 1`, func(is bool) bool { return is })
		w.unharmed(fmt.Sprintf("%q is open", name))
	}

	w.open(v.URL + "#")
	w.awaitText(hostile[0])
	w.click("Trace…")
	w.typeInto("Client", "203.0.113.9:4000")
	w.typeInto("Frontend", "198.51.100.1:80")
	w.key("\r")
	await(w, "an answer", `document.querySelector('#trace-answer').innerText`, func(seen string) bool { return seen != "" })
	w.unharmed("an answer of trace")
}

// What turns the direction of text turns none but its own.
func TestNamesAreIsolated(t *testing.T) {
	s := newSource()
	s.add("a/\u202Egnp.exe", 80, []string{"a/\u202Eecivres"}, 1)
	s.add("a/\u05d0\u05d1\u05d2", 81, nil, 0)
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("gnp.exe")
	w.click(eval[string](w, `watched.name(watched.seen('#gateways button').find(e => e.textContent.includes('gnp.exe')))`))
	w.awaitText("10.0.0.1:8080")
	// Text that is not isolated, and has a character that turns: where such a character is
	// shown as an escape, that is well, too.
	open := eval[[]string](w, `(() => {
		const all = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walker.nextNode()) {
			const e = walker.currentNode.parentElement;
			if (!/[\u202a-\u202e\u2066-\u2069\u0590-\u05ff]/.test(walker.currentNode.data) || !e.checkVisibility()) continue;
			if (!/isolate|plaintext/.test(getComputedStyle(e).unicodeBidi) && e.closest('svg') === null) all.push(e.outerHTML);
		}
		return all;
	})()`)
	if len(open) > 0 {
		t.Errorf("text turns what is around it: %q", open)
	}
}
