// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/domdebugger"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// stop is where Tab leads to.
type stop struct {
	Name, Where string
	// Seen is false if nothing shows that this has the focus.
	Seen bool
	// Covered is true if something lies over it.
	Covered bool
}

const where = `(() => {
	const e = document.activeElement, style = getComputedStyle(e), r = e.getBoundingClientRect();
	const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && !/, 0\)$/.test(style.outlineColor);
	const top = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
	return {name: watched.name(e).replace(/\s+/g, ' ').slice(0, 60), where: e === document.body ? '' : e.tagName + '#' + e.id + '.' + e.className,
		seen: ring || style.boxShadow !== 'none', covered: !(top && (e.contains(top) || top.contains(e) || e.labels?.[0]?.contains(top)))};
})()`

// tabs presses Tab until the focus leaves the page, and returns where it was.
func (w *tab) tabs(modifiers ...chromedp.Modifier) (all []stop) {
	w.Helper()
	for range 300 {
		w.key("\t", modifiers...)
		s := eval[stop](w, where)
		if s.Where == "" || len(all) > 0 && s == all[0] { // headless, there is nothing around the page
			return all
		}
		all = append(all, s)
	}
	w.Fatalf("Tab does not leave the page after 300 times: %+v", all[:20])
	return nil
}

// Tab reaches all that a mouse can use, in both directions, and each place shows that it is
// there.
func TestKeyboardReachesAll(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	w.click("Pause") // so that the order stays
	w.awaitText("Paused")
	eval[bool](w, `(scrollTo(0, 0), document.body.tabIndex = -1, document.body.focus(), true)`) // from the beginning
	forward := w.tabs()
	for _, s := range forward {
		if !s.Seen {
			t.Errorf("nothing shows that %q (%s) has the focus", s.Name, s.Where)
		}
		if s.Covered {
			t.Errorf("%q (%s) has the focus and is covered", s.Name, s.Where)
		}
	}
	if len(forward) == 0 || !strings.HasPrefix(forward[0].Name, "Skip") {
		t.Fatalf("the first place is %+v, want the link that skips what is above the content", forward)
	}
	back := w.tabs(chromedp.ModifierShift)
	slices.Reverse(back)
	names := func(all []stop) (names []string) {
		for _, s := range all {
			names = append(names, s.Name)
		}
		return names
	}
	if !slices.Equal(names(forward), names(back)) {
		t.Errorf("Tab leads to\n%q\nand back with Shift to\n%q", names(forward), names(back))
	}
	controls := eval[[]string](w, `watched.seen('a[href], button, input, select, summary, textarea').filter(e => e.type !== 'hidden').map(e => watched.name(e).replace(/\s+/g, ' ').slice(0, 60))`)
	for _, c := range controls {
		if !slices.Contains(names(forward), c) {
			t.Errorf("Tab does not lead to %q", c)
		}
	}
	w.checkListeners()
}

// checkListeners fails the test if something listens to a mouse, and takes no focus.
func (w *tab) checkListeners() {
	w.Helper()
	object := call(w, runtime.Evaluate, runtime.EvaluateParams{Expression: `document`}).Result
	listeners := call(w, domdebugger.GetEventListeners, domdebugger.GetEventListenersParams{ObjectID: object.ObjectID, Depth: new(int64(-1)), Pierce: new(true)}).Listeners
	if len(listeners) == 0 {
		w.Fatal("there is no listener at all")
	}
	for _, l := range listeners {
		if !slices.Contains([]string{"click", "dblclick", "mousedown", "mouseup", "pointerdown", "pointerup", "touchstart"}, l.Type) {
			continue
		}
		node, err := chromedp.Call(w.ctx, resolve, resolveParams{BackendNodeID: l.BackendNodeID})
		if err != nil {
			continue // it has gone
		}
		r := call(w, runtime.CallFunctionOn, runtime.CallFunctionOnParams{ObjectID: node.Object.ObjectID, ReturnByValue: new(true), FunctionDeclaration: `function() {
			return this === document || this.matches?.('a[href], button, input, select, summary, textarea, dialog, form') ? '' : this.outerHTML.slice(0, 200) }`})
		if text := strings.Trim(string(r.Result.Value), `"`); text != "" {
			w.Errorf("this listens to %s, and no keyboard reaches it: %s", l.Type, text)
		}
	}
}

// The keys that people know do what a click does.
func TestKeys(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	focus := func(name string) {
		t.Helper()
		eval[bool](w, `watched.control(%s).focus() ?? true`, name)
	}
	focus("shop/web")
	w.key("\r")
	w.awaitText("10.0.0.1:8080")
	w.key(" ")
	await(w, "no picture after Space", `document.querySelector('tr.detail') === null`, func(is bool) bool { return is })
	await(w, "the focus at its button", `watched.name(document.activeElement)`, func(name string) bool { return strings.HasPrefix(name, "shop/web") })

	focus("Pause")
	w.key(" ")
	w.awaitText("Paused")
	if pressed := eval[string](w, `watched.control('Resume').getAttribute('aria-pressed') ?? ''`); pressed != "" && pressed != "false" {
		t.Errorf("the button is called Resume, and is said to be pressed: %q: it sounds as if it had been resumed", pressed)
	}
	w.key("\r")
	w.awaitText("Live")

	focus("Skip to the content")
	w.key("\r")
	await(w, "the focus at the content", `document.activeElement.id`, func(id string) bool { return id == "main" })

	focus("Trace…")
	w.key("\r")
	await(w, "an open dialog", `document.querySelector('dialog').open`, func(is bool) bool { return is })
	inside := 0
	for range 8 { // the focus stays in a dialog, or visits the browser's own controls
		w.key("\t")
		if eval[bool](w, `document.querySelector('dialog').contains(document.activeElement)`) {
			inside++
		} else if outside := eval[string](w, `document.activeElement.tagName`); outside != "BODY" {
			t.Errorf("behind the dialog, %s has the focus", outside)
		}
	}
	if inside < 4 {
		t.Errorf("the focus was in the dialog %d times of 8", inside)
	}
	w.key("\x1b")
	await(w, "the focus back at the button that has opened it", `watched.name(document.activeElement)`, func(name string) bool { return name == "Trace…" })

	focus("Flows")
	w.key("\r")
	await(w, "an order by flows that is told", `document.querySelector('th[aria-sort]')?.innerText.trim() ?? ''`, func(seen string) bool { return strings.HasPrefix(seen, "Flows") })
	focus("Only problems")
	w.key(" ")
	w.awaitText("1 of 2 Gateways")
}

// The commands of package dom that are needed: its names would hide our own.
type resolveParams struct {
	BackendNodeID cdp.BackendNodeID `json:"backendNodeId"`
}

type resolveResult struct {
	Object *runtime.RemoteObject `json:"object"`
}

var resolve = cdp.Command[resolveParams, resolveResult]{Method: "DOM.resolveNode"}
