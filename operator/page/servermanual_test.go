// SPDX-License-Identifier: Apache-2.0

package page

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/manual"
)

// aManual returns a documentation of one page.
func aManual(t *testing.T) *manual.Manual {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	f, err := w.Create("index.html")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, "the documentation"); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m, err := manual.Read(out.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Whoever reaches the page may read the documentation: without a token, by a link from
// elsewhere, and from a replica that does not have the page.
func TestManual(t *testing.T) {
	source := &fake{}
	h := newHandler(t, Options{
		Source: source, Manual: aManual(t), Access: rightToken(), Elsewhere: func(context.Context) string { return "the page is at another replica" },
	})
	for _, change := range [][]func(*http.Request){
		{},
		{header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Mode", "navigate"), header("Sec-Fetch-Dest", "document")},
	} {
		w := get(h, "/docs/", change...)
		if w.Code != http.StatusOK || w.Body.String() != "the documentation" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for name, value := range headers {
			if got := w.Header().Get(name); got != value && name != "Cache-Control" {
				t.Errorf("%s is %q", name, got)
			}
		}
	}
	if w := get(h, "/docs"); w.Code != http.StatusFound || w.Header().Get("Location") != "docs/" {
		t.Errorf("/docs: %d %v: want a relative path, as a proxy may have put a prefix before it", w.Code, w.Header())
	}
	for path, change := range map[string]func(*http.Request){
		"another site reads it": header("Sec-Fetch-Site", "cross-site"),
		"another site frames it": func(r *http.Request) {
			header("Sec-Fetch-Site", "cross-site")(r)
			header("Sec-Fetch-Dest", "iframe")(r)
		},
		"it is asked for by a PUT": func(r *http.Request) { r.Method = http.MethodPut },
		"of another host":          func(r *http.Request) { r.Host = "evil.example" },
	} {
		if w := get(h, "/docs/", change); w.Code < 400 || strings.Contains(w.Body.String(), "the documentation") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	// No way leads from the documentation to what wants a right.
	for _, path := range []string{"/docs/../api/view", "/docs/..//events", "/docs//", "/docs/%2e%2e/api/view", "/docs/api/view", "/docs/index.html/../../api/view"} {
		if w := get(h, path); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if w := get(h, "/api/view"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("/api/view: %d", w.Code)
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
}

// The page leads to the documentation, relatively.
func TestPageLeadsToManual(t *testing.T) {
	if text := get(newHandler(t, Options{}), "/").Body.String(); !strings.Contains(text, `<a href="docs/">`) {
		t.Error("no link to docs/")
	}
}
