// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// fake is a Source whose Gateway a/web gets 20 flows between two looks.
type fake struct {
	overviews, statuses, flows, traces atomic.Int64
	// overview and ask, if they are set, are called before it answers.
	overview func(context.Context) error
	ask      func(context.Context, observe.Query) error
}

func (f *fake) Overview(ctx context.Context) (*Overview, error) {
	f.overviews.Add(1)
	if f.overview != nil {
		if err := f.overview(ctx); err != nil {
			return nil, err
		}
	}
	return &Overview{
		Kind: "host", Name: "default", Version: "v1", Status: Status{Verdict: finding.OK},
		Gateways: []Declared{{Name: "a/web", Verdict: finding.OK}, {Name: "b/other", Verdict: finding.OK}},
	}, nil
}

func (f *fake) Ask(ctx context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	var answer any
	switch {
	case q.Status != nil:
		answer = web(10 * uint64(f.statuses.Add(1)))
	case q.Flows != nil:
		f.flows.Add(1)
		answer = observe.FlowsPiece{Record: &observe.Record{Event: observe.EventEnd, Time: noon}}
	case q.Trace != nil:
		f.traces.Add(1)
		answer = map[string]any{"traced": q.Trace.Client}
	}
	if f.ask != nil {
		if err := f.ask(ctx, q); err != nil {
			return err
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return got("", text)
}

// asked returns how often it was asked anything.
func (f *fake) asked() int64 {
	return f.overviews.Load() + f.statuses.Load() + f.flows.Load() + f.traces.Load()
}

const testEvery = 60 * time.Millisecond

func newHandler(t testing.TB, o Options) *Handler {
	t.Helper()
	if o.Source == nil {
		o.Source = &fake{}
	}
	if o.Every == 0 {
		o.Every = testEvery
	}
	h, err := NewHandler(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// header returns a change of a request.
func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

// get returns the answer to a request of this machine, as changed by functions.
func get(h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://localhost:8460/", nil)
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	r.RemoteAddr = "127.0.0.1:5000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// serve serves a page until the test ends, and returns its address.
func serve(t testing.TB, e Endpoint, o Options, change ...func(*Server)) string {
	t.Helper()
	if o.Source == nil {
		o.Source = &fake{}
	}
	if o.Every == 0 {
		o.Every = testEvery
	}
	if e.Address == "" {
		e.Address = "127.0.0.1:0"
	}
	s, err := Listen(e, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(time.Minute):
			t.Error("the server does not end")
		}
	})
	return s.l.Addr().String()
}

// say sends a text to a server as it is, and returns the answer. The server is to end the
// connection.
func say(t testing.TB, address, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil && len(answer) == 0 { // a server that does not read all resets the connection
		t.Fatal(err)
	}
	return string(answer)
}

// leaksNothing fails the test if there are more goroutines after it than before.
func leaksNothing(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		eventually(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	})
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Errorf("not within a minute: %s", what)
}

// events reads a stream, and returns a function that returns the next event.
func events(t testing.TB, from io.Reader) func() event {
	t.Helper()
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 4<<20)
	return func() (e event) {
		t.Helper()
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case name == "event":
				e.name = value
			case name == "data":
				e.data = []byte(value)
			case name == "" && e.name != "":
				return e
			}
		}
		return event{name: "end"}
	}
}

func TestViewIsServedOnce(t *testing.T) {
	h := newHandler(t, Options{})
	start := time.Now()
	w := get(h, "/api/view?q=web")
	var v View
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK || len(v.Gateways) != 1 || v.Gateways[0].Name != "a/web" || len(v.Flows) != 1 || v.Every != testEvery.Seconds() {
		t.Errorf("%d %s %v", w.Code, w.Body, err)
	}
	if again := get(h, "/api/view?q=web"); again.Body.String() != w.Body.String() && time.Since(start) < testEvery/3 {
		t.Errorf("at once another View: %s", again.Body)
	}
	time.Sleep(testEvery)
	// The next one, soon after, has rates.
	for range 2 {
		v = View{}
		if err := json.Unmarshal(get(h, "/api/view?q=web").Body.Bytes(), &v); err != nil || v.Totals.NewFlows == nil || *v.Totals.NewFlows <= 0 {
			t.Errorf("%+v, %v: want rates", v.Totals, err)
		}
	}
}

// Every answer has the headers that keep browsers from mistakes, errors, too.
func TestEveryAnswerIsProtected(t *testing.T) {
	h := newHandler(t, Options{Access: rightToken()})
	post := func(r *http.Request) { r.Method = http.MethodPost }
	for name, w := range map[string]*httptest.ResponseRecorder{
		"200":        get(h, "/"),
		"401":        get(h, "/events"),
		"404":        get(h, "/../../etc/passwd"),
		"405":        get(h, "/", post),
		"403":        get(h, "/login", post, header("Sec-Fetch-Site", "cross-site")),
		"421":        get(h, "/", func(r *http.Request) { r.Host = "evil.example" }),
		"304":        get(h, "/", header("If-None-Match", get(h, "/").Header().Get("ETag"))),
		"204":        get(h, "/logout", post),
		"416":        get(h, "/", header("Range", "bytes=9999999-")),
		"200 events": get(newHandler(t, Options{}), "/events", func(r *http.Request) { r.Method = http.MethodHead }),
		"200 view":   get(newHandler(t, Options{}), "/api/view"),
	} {
		if !strings.HasPrefix(w.Result().Status, name[:3]) {
			t.Errorf("%s: got %d", name, w.Code)
		}
		for header := range headers {
			if header == "Cache-Control" {
				continue
			}
			if got := w.Header().Get(header); got != headers[header] {
				t.Errorf("%s: %s is %q", name, header, got)
			}
		}
		if cache := w.Header().Get("Cache-Control"); cache != "no-store" && cache != "no-cache" && w.Code != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%s: Cache-Control is %q", name, cache)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" || w.Header().Get("Server") != "" {
			t.Errorf("%s: %v", name, w.Header())
		}
	}
	policy := headers["Content-Security-Policy"]
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "base-uri 'none'", "frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("no %s in the policy", part)
		}
	}
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") {
		t.Errorf("policy: %s", policy)
	}
}

func TestMethodsAreRefused(t *testing.T) {
	source := &fake{}
	h := newHandler(t, Options{Source: source})
	for _, path := range []string{"/", "/events", "/api/view", "/trace?client=192.0.2.1:1&server=192.0.2.2:2", "/page.js", "/docs", "/docs/", "/nowhere"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND"} {
			if w := get(h, path, func(r *http.Request) { r.Method = method }); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, %v", method, path, w.Code, w.Header())
			}
		}
	}
	for _, method := range []string{"GET", "HEAD", "PUT"} {
		if w := get(h, "/login?token=0123456789abcdef0123", func(r *http.Request) { r.Method = method }); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("%s /login: %d", method, w.Code)
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
}

func TestStaticFiles(t *testing.T) {
	h := newHandler(t, Options{Static: fstest.MapFS{
		"index.html": {Data: []byte("<!doctype html>")}, "page.js": {Data: []byte("1")}, "page.css": {Data: []byte("a{}")}, "icon.svg": {Data: []byte("<svg/>")},
	}})
	for path, want := range map[string]string{
		"/": "text/html; charset=utf-8", "/index.html": "text/html; charset=utf-8", "/page.js": "text/javascript; charset=utf-8", "/page.css": "text/css; charset=utf-8", "/icon.svg": "image/svg+xml",
	} {
		w := get(h, path)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want || w.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		if again := get(h, path, header("If-None-Match", w.Header().Get("ETag"))); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
			t.Errorf("%s again: %d, %d bytes", path, again.Code, again.Body.Len())
		}
	}
	for _, path := range []string{"/page", "//", "/../page.js", "/./page.js", "/static/page.js", "/page.js/", "/%00", "/" + strings.Repeat("x", 8000)} {
		if w := get(h, path); w.Code != http.StatusNotFound || w.Body.Len() > 300 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	// After an upgrade a browser gets the new files.
	newer := newHandler(t, Options{Static: fstest.MapFS{"page.js": {Data: []byte("2")}}})
	if w := get(newer, "/page.js", header("If-None-Match", get(h, "/page.js").Header().Get("ETag"))); w.Code != http.StatusOK || w.Body.String() != "2" {
		t.Errorf("after an upgrade: %d %s", w.Code, w.Body)
	}
	// A type that is not known would be guessed by browsers.
	if _, err := NewHandler(Options{Static: fstest.MapFS{"page.wasm": {}}}); err == nil {
		t.Error("a file of an unknown type is no error")
	}
	if _, err := NewHandler(Options{}); err != nil {
		t.Errorf("the files that are built in: %v", err)
	}
}

// A page of somebody else has a browser of this machine ask: in vain.
func TestOtherPagesAreRefused(t *testing.T) {
	source := &fake{}
	h := newHandler(t, Options{Source: source})
	fetch := func(site, mode, dest string) []func(*http.Request) {
		return []func(*http.Request){header("Sec-Fetch-Site", site), header("Sec-Fetch-Mode", mode), header("Sec-Fetch-Dest", dest), header("Origin", "http://evil.example")}
	}
	for _, path := range []string{"/events", "/api/view", "/trace?client=192.0.2.1:1&server=192.0.2.2:2", "/page.js", "/"} {
		for _, site := range []string{"cross-site", "same-site", "Same-Origin", "x"} {
			for _, how := range [][]func(*http.Request){fetch(site, "no-cors", "empty"), fetch(site, "cors", "empty"), fetch(site, "no-cors", "script"), fetch(site, "navigate", "iframe"), fetch(site, "navigate", "object")} {
				if w := get(h, path, how...); w.Code != http.StatusForbidden {
					t.Errorf("%s %s: %d", site, path, w.Code)
				}
			}
			// A link leads to the page, and to nothing else.
			want := http.StatusForbidden
			if path == "/" {
				want = http.StatusOK
			}
			if w := get(h, path, fetch(site, "navigate", "document")...); w.Code != want {
				t.Errorf("link of %s to %s: %d", site, path, w.Code)
			}
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
	for _, site := range []string{"same-origin", "none"} {
		if w := get(h, "/api/view", fetch(site, "cors", "empty")...); w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", site, w.Code, w.Body)
		}
	}
}
