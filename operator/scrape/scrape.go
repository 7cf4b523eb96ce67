// SPDX-License-Identifier: Apache-2.0

// Package scrape serves metrics and health checks: who may read them, how much that may
// cost, and what happens if a part fails. The endpoints of all processes have it in common.
package scrape

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"golang.org/x/net/netutil"
)

// Limits of an endpoint.
const (
	// fresh is how long a result is used again, as where two Prometheus servers
	// scrape at the same time.
	fresh       = time.Second
	maxInFlight = 2
	timeout     = 10 * time.Second
	// maxConnections are those at a time: whoever opens more takes no file descriptor
	// from the process, which needs them for files and maps.
	maxConnections = 64
)

// Handler serves metrics. Whoever reads them costs one collection a second at most.
func Handler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(&cached{gatherer: g, clock: time.Now}, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxInFlight, Timeout: timeout,
	})
}

// cached keeps what was gathered for a moment.
type cached struct {
	gatherer prometheus.Gatherer
	clock    func() time.Time

	mu       sync.Mutex
	at       time.Time
	families []*dto.MetricFamily
	err      error
}

// Gather implements prometheus.Gatherer.
func (c *cached) Gather() ([]*dto.MetricFamily, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if age := c.clock().Sub(c.at); age < 0 || age >= fresh {
		c.families, c.err = c.gatherer.Gather()
		c.at = c.clock()
	}
	return c.families, c.err
}

// Health serves /healthz, which tells that the process answers, and /readyz, which
// tells why it is not ready.
func Health(ready func() error) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Listen listens for the connections of a Server.
func Listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return netutil.LimitListener(l, maxConnections), nil
}

// Server returns an HTTP server for metrics or health checks. Slow clients do not
// stay.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 2 * timeout, IdleTimeout: time.Minute,
		MaxHeaderBytes: 8 << 10,
	}
}

// RequireFile is Require for the token of a file, which is read again for each request;
// "": everybody gets what he asks for.
func RequireFile(path string, reviews *Reviews, next http.Handler) http.Handler {
	if path == "" {
		return next
	}
	return Require(func() (string, error) {
		text, err := os.ReadFile(path)
		return string(text), err
	}, reviews, next)
}

// Require passes requests on that have the bearer token, or one that is reviewed. What
// token returns may change; while it returns an error, nobody has it. Without reviews,
// nil, there is no other token.
func Require(token func() (string, error), reviews *Reviews, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		want, err := token()
		if want = strings.TrimSpace(want); err == nil && want == "" {
			err = fmt.Errorf("the token is empty")
		}
		got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		// Hashes, so that the time tells nothing of the token's length either.
		a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
		if ok && err == nil && subtle.ConstantTimeCompare(a[:], b[:]) == 1 {
			next.ServeHTTP(w, r)
			return
		}
		verdict := Verdict{http.StatusUnauthorized, "metrics need the right bearer token: that of Secret blixt-metrics in a cluster, and of --metrics-token-file elsewhere"}
		if err != nil {
			verdict = Verdict{http.StatusServiceUnavailable, "metrics need a bearer token, and there is none yet"}
		}
		if ok && reviews != nil {
			reviewed, err := reviews.Check(r.Context(), got)
			switch {
			case errors.Is(err, ErrNoReviews):
			case err != nil:
				verdict = Verdict{http.StatusServiceUnavailable, "the token cannot be reviewed: " + err.Error()}
			case reviewed.Code == http.StatusOK:
				next.ServeHTTP(w, r)
				return
			default:
				verdict = reviewed
			}
		}
		if verdict.Code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, verdict.Why, verdict.Code)
	})
}
