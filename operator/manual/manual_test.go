// SPDX-License-Identifier: Apache-2.0

package manual_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/manual"
)

// archived returns an archive of files, which are compressed or not.
func archived(t *testing.T, method uint16, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, text := range files {
		f, err := w.CreateHeader(&zip.FileHeader{Name: name, Method: method})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

var index = "<!doctype html><title>Blixt</title>" + strings.Repeat("<p>The documentation.", 100)

func site(t *testing.T) *manual.Manual {
	t.Helper()
	m, err := manual.Read(archived(t, zip.Deflate, map[string]string{
		"index.html": index, "quickstart/host.html": "a host", "migrate.html": "from others", "examples/tcp/readme.html": "TCP", "docs.css": "a{}", "docs.js": "1", "icon.svg": "<svg/>", "pictures/a.webp": "RIFF",
	}))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func get(m *manual.Manual, name string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "http://localhost/docs/", nil)
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i] == "Method" {
			r.Method = headers[i+1]
		}
	}
	w := httptest.NewRecorder()
	m.Serve(w, r, name)
	return w
}

func TestFilesHaveTypes(t *testing.T) {
	m := site(t)
	for name, want := range map[string]string{
		"": "text/html; charset=utf-8", "index.html": "text/html; charset=utf-8", "quickstart/host.html": "text/html; charset=utf-8", "docs.css": "text/css; charset=utf-8",
		"docs.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml", "pictures/a.webp": "image/webp",
	} {
		w := get(m, name)
		if w.Code != http.StatusOK || w.Header().Get("Content-Type") != want || w.Header().Get("Cache-Control") != "no-cache" || w.Body.Len() == 0 {
			t.Errorf("%q: %d %v", name, w.Code, w.Header())
		}
		if head := get(m, name, "Method", "HEAD"); head.Code != http.StatusOK || head.Body.Len() != 0 || head.Header().Get("Content-Length") != w.Header().Get("Content-Length") {
			t.Errorf("HEAD %q: %d %v, %d bytes", name, head.Code, head.Header(), head.Body.Len())
		}
		if again := get(m, name, "If-None-Match", w.Header().Get("ETag")); again.Code != http.StatusNotModified || again.Body.Len() != 0 {
			t.Errorf("%q again: %d, %d bytes", name, again.Code, again.Body.Len())
		}
	}
	if w := get(m, "", "Range", "bytes=0-8"); w.Code != http.StatusPartialContent || w.Body.String() != "<!doctype" {
		t.Errorf("a part: %d %q", w.Code, w.Body)
	}
}

// A browser gets what the archive has, and unpacks that itself.
func TestFilesStayCompressed(t *testing.T) {
	m := site(t)
	for _, accepted := range []string{"gzip", "gzip, deflate, br", "br;q=1, gzip;q=0.5", "deflate , gzip; q=1"} {
		w := get(m, "index.html", "Accept-Encoding", accepted)
		if w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Vary") != "Accept-Encoding" || w.Body.Len() > len(index)/2 {
			t.Errorf("%q: %v, %d bytes", accepted, w.Header(), w.Body.Len())
		}
		r, err := gzip.NewReader(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || string(text) != index { // with checksum and length
			t.Errorf("%q: %v, %.50q", accepted, err, text)
		}
		if w.Header().Get("ETag") == get(m, "index.html").Header().Get("ETag") {
			t.Error("two encodings have one ETag: a proxy would mix them up")
		}
	}
	for _, accepted := range []string{"", "identity", "br", "gzip;q=0", "gzip; q=0.000", "x-gzip-like"} {
		if w := get(m, "index.html", "Accept-Encoding", accepted); w.Header().Get("Content-Encoding") != "" || w.Body.String() != index {
			t.Errorf("%q: %v", accepted, w.Header())
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	m := site(t)
	for name, home := range map[string]string{
		"nowhere.html": `href="index.html"`, "a/b/c.html": `href="../../index.html"`, "quickstart/": `href="../index.html"`, "quickstart": "href", "../index.html": "href", "./index.html": "href",
		"/index.html": "href", "INDEX.HTML": "href", "index.html/": "href", "index.html\x00": "href", `..\index.html`: "href", "%2e%2e/x": "href", `"><script>alert(1)</script>`: "href", strings.Repeat("/", 9000): "href",
	} {
		w := get(m, name)
		if w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(w.Body.String(), home) || strings.Contains(w.Body.String(), "<script") {
			t.Errorf("%.40q: %d %v %.400s", name, w.Code, w.Header(), w.Body)
		}
		if head := get(m, name, "Method", "HEAD"); head.Code != http.StatusNotFound || head.Body.Len() != 0 {
			t.Errorf("HEAD %.40q: %d, %d bytes", name, head.Code, head.Body.Len())
		}
	}
}

// Messages name files of the sources, such as docs/migrate/nginx.md.
func TestNamesOfSourcesLeadToPages(t *testing.T) {
	m := site(t)
	for name, want := range map[string]string{
		"quickstart/host.md": "../quickstart/host.html", "quickstart/HOST.md": "../quickstart/host.html", "quickstart/host": "../quickstart/host.html",
		"migrate/README.md": "../migrate.html", "migrate": "migrate.html", "migrate/": "../migrate.html",
		"examples/tcp/README.md": "../../examples/tcp/readme.html", "examples/tcp": "../examples/tcp/readme.html",
	} {
		if w := get(m, name); w.Code != http.StatusFound || w.Header().Get("Location") != want {
			t.Errorf("%q: %d, to %q", name, w.Code, w.Header().Get("Location"))
		}
	}
	for _, name := range []string{"quickstart/", "nowhere.md", "../migrate.md", "/migrate.md", "migrate.md.md", "//evil.example/migrate"} {
		if w := get(m, name); w.Code != http.StatusNotFound {
			t.Errorf("%q: %d, to %q", name, w.Code, w.Header().Get("Location"))
		}
	}
}

// What is built from source has no documentation, and says where that is.
func TestNotBuiltIn(t *testing.T) {
	m, err := manual.Read(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "index.html", "policies.html"} {
		if w := get(m, name); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), `href="`+manual.Source+`"`) {
			t.Errorf("%q: %d %s", name, w.Code, w.Body)
		}
	}
}

func TestArchivesThatAreNone(t *testing.T) {
	whole := archived(t, zip.Deflate, map[string]string{"index.html": index})
	for what, archive := range map[string][]byte{
		"half of one": whole[:len(whole)/2], "text": []byte("no archive"), "a program": archived(t, zip.Deflate, map[string]string{"a.wasm": ""}), "not compressed": archived(t, zip.Store, map[string]string{"a.html": ""}),
	} {
		if _, err := manual.Read(archive); err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	if _, err := manual.BuiltIn(); err != nil {
		t.Errorf("what is built in: %v", err)
	}
}
