// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const right = "s3cr3ts3cr3ts3cr3t"

func rightToken() Access {
	return token(func() (string, error) { return right, nil })
}

// access is an Access of a test.
type access func(token string) (Rights, error)

func (a access) Check(_ context.Context, token string) (Rights, error) { return a(token) }

// login posts a token.
func login(h http.Handler, token string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "http://localhost:8460/login", strings.NewReader(url.Values{"token": {token}}.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = "127.0.0.1:5000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func cookieOf(t *testing.T, w *httptest.ResponseRecorder) *http.Cookie {
	t.Helper()
	all := w.Result().Cookies()
	if len(all) != 1 {
		t.Fatalf("%d, cookies %v", w.Code, all)
	}
	return all[0]
}

func with(c *http.Cookie) func(*http.Request) { return func(r *http.Request) { r.AddCookie(c) } }

var private = []string{"/events", "/api/view", "/trace?client=192.0.2.1:1&server=192.0.2.2:2"}

func TestNobodySeesAnythingWithoutAToken(t *testing.T) {
	source := &fake{}
	h := newHandler(t, Options{Source: source, Access: rightToken()})
	for _, path := range private {
		for name, change := range map[string]func(*http.Request){
			"nothing": func(*http.Request) {}, "wrong": header("Authorization", "Bearer "+right+"x"), "part": header("Authorization", "Bearer "+right[:17]), "empty": header("Authorization", "Bearer "),
			"basic": header("Authorization", "Basic "+right), "no scheme": header("Authorization", right), "cookie": with(&http.Cookie{Name: "blixt-8460", Value: right}), "large": header("Authorization", "Bearer "+strings.Repeat("x", 7000)),
		} {
			h.guesses = guesses{}
			if w := get(h, path, change); w.Code != http.StatusUnauthorized || w.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s with %s: %d %s", path, name, w.Code, w.Body)
			}
		}
		// A token in a URL would be in logs and histories.
		if w := get(h, path+map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")]+"token="+right); w.Code != http.StatusUnauthorized {
			t.Errorf("token in the URL of %s: %d", path, w.Code)
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
	if w := get(h, "/api/view", header("Authorization", "Bearer "+right)); w.Code != http.StatusOK {
		t.Errorf("the right token: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/", "/index.html"} { // nothing is in it, but the form for the token
		if w := get(h, path); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestLogin(t *testing.T) {
	var log bytes.Buffer
	h := newHandler(t, Options{Access: rightToken(), Log: slog.New(slog.NewTextHandler(&log, nil))})
	for name, w := range map[string]*httptest.ResponseRecorder{
		"wrong": login(h, "wrong"), "empty": login(h, ""), "long": login(h, strings.Repeat("x", 7000)),
		"in the URL": login(h, "", func(r *http.Request) { r.URL.RawQuery = "token=" + right }),
		"JSON":       login(h, right, header("Content-Type", "application/json")),
		"multipart":  login(h, right, header("Content-Type", "multipart/form-data; boundary=x")),
	} {
		if w.Code != http.StatusUnauthorized || len(w.Result().Cookies()) > 0 {
			t.Errorf("%s: %d %s %v", name, w.Code, w.Body, w.Result().Cookies())
		}
	}
	if w := login(h, strings.Repeat("x", 100_000)); w.Code != http.StatusBadRequest {
		t.Errorf("a large form: %d %s", w.Code, w.Body)
	}
	for _, site := range []string{"cross-site", "same-site"} {
		if w := login(h, right, header("Sec-Fetch-Site", site)); w.Code != http.StatusForbidden {
			t.Errorf("login by a page of a %s: %d", site, w.Code)
		}
	}
	if w := login(h, right, header("Origin", "http://evil.example")); w.Code != http.StatusForbidden {
		t.Errorf("login by a page of an old browser: %d", w.Code)
	}
	h.guesses = guesses{}
	w := login(h, " "+right+"\n", header("Sec-Fetch-Site", "same-origin"))
	c := cookieOf(t, w)
	if w.Code != http.StatusNoContent || c.Name != "blixt-8460" || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Domain != "" || c.MaxAge <= 0 || c.MaxAge > 24*3600 {
		t.Errorf("%d, cookie %v", w.Code, c)
	}
	if strings.Contains(c.Value, right) || len(c.Value) < 26 {
		t.Errorf("the cookie is %q", c.Value)
	}
	for _, path := range private[1:] {
		if w := get(h, path, with(c)); w.Code != http.StatusOK {
			t.Errorf("%s with the cookie: %d %s", path, w.Code, w.Body)
		}
	}
	if got := log.String(); strings.Contains(got, right) || strings.Contains(got, c.Value) || !strings.Contains(got, "wrong token") || !strings.Contains(got, "has logged in") {
		t.Errorf("log:\n%s", got)
	}
	// Of the same machine, but another page: its cookie has another name.
	if w := get(h, "/api/view", with(c), func(r *http.Request) { r.Host = "localhost:9000" }); w.Code != http.StatusUnauthorized {
		t.Errorf("cookie of another port: %d", w.Code)
	}
	out := get(h, "/logout", with(c), func(r *http.Request) { r.Method = http.MethodPost })
	if gone := cookieOf(t, out); gone.MaxAge >= 0 || gone.Value != "" || gone.Name != c.Name {
		t.Errorf("cookie after logout: %v", gone)
	}
	if w := get(h, "/api/view", with(c)); w.Code != http.StatusUnauthorized {
		t.Errorf("cookie after logout: %d", w.Code)
	}
}

// Over TLS no other host and no plain HTTP can have set the cookie.
func TestCookieOverTLS(t *testing.T) {
	h := newHandler(t, Options{Access: rightToken(), Hosts: []string{"lb.example"}})
	tls := []func(*http.Request){header("X-Forwarded-Proto", "https"), func(r *http.Request) { r.Host = "lb.example" }}
	c := cookieOf(t, login(h, right, tls...))
	if c.Name != "__Host-blixt" || !c.Secure || c.Path != "/" || c.Domain != "" {
		t.Errorf("cookie %v", c)
	}
	if w := get(h, "/api/view", append(tls, with(c))...); w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	c.Name = "blixt" // as somebody on the way, or of another port, can set it
	if w := get(h, "/api/view", append(tls, with(c))...); w.Code != http.StatusUnauthorized {
		t.Errorf("cookie without prefix: %d", w.Code)
	}
}

// A session that somebody else has chosen, or had before, is none after the login.
func TestSessionFixation(t *testing.T) {
	h := newHandler(t, Options{Access: rightToken()})
	chosen := &http.Cookie{Name: "blixt-8460", Value: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
	first := cookieOf(t, login(h, right, with(chosen)))
	if first.Value == chosen.Value {
		t.Error("the session has the name that somebody has chosen")
	}
	if w := get(h, "/api/view", with(chosen)); w.Code != http.StatusUnauthorized {
		t.Errorf("the chosen session: %d", w.Code)
	}
	second := cookieOf(t, login(h, right, with(first)))
	if w := get(h, "/api/view", with(first)); w.Code != http.StatusUnauthorized || second.Value == first.Value {
		t.Errorf("the session before: %d", w.Code)
	}
}

func TestSessionsEnd(t *testing.T) {
	valid := right
	h := newHandler(t, Options{Access: token(func() (string, error) { return valid, nil })})
	c := cookieOf(t, login(h, right))
	// The token was replaced.
	valid = "another" + right
	if w := get(h, "/api/view", with(c)); w.Code != http.StatusUnauthorized {
		t.Errorf("session of a token that was replaced: %d", w.Code)
	}
	valid = right
	if w := get(h, "/api/view", with(c)); w.Code != http.StatusOK {
		t.Errorf("session: %d", w.Code)
	}
	for key, s := range h.sessions.all {
		s.expires = time.Now()
		h.sessions.all[key] = s
	}
	if w := get(h, "/api/view", with(c)); w.Code != http.StatusUnauthorized {
		t.Errorf("session that has expired: %d", w.Code)
	}
	last := cookieOf(t, login(h, right))
	if n := len(h.sessions.all); n != 1 {
		t.Errorf("%d sessions, want the new one alone", n)
	}
	// The oldest gives way.
	for range mostSessions {
		h.sessions.begin(httptest.NewRequest(http.MethodPost, "http://localhost:8460/", nil), right)
	}
	if n := len(h.sessions.all); n != mostSessions {
		t.Errorf("%d sessions, want %d", n, mostSessions)
	}
	if w := get(h, "/api/view", with(last)); w.Code != http.StatusUnauthorized {
		t.Errorf("the oldest session: %d", w.Code)
	}
}

func TestGuessing(t *testing.T) {
	var checked atomic.Int32
	h := newHandler(t, Options{Access: access(func(token string) (Rights, error) {
		checked.Add(1)
		if token != right {
			return Rights{}, ErrUnknownToken
		}
		return Rights{User: "u", Status: true}, nil
	})})
	kept := cookieOf(t, login(h, right))
	checked.Store(0)
	codes := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 300 { // at once, in each way
		all.Go(func() {
			from := func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("192.0.2.9:%d", 1000+i) }
			w := login(h, fmt.Sprint("guess", i), from, header("X-Forwarded-For", fmt.Sprintf("10.0.0.%d", i)))
			if i%2 == 0 {
				w = get(h, "/api/view", from, header("Authorization", fmt.Sprint("Bearer guess", i)))
			}
			mu.Lock()
			defer mu.Unlock()
			codes[w.Code]++
		})
	}
	all.Wait()
	if n := checked.Load(); n > mostGuesses+1 {
		t.Errorf("%d tokens were checked, want at most %d", n, mostGuesses)
	}
	if codes[http.StatusOK] > 0 || codes[http.StatusUnauthorized]+codes[http.StatusTooManyRequests] != 300 {
		t.Errorf("codes %v", codes)
	}
	// The right one does not tell itself apart.
	w := login(h, right, func(r *http.Request) { r.RemoteAddr = "192.0.2.9:1" })
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("the right token after guesses: %d", w.Code)
	}
	// Nobody else waits, nor who has a session already.
	for _, address := range []string{"192.0.2.10:1", "[2001:db8::1]:1", "127.0.0.1:1"} {
		if w := login(h, right, func(r *http.Request) { r.RemoteAddr = address }); w.Code != http.StatusNoContent {
			t.Errorf("login from %s: %d", address, w.Code)
		}
	}
	if w := get(h, "/api/view", with(kept), func(r *http.Request) { r.RemoteAddr = "192.0.2.9:1" }); w.Code != http.StatusOK {
		t.Errorf("a session of the same address: %d", w.Code)
	}
	// A customer has as many addresses of IPv6 as he likes.
	checked.Store(0)
	for i := range 100 {
		login(h, "guess", func(r *http.Request) { r.RemoteAddr = fmt.Sprintf("[2001:db8:1:1::%x]:1", i) })
	}
	if n := checked.Load(); n > mostGuesses+1 {
		t.Errorf("%d tokens of a network were checked", n)
	}
}

func TestGuessesComeBackAndAreBounded(t *testing.T) {
	var g guesses
	now := noon
	a := clientOf(&http.Request{RemoteAddr: "192.0.2.1:1"})
	for range mostGuesses {
		if !g.take(a, now) {
			t.Fatal("refused too early")
		}
	}
	if g.take(a, now) || g.take(a, now.Add(-time.Hour)) || !g.take(a, now.Add(guessAgain)) || g.take(a, now.Add(guessAgain)) {
		t.Error("want one more after a while, and none when the clock was set back")
	}
	for range 20 { // right tokens cost nothing, and give nothing
		if !g.take(a, now.Add(time.Hour)) {
			t.Fatal("a right token has cost a guess")
		}
		g.giveBack(a)
	}
	for i := range 3 * mostGuessers {
		g.take(clientOf(&http.Request{RemoteAddr: fmt.Sprintf("10.0.%d.%d:1", i/256, i%256)}), now)
	}
	if len(g.of) > mostGuessers {
		t.Errorf("%d clients are remembered", len(g.of))
	}
}

func TestRightsAreKept(t *testing.T) {
	source := &fake{}
	rights := map[string]Rights{
		"all-------------": {User: "all", Status: true, Flows: true, Trace: true}, "status----------": {User: "status", Status: true}, "none------------": {User: "none", Flows: true, Trace: true},
	}
	h := newHandler(t, Options{Source: source, Access: access(func(token string) (Rights, error) {
		if token == "broken" {
			return Rights{}, errors.New("dial tcp 10.0.0.1:443: no route to host")
		}
		r, is := rights[token]
		if !is {
			return r, fmt.Errorf("token: %w", ErrUnknownToken)
		}
		return r, nil
	})})
	as := func(token, path string) *httptest.ResponseRecorder {
		return get(h, path, header("Authorization", "Bearer "+token))
	}
	view := func(token string) (v View) {
		w := as(token, "/api/view")
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
			t.Errorf("%s: %d %s", token, w.Code, w.Body)
		}
		return v
	}
	if v := view("status----------"); len(v.Flows) > 0 || !strings.Contains(v.FlowsNote, "may not see flows") || source.flows.Load() != 0 {
		t.Errorf("flows of somebody who may not see them: %v, %q; asked %d times", v.Flows, v.FlowsNote, source.flows.Load())
	}
	if v := view("all-------------"); len(v.Flows) != 1 {
		t.Errorf("flows: %v, %q", v.Flows, v.FlowsNote)
	}
	if v := view("status----------"); len(v.Flows) > 0 { // the other View is not shared
		t.Errorf("flows of somebody who may not see them: %v", v.Flows)
	}
	if w := as("status----------", private[2]); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "status may not trace") || source.traces.Load() != 0 {
		t.Errorf("trace: %d %s", w.Code, w.Body)
	}
	if w := as("all-------------", private[2]); w.Code != http.StatusOK {
		t.Errorf("trace: %d %s", w.Code, w.Body)
	}
	for _, path := range private {
		if w := as("none------------", path); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "none may not see this page") {
			t.Errorf("%s without rights: %d %s", path, w.Code, w.Body)
		}
		// What is wrong inside is for the log.
		if w := as("broken", path); w.Code != http.StatusServiceUnavailable || strings.Contains(w.Body.String(), "10.0.0.1") || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s while tokens cannot be checked: %d %s", path, w.Code, w.Body)
		}
	}
	if w := login(h, "none------------"); w.Code != http.StatusForbidden || len(w.Result().Cookies()) > 0 {
		t.Errorf("login without rights: %d", w.Code)
	}
}

func TestTokenThatCanBeGuessedIsRefused(t *testing.T) {
	for text, ok := range map[string]bool{"": false, " \n": false, "password": false, "  123456789012345 ": false, "1234567890123456\n": true} {
		if _, err := Token(func() (string, error) { return text, nil }); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
	text, failed := right, error(nil)
	a, err := Token(func() (string, error) { return text + "\n", failed })
	if err != nil {
		t.Fatal(err)
	}
	check := func(token string) error { _, err := a.Check(t.Context(), token); return err }
	if err := check(right); err != nil {
		t.Error(err)
	}
	// What the file becomes later opens nothing, either.
	for text = range map[string]bool{"": true, "x": true} {
		if err := check(text); err == nil || errors.Is(err, ErrUnknownToken) {
			t.Errorf("file with %q: %v", text, err)
		}
	}
	text, failed = right, errors.New("no such file")
	if err := check(right); err == nil {
		t.Error("the token of a file that is gone")
	}
}
