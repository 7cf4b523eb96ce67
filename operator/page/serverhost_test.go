// SPDX-License-Identifier: Apache-2.0

package page

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func TestHostsOfRequests(t *testing.T) {
	h := newHandler(t, Options{Hosts: []string{"Blixt.Example.com.", "lb"}})
	good := []string{
		"localhost", "localhost:8460", "LOCALHOST:1", "localhost.", "localhost.:80", "web.localhost", "127.0.0.1", "127.0.0.1:8460", "127.9.9.9:1", "[::1]", "[::1]:8460", "[0:0::1]:80",
		"192.0.2.1", "[2001:db8::1]:443", "[fe80::1%eth0]:80", "[::ffff:127.0.0.1]", "blixt.example.com", "BLIXT.example.COM:443", "blixt.example.com.", "lb:1",
	}
	bad := []string{
		"", "evil.example", "evil.example:8460", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io:8460", "evil-localhost", "evil.example.", "localhost..", "..",
		"::1", "::1:8460", "[::1", "[::1]x", "[::1]8460", "[::1].evil.example", "[localhost]", "[127.0.0.1]", "[evil.example]:80", "[]", "[]:80", ":8460", ".", ".localhost.evil.example",
		"localhost:", "localhost:x", "localhost:80:80", "localhost:99999", "localhost:-1", "evil.example:80@localhost", "localhost@evil.example", "evil.example#localhost", "evil.example/localhost",
		"localhost evil.example", "localhost,evil.example", "local host", "localhost\t", "lоcalhost", "xn--lcalhost-d9f", "0x7f.1", "2130706433", "127.1", "127.0.0.01", "0177.0.0.1",
		"blixt.example.com.evil.example", "a.blixt.example.com", "example.com", "lb.evil.example", "localhost\x00", "localhost%00.evil.example", strings.Repeat("a.", 4000) + "localhost.evil",
	}
	// Each path that there is, and some that there are not.
	paths := []string{"/", "/page.js", "/docs", "/docs/", "/docs/x.html", "/events", "/api/view", "/trace", "/login", "/logout", "/nowhere"}
	for _, host := range good {
		if w := get(h, "/", func(r *http.Request) { r.Host = host }); w.Code != http.StatusOK {
			t.Errorf("%q is refused: %d %s", host, w.Code, w.Body)
		}
	}
	for _, host := range bad {
		for _, path := range paths {
			for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS"} {
				w := get(h, path, func(r *http.Request) { r.Host, r.Method = host, method })
				if w.Code != http.StatusMisdirectedRequest || w.Body.Len() > 1000 {
					t.Fatalf("%s %s of %q: %d, %d bytes", method, path, host, w.Code, w.Body.Len())
				}
			}
		}
	}
	if text := get(h, "/", func(r *http.Request) { r.Host = "evil.example" }).Body.String(); !strings.Contains(text, "--http-host") || !strings.Contains(text, `"evil.example"`) {
		t.Errorf("no remedy: %s", text)
	}
	for _, name := range []string{"", "https://a.example", "a.example:80", "*.example.com", "a b", "a/b", "-", "ä.example"} {
		if _, err := NewHandler(Options{Hosts: []string{name}}); err == nil {
			t.Errorf("--http-host %q is no error", name)
		}
	}
}

// What comes over the wire is judged by its Host, however it is written.
func TestRebindingByTheWire(t *testing.T) {
	source := &fake{}
	address := serve(t, Endpoint{}, Options{Source: source})
	answers := func(request, want string) {
		t.Helper()
		if !strings.Contains(request, "Connection:") {
			request += "Connection: close\r\n"
		}
		if got := say(t, address, request+"\r\n"); !strings.HasPrefix(got[5:], "1.1 "+want) && !strings.HasPrefix(got[5:], "1.0 "+want) {
			t.Errorf("%.100q: want %s, got %.200q", request, want, got)
		}
	}
	for request, want := range map[string]string{
		"GET /api/view HTTP/1.1\r\nHost: evil.example\r\n":                                                   "421",
		"GET /events HTTP/1.1\r\nHost: evil.example\r\n":                                                     "421",
		"GET /trace?client=192.0.2.1:1&server=192.0.2.2:2 HTTP/1.1\r\nHost: evil.example\r\n":                "421",
		"GET /api/view HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n":                    "421",
		"GET /api/view HTTP/1.1\r\nHost: evil.example\r\nForwarded: host=localhost\r\nX-Host: localhost\r\n": "421",
		"GET /api/view HTTP/1.1\r\nhOST:\tevil.example\r\n":                                                  "421",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n":                                "400",
		"GET /api/view HTTP/1.1\r\nHost: evil.example\r\nHost: localhost\r\n":                                "400",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\n evil.example\r\n":                                     "400", // a folded line
		"GET /api/view HTTP/1.1\r\nHost : localhost\r\n":                                                     "400",
		"GET /api/view HTTP/1.1\r\n":                                                                         "400",
		"GET /api/view HTTP/1.1\r\nHost:\r\n":                                                                "421",
		"GET /api/view HTTP/1.0\r\n":                                                                         "421",
		"GET /api/view HTTP/1.0\r\nHost: evil.example\r\n":                                                   "421",
		"GET http://evil.example/api/view HTTP/1.1\r\nHost: localhost\r\n":                                   "421",
		"GET http://evil.example:8460/api/view HTTP/1.1\r\nHost: localhost\r\n":                              "421",
		"GET http://localhost@evil.example/api/view HTTP/1.1\r\nHost: localhost\r\n":                         "421",
		"GET //evil.example/api/view HTTP/1.1\r\nHost: localhost\r\n":                                        "404",
		"GET http:///api/view HTTP/1.1\r\nHost: evil.example\r\n":                                            "421",
		"POST /login HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n":                                "421",
		"GET /api/view HTTP/1.1\r\nHost: evil.example\r\nConnection: close, Host\r\n":                        "421",
		"CONNECT localhost:8460 HTTP/1.1\r\nHost: localhost\r\n":                                             "405",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n":                                                                       "421",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n":            "400",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\nConnection: close\r\n":  "501",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\nX: " + strings.Repeat("x", 20<<10) + "\r\n":            "431",
		"GET /" + strings.Repeat("x", 20<<10) + " HTTP/1.1\r\nHost: localhost\r\n":                           "431",
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("A: b\r\n", 3000):                   "431",
	} {
		answers(request, want)
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
	for _, request := range []string{
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n", // chunked wins, and the connection ends
		"GET /api/view HTTP/1.1\r\nHost: localhost\r\n",
		"GET /api/view HTTP/1.0\r\nHost: localhost\r\n",
	} {
		answers(request, "200")
	}
}

// A page at http://evil.example:PORT/ was loaded from somewhere else; then its name led to
// this machine, and it asks for what it takes for its own.
func TestRebindingEndToEnd(t *testing.T) {
	source := &fake{}
	address := serve(t, Endpoint{}, Options{Source: source})
	port := address[strings.LastIndex(address, ":"):]
	for _, path := range []string{"/", "/events", "/api/view", "/trace?client=192.0.2.1:1&server=192.0.2.2:2", "/nowhere"} {
		r, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "evil.example" + port
		for name, value := range map[string]string{"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Referer": fmt.Sprintf("http://evil.example%s/", port)} {
			r.Header.Set(name, value)
		}
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		a.Body.Close()
		if a.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
}
