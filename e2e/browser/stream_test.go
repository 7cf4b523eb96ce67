// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/kubernetes-sigs/blixt/operator/page"
)

// beside opens a tab of the same window, which hides this one.
func (w *tab) beside(t *testing.T) *tab {
	return newTab(t, chromedp.WithExistingBrowserContext(chromedp.FromContext(w.ctx).BrowserContextID), chromedp.WithNewWindow(false))
}

// show has the tab be the one of its window that is seen.
func (w *tab) show() {
	w.Helper()
	call(w, cdppage.BringToFront, cdp.Empty{})
}

// What moves can be stopped, and then nothing is asked of the server either.
func TestPause(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("B/s")
	w.click("Pause")
	w.awaitText("Paused")
	v.awaitStreams(0)
	before, asked := eval[string](w, `document.querySelector('main').innerText`), len(w.asked())
	s.change(func() { s.overview.Name = "changed" })
	eval[bool](w, `new Promise(done => setTimeout(() => done(true), %s))`, (5 * often).Milliseconds())
	if after := eval[string](w, `document.querySelector('main').innerText`); after != before {
		t.Errorf("the page has changed while it was paused, from\n%s\nto\n%s", before, after)
	}
	if now := w.asked(); len(now) != asked || v.open.Load() != 0 {
		t.Errorf("the page has asked for %q while it was paused", now[asked:])
	}
	// What is chosen is shown all the same, and nothing moves after that.
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	v.awaitStreams(0)
	w.click("Resume")
	w.awaitText("changed")
	v.awaitStreams(1)
}

// A tab that nobody sees has no stream: a browser has six connections to a server.
func TestHiddenTabsHaveNoStream(t *testing.T) {
	v := serve(t, shop())
	first := newTab(t)
	first.open(v.URL)
	first.awaitText("shop/web")
	all := []*tab{first}
	for range 7 {
		w := first.beside(t)
		w.open(v.URL)
		w.awaitText("shop/web")
		all = append(all, w)
		v.awaitStreams(1)
	}
	for _, w := range []*tab{all[0], all[5]} {
		w.show()
		w.awaitText("Live")
		v.awaitStreams(1)
	}
}

// A server that goes comes back without a reload.
func TestRestart(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.allow("net::ERR_") // its requests fail
	w.open(v.URL)
	w.awaitText("shop/web")
	v.stop()
	w.awaitText("Not connected", "trying again in", "shop/web") // what was seen last stays
	s.change(func() {
		s.overview.Gateways = slices.Clone(s.overview.Gateways)
		s.overview.Gateways[0].Name = "shop/after"
	})
	v.start()
	w.awaitText("Live", "shop/after")
}

// token is the only one that is right.
const token = "0123456789abcdef0123456789abcdef"

// rights is an Access for which a token has rights.
type rights page.Rights

func (r rights) Check(_ context.Context, got string) (page.Rights, error) {
	if got != token {
		return page.Rights{}, page.ErrUnknownToken
	}
	return page.Rights(r), nil
}

// Whoever has a token logs in once, and no URL has the token.
func TestLogin(t *testing.T) {
	v := serve(t, shop(), func(o *page.Options) {
		o.Access = rights{User: "ada", Status: true, Flows: true, Trace: true}
	})
	w := newTab(t)
	w.allow("401 (Unauthorized)")
	w.open(v.URL)
	w.awaitText("Log in")
	if seen := eval[string](w, text); strings.Contains(seen, "shop") {
		t.Errorf("without a token the page shows %s", seen)
	}
	await(w, "the focus in the field", `document.activeElement.id`, func(id string) bool { return id == "token" })
	w.act(chromedp.KeyEvent("wrong\r"))
	w.awaitText("the token is not right")
	w.typeInto("Token", token)
	w.key("\r")
	w.awaitText("shop/web")
	if eval[string](w, `document.cookie`) != "" {
		t.Error("scripts can read the cookie")
	}
	if eval[string](w, `document.querySelector('#token').value`) != "" {
		t.Error("the token stays in the field")
	}
	w.open(v.URL)
	w.awaitText("shop/web")
	for _, url := range w.asked() {
		if strings.Contains(url, token) {
			t.Errorf("the token is in %s", url)
		}
	}
	other := newTab(t)
	other.allow("401 (Unauthorized)")
	other.open(v.URL)
	other.awaitText("Log in")
}

// Who lacks a right is told which one, and sees the rest.
func TestMissingRights(t *testing.T) {
	s := shop()
	v := serve(t, s, func(o *page.Options) { o.Access = rights{User: "ada", Status: true} })
	w := newTab(t)
	w.allow("401 (Unauthorized)")
	w.allow("403 (Forbidden)")
	w.open(v.URL)
	w.awaitText("Log in")
	w.act(chromedp.KeyEvent(token + "\r"))
	w.awaitText("shop/web")
	if seen := eval[string](w, text); strings.Contains(seen, "203.0.113.7") {
		t.Error("clients are shown to who may not see flows")
	}
	w.click("Trace…")
	w.typeInto("Client", "203.0.113.9:4000")
	w.typeInto("Frontend", "198.51.100.1:80")
	w.key("\r")
	await(w, "a refusal of trace", `document.querySelector('#trace-answer').innerText`, func(seen string) bool { return strings.Contains(seen, "may not") })
	if len(s.traced) > 0 {
		t.Error("nodes were asked to trace")
	}

	none := serve(t, s, func(o *page.Options) { o.Access = rights{User: "bob"} })
	w = newTab(t)
	w.allow("401 (Unauthorized)")
	w.allow("403 (Forbidden)")
	w.open(none.URL)
	w.awaitText("Log in")
	w.act(chromedp.KeyEvent(token + "\r"))
	w.awaitText("bob may not")
}

// What is chosen is in the URL, for others and for Back; and stays while Views come.
func TestChoice(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	link := eval[string](w, `location.href`)
	w.act(chromedp.NavigateBack())
	await(w, "no picture after Back", `document.querySelector('tr.detail') === null`, func(is bool) bool { return is })
	other := newTab(t)
	other.open(link)
	other.awaitText("10.0.0.1:8080")

	// A selection of text, the place and the focus stay.
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	w.click("The same as tables")
	await(w, "a table with 10.0.0.2:8080", `document.querySelector('tr.detail details').innerText`, func(seen string) bool { return strings.Contains(seen, "10.0.0.2:8080") })
	eval[bool](w, `(() => {
		const cell = [...document.querySelectorAll('tr.detail td, tr.detail th')].find(e => e.textContent.trim() === '10.0.0.2:8080');
		getSelection().selectAllChildren(cell);
		scrollTo({top: 300, behavior: 'instant'});
		watched.focus = document.activeElement;
		return true;
	})()`)
	state := `[String(getSelection()).trim(), scrollY, document.activeElement === watched.focus, document.querySelector('tr.detail details').open]`
	before := eval[[]any](w, state)
	rates := `document.querySelector('tr.detail').innerText`
	seen := eval[string](w, rates)
	for range 3 {
		seen = await(w, "another rate", rates, func(now string) bool { return now != seen })
	}
	if after := eval[[]any](w, state); !slices.Equal(before, after) || before[0] == "" {
		t.Errorf("selection, place, focus and what is open were %v, and are %v after some Views", before, after)
	}
}

// A search is for names, addresses and ports, and says how many it finds.
func TestSearch(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.typeInto("Search Gateways by name, address or port", "5432")
	await(w, "one Gateway", text, func(seen string) bool {
		return strings.Contains(seen, "1 of 2 Gateways") && !strings.Contains(seen, "shop/web\nblixt")
	})
	w.typeInto("Search Gateways by name, address or port", "nothing like this")
	w.awaitText("No Gateway matches")
	start := time.Now()
	w.typeInto("Search Gateways by name, address or port", "web")
	await(w, "shop/web alone", text, func(seen string) bool { return strings.Contains(seen, "1 of 2 Gateways") })
	if took := time.Since(start); took > patience/2 {
		t.Errorf("a search takes %s", took)
	}
}
