// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// types are those of static files. What the machine knows of types is not asked: a browser
// runs no script of a type that it does not expect.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".txt": "text/plain; charset=utf-8",
}

// file is a static file.
type file struct {
	kind, tag string
	text      []byte
}

// readFiles reads all files, by the paths at which they are served.
func readFiles(from fs.FS) (map[string]file, error) {
	all := map[string]file{}
	err := fs.WalkDir(from, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		kind, known := types[path.Ext(name)]
		if !known {
			return fmt.Errorf("file %s of the page has no known type", name)
		}
		text, err := fs.ReadFile(from, name)
		all["/"+name] = file{kind, fmt.Sprintf(`"%x"`, sha256.Sum256(text)), text}
		return err
	})
	if index, is := all["/index.html"]; is {
		all["/"] = index
	}
	return all, err
}

// serveFile serves a static file. It tells nothing of what the load balancer does, so that
// nobody needs a right. A browser asks each time whether its copy is the newest: after an
// upgrade no page is made of old and new files.
func (h *Handler) serveFile(w http.ResponseWriter, r *http.Request) *problem {
	f, is := h.files[r.URL.Path]
	if !is {
		return problemf(http.StatusNotFound, "there is no %q here: a proxy is to remove the prefix that it has for this page", phrase.Clip(r.URL.Path, 100))
	}
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.text))
	return nil
}
