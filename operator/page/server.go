// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/manual"
)

// Options are what a page shows, and to whom.
type Options struct {
	Source Source
	// Hosts are names by which the page is reached, beside localhost and addresses.
	Hosts []string
	// Access says who may see what; nil: whoever reaches the page may see all.
	Access Access
	// Elsewhere says where the page is, if it cannot be here now, in a sentence; "": it is
	// here. nil: it always is.
	Elsewhere func(context.Context) string
	// Every is how often a View is made while somebody looks.
	Every time.Duration
	Log   *slog.Logger
	// Static are the files of the page; nil: those that are built in.
	Static fs.FS
	// Manual is the documentation; nil: that which is built in.
	Manual *manual.Manual
}

//go:embed static
var builtin embed.FS

// Handler serves a page. Its paths are relative, as a proxy may put something before them.
// No request changes what is served by the load balancer.
type Handler struct {
	Options
	limits
	hosts    map[string]bool
	files    map[string]file
	watch    *watch
	streams  streams
	traces   chan struct{} // has an element for each that is being asked for
	sessions sessions
	guesses  guesses
	origins  *http.CrossOriginProtection
	// closing is done when streams are to end.
	closing context.Context
	close   context.CancelFunc
}

// NewHandler returns a page. It returns an error if a name of Options.Hosts is none, or if
// a file has a type that a browser would not know.
func NewHandler(o Options) (*Handler, error) {
	h := &Handler{Options: o, limits: defaultLimits, traces: make(chan struct{}, mostTraces), origins: http.NewCrossOriginProtection()}
	if h.Log == nil {
		h.Log = slog.New(slog.DiscardHandler)
	}
	static := o.Static
	if static == nil {
		static, _ = fs.Sub(builtin, "static") // it is there: go:embed has seen it
	}
	var err error
	if h.files, err = readFiles(static); err != nil {
		return nil, err
	}
	if h.hosts, err = hostNames(o.Hosts); err != nil {
		return nil, err
	}
	if h.Manual == nil {
		if h.Manual, err = manual.BuiltIn(); err != nil {
			return nil, fmt.Errorf("the documentation that is built in: %w", err)
		}
	}
	h.closing, h.close = context.WithCancel(context.Background())
	h.watch = newWatch(o.Source, o.Every, h.Log)
	return h, nil
}

// Close ends all streams, and does not wait for them.
func (h *Handler) Close() { h.close() }

// headers are those of every answer. A script of the page's own files can run, and
// nothing else: none that a name of an object has smuggled in.
var headers = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " +
		"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Permissions-Policy":           "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
	"Cache-Control":                "no-store",
}

// problem is an error with the status of the answer that tells it.
type problem struct {
	code int
	text string
}

func (p *problem) Error() string { return p.text }

func problemf(code int, format string, args ...any) *problem {
	return &problem{code, fmt.Sprintf(format, args...)}
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range headers {
		w.Header().Set(name, value)
	}
	p := h.checkHost(r)
	if p == nil {
		p = h.checkOrigin(r)
	}
	if p == nil && h.Elsewhere != nil && !isManual(r.URL.Path) {
		if where := h.Elsewhere(r.Context()); where != "" {
			p = problemf(http.StatusServiceUnavailable, "%s", where)
		}
	}
	if p == nil {
		p = h.route(w, r)
	}
	if p == nil {
		return
	}
	switch p.code {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "10")
	}
	http.Error(w, p.text, p.code)
}

// route serves a request of which nothing is known but that it is for this page, and not
// by order of another one.
func (h *Handler) route(w http.ResponseWriter, r *http.Request) *problem {
	post, serve := false, h.serveFile
	switch r.URL.Path {
	case "/events":
		serve = h.serveEvents
	case "/api/view":
		serve = h.serveView
	case "/trace":
		serve = h.serveTrace
	case "/login":
		post, serve = true, h.serveLogin
	case "/logout":
		post, serve = true, h.serveLogout
	}
	if isManual(r.URL.Path) {
		serve = h.serveManual
	}
	switch {
	case post && r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		return problemf(http.StatusMethodNotAllowed, "%s takes POST alone", r.URL.Path)
	case !post && r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		return problemf(http.StatusMethodNotAllowed, "the page is read-only: want GET or HEAD")
	}
	return serve(w, r)
}

// checkOrigin refuses what a page of somebody else has a browser ask. To go to this page,
// as by a link, is no matter: the address bar says so.
func (h *Handler) checkOrigin(r *http.Request) *problem {
	if err := h.origins.Check(r); err != nil { // POST
		return problemf(http.StatusForbidden, "another page has asked for this: %v", err)
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none": // "": no browser, or an old one, which sends no cookie of ours either
		return nil
	}
	if r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" && (r.URL.Path == "/" || isManual(r.URL.Path)) {
		return nil
	}
	return problemf(http.StatusForbidden, "another page has asked for this")
}
