// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long anything may take on a busy machine that is immediate on an idle
// one.
const patience = 20 * time.Second

// watch.js runs before any script of a page, and records what a test asks for at the end.
//
//go:embed testdata/watch.js
var watchScript string

// tab is a tab of the browser. When its test ends, it fails that if the page has run what it
// should not, has asked another host, or has complained in the console.
type tab struct {
	*testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // URLs
	console  []string
	// allowed are parts of complaints that a test causes on purpose.
	allowed []string
	// ours is where else requests may go to.
	ours string
}

// newTab opens a tab without cookies, of the size of a desktop's window.
func newTab(t *testing.T, options ...chromedp.ContextOption) *tab {
	t.Helper()
	if options == nil {
		options = []chromedp.ContextOption{chromedp.WithNewBrowserContext()}
	}
	ctx, cancel := chromedp.NewContext(browser, options...)
	w := &tab{T: t, ctx: ctx}
	t.Cleanup(func() {
		w.checkQuiet()
		if t.Failed() {
			w.keep(filepath.Join(artefacts, "failed", t.Name()+".webp"))
		}
		cancel()
	})
	w.check(chromedp.Listen(ctx, w.hear))
	call(w, network.Enable, network.EnableParams{})
	call(w, log.Enable, cdp.Empty{})
	call(w, runtime.Enable, cdp.Empty{})
	call(w, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watchScript})
	w.size(1280, 900)
	return w
}

// keep writes what is seen into a file, if there is anything.
func (w *tab) keep(path string) {
	got, err := chromedp.Call(w.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{Format: page.CaptureScreenshotFormatWebp})
	if err == nil && os.MkdirAll(filepath.Dir(path), 0o755) == nil && os.WriteFile(path, got.Data, 0o644) == nil {
		w.Logf("what was seen is in %s", path)
	}
}

// hear records an event of the browser.
func (w *tab) hear(event any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	complain := func(format string, args ...any) { w.console = append(w.console, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		w.requests = append(w.requests, e.Request.URL)
	case *network.EventWebSocketCreated:
		w.requests = append(w.requests, e.URL)
	case *runtime.EventExceptionThrown:
		text, _ := json.Marshal(e.ExceptionDetails) // for people
		complain("exception: %s", text)
	case *runtime.EventConsoleAPICalled:
		text, _ := json.Marshal(e.Args)
		complain("console.%s: %s", e.Type, text)
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelVerbose { // advice
			return
		}
		complain("%s %s: %s (%s)", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
	}
}

// allow has complaints with this part be none.
func (w *tab) allow(part string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.allowed = append(w.allowed, part)
}

// asked returns the URLs that were asked for.
func (w *tab) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.requests)
}

// checkQuiet fails the test for what no page may do.
func (w *tab) checkQuiet() {
	w.Helper()
	for _, v := range eval[[]string](w, `watched.violations`) {
		if !w.isAllowed(v) {
			w.Errorf("the page violates its Content-Security-Policy: %s", v)
		}
	}
	if ran := eval[[]string](w, `watched.ran`); len(ran) > 0 {
		w.Errorf("a name has been run as a script: %q", ran)
	}
	w.mu.Lock()
	console, requests := slices.Clone(w.console), slices.Clone(w.requests)
	w.mu.Unlock()
	for _, c := range console {
		if !w.isAllowed(c) {
			w.Errorf("the page complains in the console: %s", c)
		}
	}
	for _, r := range requests {
		ours := strings.HasPrefix(r, "http://127.0.0.1:") || strings.HasPrefix(r, "https://127.0.0.1:") || strings.HasPrefix(r, "http://"+rebinding+":")
		ours = ours || w.ours != "" && strings.HasPrefix(r, w.ours)
		if !ours && !strings.HasPrefix(r, "data:image/") && r != "about:blank" {
			w.Errorf("the page asks for %s: want requests to its server alone", r)
		}
	}
}

func (w *tab) isAllowed(complaint string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.allowed, func(part string) bool { return strings.Contains(complaint, part) })
}

func (w *tab) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// call calls a command of the browser.
func call[P, R any](w *tab, c cdp.Command[P, R], params P) R {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 2*patience)
	defer cancel()
	r, err := chromedp.Call(ctx, c, params)
	if err != nil {
		w.Fatalf("%s: %v", c.Method, err)
	}
	return r
}

// act does what a user does.
func (w *tab) act(actions ...chromedp.Action[chromedp.Void]) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 2*patience)
	defer cancel()
	w.check(chromedp.Do(ctx, actions...))
}

// open opens a URL.
func (w *tab) open(url string) {
	w.Helper()
	w.act(chromedp.Navigate(url))
}

// size sets the size of what is seen, in CSS pixels.
func (w *tab) size(width, height int64) {
	w.Helper()
	call(w, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1})
}

// media sets a feature of the media, such as prefers-color-scheme.
func (w *tab) media(features ...string) {
	w.Helper()
	var p emulation.SetEmulatedMediaParams
	for _, f := range features {
		name, value, _ := strings.Cut(f, ": ")
		p.Features = append(p.Features, &emulation.MediaFeature{Name: name, Value: value})
	}
	call(w, emulation.SetEmulatedMedia, p)
}

// eval returns the value of an expression, or of the promise that it is. It must not be
// null.
func eval[R any](w *tab, expression string, args ...any) R {
	w.Helper()
	r, err := tryEval[R](w, expression, args...)
	if err != nil {
		w.Fatalf("%s: %v", expression, err)
	}
	return r
}

// tryEval is eval that returns an error. Arguments are put in by %s, as JSON.
func tryEval[R any](w *tab, expression string, args ...any) (R, error) {
	for i, a := range args {
		text, err := json.Marshal(a)
		if err != nil {
			var none R
			return none, err
		}
		args[i] = string(text)
	}
	if len(args) > 0 {
		expression = fmt.Sprintf(expression, args...)
	}
	ctx, cancel := context.WithTimeout(w.ctx, 2*patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[R](expression, chromedp.EvalAwaitPromise))
}

// await waits until an expression has a value that is wanted, and returns that.
func await[R any](w *tab, want string, expression string, is func(R) bool) R {
	w.Helper()
	deadline := time.Now().Add(patience)
	for {
		seen, err := tryEval[R](w, expression)
		if err == nil && is(seen) {
			return seen
		}
		if time.Now().After(deadline) {
			w.Fatalf("after %s: want %s, seen %.2000s (%v)", patience, want, fmt.Sprint(seen), err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// text is what can be read.
const text = `document.body.innerText`

// awaitText waits until all parts can be read on the page.
func (w *tab) awaitText(parts ...string) {
	w.Helper()
	await(w, fmt.Sprintf("the text %q", parts), text, func(seen string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(seen, p) })
	})
}

// key presses a key.
func (w *tab) key(key string, modifiers ...chromedp.Modifier) {
	w.Helper()
	w.act(chromedp.KeyEvent(key, chromedp.KeyModifiers(modifiers...)))
}

// click clicks what has a name.
func (w *tab) click(name string) {
	w.Helper()
	at := eval[[2]float64](w, `watched.at(%s)`, name)
	w.act(chromedp.MouseClickXY(at[0], at[1]))
}

// typeInto replaces the text of a field.
func (w *tab) typeInto(field, text string) {
	w.Helper()
	w.click(field)
	eval[bool](w, `document.activeElement.select() ?? true`)
	w.act(chromedp.KeyEvent(text))
}
