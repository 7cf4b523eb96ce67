// SPDX-License-Identifier: Apache-2.0

package bytecode

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// testRegistry is a registry with a certificate of a CA of its own.
type testRegistry struct {
	host, ca string
	requests atomic.Int32
}

// ref names an image of it.
func (r *testRegistry) ref(tag string) string { return r.host + "/blixt/bytecode" + tag }

func (r *testRegistry) options() Options {
	return Options{CAFile: r.ca, Pause: time.Millisecond}
}

// startRegistry starts one whose answers others may change.
func startRegistry(t *testing.T, referrers bool, around ...func(http.Handler) http.Handler) *testRegistry {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir()) // no credentials of whoever runs this
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", "")
	var handler = registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers))
	for _, wrap := range around {
		handler = wrap(handler)
	}
	r := &testRegistry{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.requests.Add(1)
		handler.ServeHTTP(w, q)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	r.host = strings.TrimPrefix(server.URL, "https://")
	r.ca = filepath.Join(t.TempDir(), "ca.crt")
	write(t, r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	return r
}

// withPassword wants basic authentication.
func withPassword(user, password string) func(http.Handler) http.Handler {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if q.Header.Get("Authorization") != want {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
				return
			}
			next.ServeHTTP(w, q)
		})
	}
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	_, _ = io.WriteString(w, `{"errors":[{"code":"`+code+`","message":"`+message+`"}]}`)
}

// failing answers so many requests with an error before it works.
func failing(n int32) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		var seen atomic.Int32
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if seen.Add(1) <= n {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next.ServeHTTP(w, q)
		})
	}
}

// damaging flips a byte of every large blob that it serves.
func damaging(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method != http.MethodGet || !strings.Contains(q.URL.Path, "/blobs/") {
			next.ServeHTTP(w, q)
			return
		}
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, q)
		body := bytes.Clone(answer.Body.Bytes())
		if len(body) > 100_000 {
			body[50_000] ^= 1
		}
		for key, values := range answer.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(body)
	})
}

func write(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// listen serves on a free port until the test ends.
func listen(t *testing.T, server *http.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server.ErrorLog = log.New(io.Discard, "", 0)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// Whoever may push to the registry chooses how large what it sends is.
func TestHugeAnswersAreRefused(t *testing.T) {
	_, key := keyPair(t, "ours")
	var huge string // in the path of the requests that get endless answers
	var sent atomic.Int64
	endless := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if huge == "" || !strings.Contains(q.URL.Path, huge) {
				next.ServeHTTP(w, q)
				return
			}
			if strings.HasPrefix(q.URL.Path, "/elsewhere") || !strings.HasPrefix(huge, "/elsewhere") {
				w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
				_, _ = io.WriteString(w, "{")
				for spaces := bytes.Repeat([]byte(" "), 1<<16); sent.Load() < 64<<20; {
					n, err := w.Write(spaces)
					sent.Add(int64(n))
					if err != nil {
						return
					}
				}
			}
		})
	}
	redirect := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			if strings.HasPrefix(huge, "/elsewhere") && strings.Contains(q.URL.Path, "/manifests/") {
				http.Redirect(w, q, huge, http.StatusTemporaryRedirect)
				return
			}
			next.ServeHTTP(w, q)
		})
	}
	r := startRegistry(t, true, endless, redirect)
	if _, err := built(t).Push(t.Context(), r.ref(":v1"), r.options()); err != nil {
		t.Fatal(err)
	}
	for _, huge = range []string{"/manifests/", "/referrers/", "/elsewhere/blobs/"} {
		sent.Store(0)
		o := r.options()
		o.Keys = []*PublicKey{key}
		_, err := Load(t.Context(), r.ref(":v1"), o)
		wantError(t, err, "the answer has more than")
		if n := sent.Load(); n > 16<<20 {
			t.Errorf("%s: %d bytes were taken", huge, n)
		}
	}
}
