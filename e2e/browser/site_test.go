// SPDX-License-Identifier: Apache-2.0

//go:build site

package browser_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/kubernetes-sigs/blixt/operator/manual"
	"github.com/kubernetes-sigs/blixt/operator/page"
	"github.com/kubernetes-sigs/blixt/operator/release/site"
)

// made is where make docs puts the site.
const made = "../../bin/docs"

// serveSite serves the site as a release does, behind the policy of the page.
func serveSite(t *testing.T) *server {
	t.Helper()
	return serve(t, newSource(), func(o *page.Options) { o.Manual = manualOf(t, made) })
}

// manualOf returns a site as the page serves it.
func manualOf(t *testing.T, dir string) *manual.Manual {
	t.Helper()
	archive, err := site.Zip(os.DirFS(dir), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := manual.Read(archive)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Who makes the site gets the same bytes, however his machine is set up, while somebody else
// makes one, and after a run that was killed.
func TestSameSiteWhoeverMakesIt(t *testing.T) {
	hugo, dir := os.Getenv("HUGO"), t.TempDir()
	if hugo == "" {
		t.Fatal("HUGO does not say where Hugo is: make test-docs does")
	}
	release := filepath.Join(dir, "release")
	if out, err := command("go", "build", "-o", release, "./operator/cmd/release").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	zip := func(dir string) []byte {
		t.Helper()
		archive, err := site.Zip(os.DirFS(dir), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		return archive
	}
	out := filepath.Join(dir, "a", "docs")
	hostile := func() *exec.Cmd {
		c := command("sh", "-c", `umask 077 && exec "$0" docs -hugo="$1" -out="$2"`, release, hugo, out)
		c.Env = append(os.Environ(), "HOME=/nonexistent", "TZ=Asia/Kathmandu", "LC_ALL=tr_TR.UTF-8", "SOURCE_DATE_EPOCH=1", "HUGO_TITLE=other", "HUGO_PARAMS_VERSION=v9.9.9", "HUGO_ENVIRONMENT=other", "XDG_CACHE_HOME=/nonexistent")
		return c
	}
	// It is killed in the middle, and leaves a directory for its work.
	killed := hostile()
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "a", ".docs.partial")
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if entries, err := os.ReadDir(work); err == nil && len(entries) > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not begin")
		}
	}
	// A second one meanwhile is refused.
	if said, err := hostile().CombinedOutput(); err == nil || !strings.Contains(string(said), "somebody else is making "+out) {
		t.Errorf("a second run: %v\n%s", err, said)
	}
	_ = killed.Process.Kill()
	_ = killed.Wait()
	if _, err := os.Stat(out); err == nil {
		t.Error("a run that was killed has left a site")
	}
	for { // Hugo goes on for a moment, and keeps others out
		said, err := hostile().CombinedOutput()
		if err == nil {
			break
		}
		if !strings.Contains(string(said), "somebody else is making "+out) {
			t.Fatalf("%v\n%s", err, said)
		}
		time.Sleep(50 * time.Millisecond)
	}
	want := command(release, "docs", "-hugo="+hugo, "-out="+filepath.Join(dir, "b"))
	if said, err := want.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	if !bytes.Equal(zip(out), zip(filepath.Join(dir, "b"))) {
		t.Error("another umask, home, time zone or language, or variables of Hugo's, change the site")
	}
	if entries, err := os.ReadDir(filepath.Dir(out)); err != nil || len(entries) != 1 {
		t.Errorf("beside the site there is something: %v, %v", entries, err)
	}
}

// command returns a command in the root of the repository.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = filepath.Join("..", "..")
	return c
}

// sitePages returns the paths of all pages.
func sitePages(t *testing.T) (all []string) {
	t.Helper()
	err := filepath.WalkDir(made, func(path string, _ os.DirEntry, err error) error {
		if name, is := strings.CutPrefix(path, made+"/"); is && strings.HasSuffix(name, ".html") {
			all = append(all, name)
		}
		return err
	})
	if err != nil || len(all) < 30 {
		t.Fatalf("%d pages in %s: run make docs first: %v", len(all), made, err)
	}
	return all
}

// phone has the tab be a telephone's.
func (w *tab) phone() {
	w.Helper()
	call(w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 390, Height: 844, DeviceScaleFactor: 2, Mobile: true})
}

// Each page is shown in full, on a desktop and on a telephone, by day and by night: nothing
// fails or complains, nothing is scrolled sideways but tables and code within themselves, and
// all can be read.
func TestSitePages(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	for _, name := range sitePages(t) {
		w.size(1280, 800)
		w.open(v.URL + "docs/" + name)
		if title := eval[string](w, `document.querySelector('h1').textContent`); title == "" || v.count("/docs/"+name) != 1 {
			t.Errorf("%s has no title, or was not asked for", name)
		}
		for _, device := range []string{"a desktop", "a telephone"} {
			if device == "a telephone" {
				w.phone()
			}
			w.fits(name + ", " + device)
			for _, scheme := range []string{"light", "dark"} {
				w.media("prefers-color-scheme: " + scheme)
				w.readable(name + ", " + device + ", " + scheme)
			}
		}
	}
}

// readable fails the test for text whose contrast is too low, by what style sheets say. That
// nothing lies over something else, TestSiteContrast sees in pictures.
func (w *tab) readable(where string) {
	w.Helper()
	pairs := eval[[]struct {
		Text             string
		Colour, Behind   [4]float64
		Opacity          float64
		Large, Invisible bool
	}](w, `(() => {
		const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
		const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data] };
		const known = new Map(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walker.nextNode()) {
			const e = walker.currentNode.parentElement;
			if (!walker.currentNode.data.trim() || !e.checkVisibility({visibilityProperty: true}) || e.closest('.sr, .skip')) continue;
			const style = getComputedStyle(e), size = parseFloat(style.fontSize);
			let behind = 'Canvas';
			for (let a = e; a; a = a.parentElement) {
				const b = getComputedStyle(a).backgroundColor;
				if (b !== 'rgba(0, 0, 0, 0)') { behind = b; break }
			}
			const large = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
			known.set([style.color, behind, large].join(), {text: e.tagName + '.' + e.className + ' ' + walker.currentNode.data.trim().slice(0, 40), colour: style.color, behind, large, opacity: 1});
		}
		return [...known.values()].map((k) => ({...k, colour: rgba(k.colour), behind: rgba(k.behind)}));
	})()`)
	if len(pairs) < 4 {
		w.Fatalf("%s: only %d colours of text: %+v", where, len(pairs), pairs)
	}
	for _, p := range pairs {
		want := 4.5
		if p.Large {
			want = 3
		}
		if p.Behind[3] != 255 {
			w.Errorf("%s: what is behind %q is not opaque: %v", where, p.Text, p.Behind)
		}
		s := seenText{Colour: p.Colour, Opacity: 1}
		behind := [3]float64(p.Behind[:3])
		if got := contrast(s.over(behind), behind); got < want {
			w.Errorf("%s: %q has a contrast of %.2f, want %.1f", where, p.Text, got, want)
		}
	}
}

// Where text, code, a table and results of a search meet, a picture tells whether all can be read.
func TestSiteContrast(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	call(w, emulation.SetScrollbarsHidden, emulation.SetScrollbarsHiddenParams{Hidden: true}) // a picture of more than the window has none
	for _, scheme := range []string{"light", "dark"} {
		w.media("prefers-color-scheme: " + scheme)
		w.size(1280, 800)
		w.open(v.URL + "docs/check.html")
		w.checkContrast(scheme, "main")
		w.ask("health of backends")
		w.checkContrast(scheme+", results", "#results")
	}
}

// ask types a question into the search, and returns where its results lead to.
func (w *tab) ask(question string) []string {
	w.Helper()
	eval[bool](w, `(document.activeElement.blur(), scrollTo(0, 0), true)`)
	// In one event, as of a keyboard: with two, a slash would be written by the second.
	call(w, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: "/", Code: "Slash", Text: "/"})
	call(w, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: "/", Code: "Slash"})
	call(w, input.InsertText, input.InsertTextParams{Text: question})
	await(w, "the question "+question, `document.querySelector('.search input').value`, func(seen string) bool { return seen == question })
	return eval[[]string](w, `[...document.querySelectorAll('#results a')].map(a => a.href)`)
}

// What a new reader wants to know is among the first three results.
func TestSiteAnswers(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	w.open(v.URL + "docs/")
	for question, pages := range map[string][]string{
		"how do I keep the client's address?":        {"client-address.html"},
		"why is my Gateway not Programmed?":          {"troubleshooting.html"},
		"what happens when a node dies?":             {"faq.html", "concepts.html", "addresses.html", "limits.html"},
		"how do I upgrade?":                          {"upgrade.html"},
		"what does drop_no_route mean?":              {"reasons.html"},
		"how do I move from nginx?":                  {"migrate/nginx.html", "commands.html"},
		"which kernels?":                             {"compatibility.html"},
		"does it do TLS?":                            {"faq.html", "limits.html", "concepts.html"},
		"why is my backend not getting connections?": {"troubleshooting.html", "faq.html"},
		"how do I drain?":                            {"policies.html", "operations.html", "faq.html", "upgrade.html"},
		"PortUnavailable":                            {"troubleshooting.html"},
		"--http-address":                             {"commands.html", "page.html"},
		"blixt_packets_total":                        {"metrics.html", "observability.html"},
		"BlixtPolicy spec.limits":                    {"reference/api.html", "policies.html"},
		"can I use it with Cilium?":                  {"compatibility.html", "faq.html", "comparison.html"},
	} {
		found := w.ask(question)
		answered := false
		for _, url := range found[:min(3, len(found))] {
			for _, page := range pages {
				name, _, _ := strings.Cut(strings.TrimPrefix(url, v.URL+"docs/"), "#")
				answered = answered || name == page
			}
		}
		if !answered {
			t.Errorf("%q: want one of %q among the first three, got %q", question, pages, found)
		}
	}
	// keepalived is another word than keep, unless it is being typed.
	if found := w.ask("how do I keep the client's address?"); !strings.Contains(found[0], "/client-address.html") {
		t.Errorf("a word that only begins with one of the question comes first: %q", found)
	}
	if found := w.ask("keepal"); !strings.Contains(found[0], "keepalived") {
		t.Errorf("the beginning of a word does not find it: %q", found)
	}
	if found := w.ask("zzyzx"); len(found) != 0 {
		t.Errorf("what nothing has is found: %q", found)
	}
	w.awaitText("Nothing has these words")
	for _, odd := range []string{`<img src=x onerror=hacked('img')>`, `\ ( [ * + ? ^ $ {`, "__proto__ constructor", strings.Repeat("W", 5000), "\u202Eabc", "' \" `"} {
		w.ask(odd)
		w.fits("the search for " + fmt.Sprintf("%.40q", odd))
	}
}

// Search needs no mouse.
func TestSiteSearchByKeyboard(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	w.open(v.URL + "docs/examples/standalone/readme.html")
	chosen := func() string {
		return eval[string](w, `document.getElementById(document.querySelector('.search input').getAttribute('aria-activedescendant'))?.href ?? 'none'`)
	}
	found := w.ask("client address")
	if len(found) < 3 {
		t.Fatalf("found %q", found)
	}
	if got := chosen(); got != found[0] {
		t.Errorf("%q is chosen at first, want %q", got, found[0])
	}
	last := found[len(found)-1]
	for i, step := range []struct{ key, want string }{
		{kb.ArrowDown, found[1]}, {kb.ArrowDown, found[2]}, {kb.ArrowUp, found[1]}, {kb.ArrowUp, found[0]}, {kb.ArrowUp, last}, {kb.ArrowDown, found[0]},
	} {
		w.key(step.key)
		if got := chosen(); got != step.want {
			t.Errorf("after %d arrows, %q is chosen, want %q", i+1, got, step.want)
		}
	}
	w.key("\x1b")
	if eval[bool](w, `document.querySelector('#results').checkVisibility()`) {
		t.Error("Escape leaves the results open")
	}
	w.key(kb.ArrowDown) // opens them again
	w.key(kb.ArrowDown)
	w.key("\r")
	await(w, "the second result", `document.readyState === 'complete' && location.href`, func(at any) bool { return at == found[1] })

	// A slash that is typed is one.
	w.ask("a/b")
	if got := eval[string](w, `document.querySelector('.search input').value`); got != "a/b" {
		t.Errorf("typed a/b, got %q", got)
	}
	w.key("\x1b")
	eval[bool](w, `(document.activeElement.blur(), scrollTo(0, 0), document.body.tabIndex = -1, document.body.focus(), true)`)
	forward := w.tabs()
	for _, s := range forward {
		if !s.Seen {
			t.Errorf("nothing shows that %q (%s) has the focus", s.Name, s.Where)
		}
	}
	if len(forward) == 0 || !strings.HasPrefix(forward[0].Name, "Skip") {
		t.Fatalf("the first place is %+v, want the link that skips what is above the text", forward)
	}
}

// On a telephone the menu is behind a button, which needs no script.
func TestSiteMenuOfATelephone(t *testing.T) {
	v := serveSite(t)
	for _, scripts := range []bool{true, false} {
		w := newTab(t)
		call(w, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !scripts})
		w.phone()
		w.open(v.URL + "docs/policies.html")
		w.shows("#menu", false)
		w.shows(".search", scripts)
		w.clickOn(".menu-button")
		w.shows("#menu", true)
		w.key("\x1b")
		w.shows("#menu", false)
		w.clickOn(".menu-button")
		w.clickOn(`#menu [open] a[href$="limits.html"]`)
		await(w, "another page", `location.pathname`, func(at string) bool { return at == "/docs/limits.html" })
	}
}

// shows fails the test unless an element can be seen, or not.
func (w *tab) shows(selector string, want bool) {
	w.Helper()
	await(w, fmt.Sprintf("%s is seen: %v", selector, want), fmt.Sprintf(`document.querySelector(%q).checkVisibility({visibilityProperty: true})`, selector), func(is bool) bool { return is == want })
}

// clickOn clicks the middle of an element.
func (w *tab) clickOn(selector string) {
	w.Helper()
	at := eval[[2]float64](w, `(() => { const e = document.querySelector(%s); e.scrollIntoView({block: 'center', behavior: 'instant'}); const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()`, selector)
	w.act(chromedp.MouseClickXY(at[0], at[1]))
}

// From a disk, without any server, links lead on and search finds.
func TestSiteFromFiles(t *testing.T) {
	w := newTab(t)
	dir, err := filepath.Abs(made)
	w.check(err)
	w.ours = "file://" + dir + "/"
	w.open("file://" + dir + "/examples/standalone/readme.html")
	found := w.ask("policies limits")
	if len(found) == 0 || !strings.HasPrefix(found[0], "file://"+dir+"/") {
		t.Fatalf("found %q", found)
	}
	w.key("\r")
	await(w, "the first result", `location.href`, func(at string) bool { return at == found[0] })
}

// What is copied is what is typed: of a console without its prompts and answers.
func TestSiteCopies(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	copied := 0
	for _, name := range sitePages(t) {
		w.open(v.URL + "docs/" + name)
		if !eval[bool](w, `document.querySelector('.code[data-type=console] .copy') !== null`) {
			continue
		}
		copied++
		shown := eval[string](w, `document.querySelector('.code[data-type=console] code').textContent`)
		eval[bool](w, `(navigator.clipboard.writeText = async (text) => { watched.copied = text }, true)`) // nobody may read the real one
		w.clickOn(".code[data-type=console] .copy")
		got := await(w, "a copy", `watched.copied`, func(s string) bool { return s != "" })
		for line := range strings.Lines(got) {
			if !strings.Contains(shown, "$ "+strings.TrimSpace(line)) && !strings.Contains(shown, "# "+strings.TrimSpace(line)) && !strings.Contains(shown, "> "+strings.TrimSpace(line)) {
				t.Errorf("%s: %q was copied, of %q", name, line, shown)
			}
		}
		if copied == 3 {
			return
		}
	}
	if copied == 0 {
		t.Error("no page has a console")
	}
}

// Paper shows the text alone, and all of it.
func TestSiteOnPaper(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	for _, name := range []string{"policies.html", "reference/api.html", "commands.html"} {
		w.open(v.URL + "docs/" + name)
		call(w, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print", Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
		w.size(680, 900) // A4 with margins
		for _, no := range []string{"header", "#menu", ".copy"} {
			w.shows(no, false)
		}
		w.fits(name + " on paper")
		if cut := eval[[]string](w, `[...document.querySelectorAll('pre, .table')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.textContent.trim().slice(0, 60))`); len(cut) > 0 {
			t.Errorf("%s: paper does not scroll: %q", name, cut)
		}
		if ground := eval[string](w, `getComputedStyle(document.body).backgroundColor`); ground != "rgb(255, 255, 255)" {
			t.Errorf("%s is printed on %s", name, ground)
		}
		w.size(1280, 900)
	}
}

// The page leads to the documentation, and that to what a reader wants.
func TestPageLeadsToSite(t *testing.T) {
	v := serveSite(t)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("Documentation")
	w.click("Documentation")
	await(w, "the documentation", `document.readyState === 'complete' && location.pathname`, func(at any) bool { return at == "/docs/" })
	w.click("Use")
	w.clickOn(`#menu [open] a[href$="policies.html"]`)
	await(w, "a page", `location.pathname`, func(at string) bool { return at == "/docs/policies.html" })
	w.open(v.URL + "docs/nowhere/at-all.html")
	w.allow("404")
	w.click(eval[string](w, `document.querySelector('a').textContent`))
	await(w, "the first page", `location.pathname`, func(at string) bool { return at == "/docs/index.html" })
}
