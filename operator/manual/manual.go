// SPDX-License-Identifier: Apache-2.0

// Package manual serves the documentation of the version that runs. Releases have it built in,
// by the build tag docs; what is built from source needs no Hugo, and says where to read.
package manual

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"fmt"
	"html"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

// Source is where the documentation is that is not built in.
const Source = "https://github.com/kubernetes-sigs/blixt/tree/main/docs"

// types are those of a site's files: a browser runs no script of a type that it does not expect.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".webp": "image/webp",
}

// Manual is a site, which stays compressed.
type Manual struct{ files map[string]*zip.File }

// BuiltIn returns the documentation of this program; one without files, if it has none. Returns
// the errors of Read.
func BuiltIn() (*Manual, error) { return Read(builtin) }

// Read reads a site from an archive; one without files from no bytes. Returns an error if it is no archive,
// or has a file of which a browser would not know what that is.
func Read(archive []byte) (*Manual, error) {
	m := &Manual{map[string]*zip.File{}}
	if len(archive) == 0 {
		return m, nil
	}
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		return nil, err
	}
	for _, f := range r.File {
		if types[path.Ext(f.Name)] == "" || f.Method != zip.Deflate {
			return nil, fmt.Errorf("file %s has no known type, or is not deflated", f.Name)
		}
		m.files[f.Name] = f
	}
	return m, nil
}

// Serve answers a request for a file, whose name is the part of the path behind that of the
// site; "" is the first page.
func (m *Manual) Serve(w http.ResponseWriter, r *http.Request, name string) {
	if name == "" {
		name = "index.html"
	}
	f, is := m.files[name]
	if !is {
		m.lacks(w, r, name)
		return
	}
	content, encoding, err := read(f, r.Header.Get("Accept-Encoding"))
	if err != nil {
		http.Error(w, fmt.Sprintf("read %s of the documentation: %v", name, err), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	if encoding != "" {
		h.Set("Content-Encoding", encoding)
	}
	h.Set("Vary", "Accept-Encoding")
	h.Set("Cache-Control", "no-cache") // after an upgrade, no page is made of old and new files
	h.Set("Content-Type", types[path.Ext(name)])
	h.Set("ETag", fmt.Sprintf(`"%08x-%x%s"`, f.CRC32, f.UncompressedSize64, encoding))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// pageOf returns the page of a file of the sources, or of their folder, as messages name them:
// migrate/nginx.md, migrate/. "" if there is none.
func (m *Manual) pageOf(name string) string {
	source := strings.ToLower(strings.TrimSuffix(strings.TrimSuffix(name, ".md"), "/"))
	for _, page := range []string{source + ".html", source + "/readme.html", strings.TrimSuffix(source, "/readme") + ".html"} {
		if m.files[page] != nil {
			return page
		}
	}
	return ""
}

// up leads from the folder of a file to the first page's.
func up(name string) string { return strings.Repeat("../", strings.Count(name, "/")) }

// read returns what a file contains, in an encoding that is accepted.
func read(f *zip.File, accepted string) (content []byte, encoding string, err error) {
	if acceptsGzip(accepted) {
		content, err = gzipped(f)
		return content, "gzip", err
	}
	open, err := f.Open()
	if err != nil {
		return nil, "", err
	}
	defer open.Close()
	content, err = io.ReadAll(open)
	return content, "", err
}

// acceptsGzip tells whether a header Accept-Encoding names gzip, and does not refuse it.
func acceptsGzip(header string) bool {
	for coding := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(coding, ";")
		if strings.TrimSpace(name) == "gzip" {
			weight = strings.TrimSpace(weight)
			return weight == "" || strings.Trim(weight, "q=0.") != ""
		}
	}
	return false
}

// gzipped returns a file as RFC 1952 has it: its bytes are in the archive already, and want a
// header and a trailer.
func gzipped(f *zip.File) ([]byte, error) {
	raw, err := f.OpenRaw()
	if err != nil {
		return nil, err
	}
	out := bytes.NewBuffer([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff})
	if _, err := io.Copy(out, raw); err != nil {
		return nil, err
	}
	trailer := binary.LittleEndian.AppendUint32(nil, f.CRC32)
	out.Write(binary.LittleEndian.AppendUint32(trailer, uint32(f.UncompressedSize64)))
	return out.Bytes(), nil
}

// lacks answers a request for a file that there is not.
func (m *Manual) lacks(w http.ResponseWriter, r *http.Request, name string) {
	if page := m.pageOf(name); page != "" {
		w.Header().Set("Location", up(name)+page) // a proxy may have put something before the path
		w.WriteHeader(http.StatusFound)
		return
	}
	title, text, href := "There is no such page", "The documentation of this version has no page of this name. Its first page leads to all.", up(name)+"index.html"
	if len(m.files) == 0 {
		title, text, href = "The documentation is not built in", "This Blixt was built from source. Releases have the documentation of their version here; that of the newest source is in its repository.", Source
	}
	w.Header().Set("Content-Type", types[".html"])
	w.WriteHeader(http.StatusNotFound)
	if r.Method == http.MethodHead {
		return
	}
	fmt.Fprintf(w, `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">`+
		`<title>%s · Blixt</title><h1>%[1]s</h1><p>%s</p><p><a href="%s">%[3]s</a></p></html>`+"\n", title, text, html.EscapeString(href))
}
