// SPDX-License-Identifier: Apache-2.0

package page

import (
	"net/http"
	"strings"
)

// isManual tells whether a path is that of the documentation. It tells nothing of what the load
// balancer does, so that nobody needs a right, and each replica has it.
func isManual(path string) bool { return path == "/docs" || strings.HasPrefix(path, "/docs/") }

// serveManual serves a file of the documentation.
func (h *Handler) serveManual(w http.ResponseWriter, r *http.Request) *problem {
	name, is := strings.CutPrefix(r.URL.Path, "/docs/")
	if !is { // the slash is missing; a proxy may have put something before the path
		w.Header().Set("Location", "docs/")
		w.WriteHeader(http.StatusFound)
		return nil
	}
	h.Manual.Serve(w, r, name)
	return nil
}
