// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The policy holds for scripts of the page itself: what a name smuggled in would need
// throws, or leads nowhere.
func TestPolicyIsEnforced(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.allow("") // all of this complains
	w.open(v.URL)
	w.awaitText("shop/web")
	for _, sink := range []string{
		`document.body.innerHTML = '<b>x</b>'`,
		`document.body.insertAdjacentHTML('beforeend', '<b>x</b>')`,
		`document.write('<b>x</b>')`,
		`new DOMParser().parseFromString('<b>x</b>', 'text/html')`,
		`document.createRange().createContextualFragment('<b>x</b>')`,
		`setTimeout("hacked('timer')")`,
		`Object.assign(document.createElement('script'), {src: 'page.js'})`,
		`Object.assign(document.createElement('script'), {text: "hacked('text')"})`,
		`Object.assign(document.createElement('iframe'), {srcdoc: '<b>x</b>'})`,
		`new Worker('page.js')`,
		`trustedTypes.createPolicy('mine', {createHTML: s => s}).createHTML('<b>x</b>')`,
	} {
		got := eval[string](w, `(() => { try { `+sink+`; return 'nothing was thrown' } catch (e) { return e.name + ': ' + e.message } })()`)
		if !strings.Contains(got, "Trusted") && !strings.Contains(got, "policy") && !strings.Contains(got, "Policy") {
			t.Errorf("%s: want an error of Trusted Types or of the policy, seen %q", sink, got)
		}
	}
	for what, script := range map[string]string{
		"script-src-attr": `document.body.append(Object.assign(document.createElement('b'), {id: 'inline'})), document.getElementById('inline').setAttribute('onclick', "hacked('attribute')"), document.getElementById('inline').click()`,
		"img-src":         `new Image().src = 'http://127.0.0.1:9/leak'`,
		"connect-src":     `fetch('http://127.0.0.1:9/leak').catch(() => 0)`,
		"style-src-attr":  `document.body.setAttribute('style', 'background: url(http://127.0.0.1:9/leak)')`,
		"style-src-elem":  `document.head.append(Object.assign(document.createElement('style'), {textContent: 'body { display: none }'}))`,
		"form-action":     `(f => { f.action = 'http://127.0.0.1:9/leak'; document.body.append(f); f.submit() })(document.createElement('form'))`,
		"frame-src":       `document.body.append(Object.assign(document.createElement('iframe'), {src: 'http://127.0.0.1:9/leak'}))`,
		"base-uri":        `document.head.append(Object.assign(document.createElement('base'), {href: 'http://127.0.0.1:9/'}))`,
	} {
		// Trusted Types may be quicker: then there is an error.
		eval[bool](w, `(() => { try { `+script+` } catch (e) { watched.violations.push('`+what+` ' + e) } return true })()`)
		await(w, "a violation of "+what, `watched.violations`, func(seen []string) bool {
			for _, s := range seen {
				if strings.HasPrefix(s, what) {
					return true
				}
			}
			return false
		})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.requests {
		if strings.Contains(r, "leak") && v.count("/leak") > 0 {
			t.Errorf("the request %s was sent", r)
		}
	}
	w.requests = nil
}

// A web site whose name resolves to this host gets nothing: the browser takes the page for
// a part of that site, and the server does not.
func TestRebinding(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.allow("Failed to load resource: the server responded with a status of 421")
	w.allow("The Cross-Origin-Opener-Policy header has been ignored") // the origin is not one to trust
	w.open(strings.Replace(v.URL, "127.0.0.1", rebinding, 1))
	seen := eval[string](w, text)
	if strings.Contains(seen, "shop/web") || !strings.Contains(seen, rebinding) {
		t.Errorf("want an error that names %s, seen %q", rebinding, seen)
	}
	for _, ask := range []string{"events", "api/view", "trace?client=203.0.113.9:4000&server=198.51.100.1:80&protocol=tcp", "page.js", "index.html", "no/such/path"} {
		if got := eval[string](w, `fetch(%s).then(async r => r.status + ' ' + (await r.text()))`, "/"+ask); !strings.HasPrefix(got, "421 ") || strings.Contains(got, "shop") {
			t.Errorf("/%s: want 421 Misdirected Request, seen %.200q", ask, got)
		}
	}
	if got := eval[int](w, `fetch('/login', {method: 'POST', body: new URLSearchParams({token: 'x'})}).then(r => r.status)`); got != 421 {
		t.Errorf("POST /login: want 421, seen %d", got)
	}
}

// Another page of the browser can neither read, embed nor run this one, nor send anything
// in its name.
func TestOtherSites(t *testing.T) {
	v := serve(t, shop())
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<!doctype html><title>evil</title><h1>a cat</h1><link rel=icon href="data:image/png;base64,">`)
			return
		}
	}))
	defer evil.Close()
	w := newTab(t)
	w.allow("") // the browser tells of all that it refuses
	// A site of another port is of the same site, and of another origin; another name is of
	// neither.
	for _, site := range []string{evil.URL, strings.Replace(evil.URL, "127.0.0.1", rebinding, 1)} {
		w.open(site)
		for what, script := range map[string]string{
			"reads a View":       `fetch(%s + 'api/view').then(r => r.text())`,
			"reads the stream":   `fetch(%s + 'events').then(r => r.text())`,
			"reads without CORS": `fetch(%s + 'api/view', {mode: 'no-cors'}).then(r => r.type === 'opaque' && r.status === 0 ? Promise.reject(new Error('opaque')) : r.text())`,
			"listens":            `new Promise((yes, no) => { const s = new EventSource(%s + 'events'); s.onmessage = s.onopen = () => yes('open'); s.onerror = () => { s.close(); no(new Error('refused')) } })`,
			"runs page.js":       `new Promise((yes, no) => { document.body.append(Object.assign(document.createElement('script'), {src: %s + 'page.js', onload: () => yes('loaded'), onerror: () => no(new Error('refused'))})) })`,
			"shows icon.svg":     `new Promise((yes, no) => { Object.assign(new Image(), {src: %s + 'icon.svg', onload: () => yes('loaded'), onerror: () => no(new Error('refused'))}) })`,
			"logs in":            `fetch(%s + 'login', {method: 'POST', body: new URLSearchParams({token: 'x'})}).then(r => r.status)`,
		} {
			if got, err := tryEval[any](w, script, v.URL); err == nil {
				t.Errorf("%s: %s: want a refusal, got %.200v", site, what, got)
			}
		}
		// It would ask for its style sheet, if it were shown in a frame.
		eval[bool](w, `new Promise(yes => document.body.append(Object.assign(document.createElement('iframe'), {src: %s, onload: () => yes(true), onerror: () => yes(true)})))`, v.URL)
	}
	if v.count("/") == 0 || v.count("/page.css") != 0 {
		t.Errorf("in frames of other sites, / was asked for %d times and page.css %d times: want the page to be refused", v.count("/"), v.count("/page.css"))
	}
	if n := v.open.Load(); n != 0 {
		t.Errorf("%d streams are open for other sites", n)
	}
	if n := v.count("/events"); n == 0 {
		t.Error("no other site has asked for the stream: the test proves nothing")
	}
	w.mu.Lock()
	w.requests = nil
	w.mu.Unlock()
}
