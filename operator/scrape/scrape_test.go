// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// However many read metrics at the same time, they are collected once.
func TestResultIsShared(t *testing.T) {
	var collected atomic.Int32
	now := time.Now()
	c := &cached{clock: func() time.Time { return now }, gatherer: prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		collected.Add(1)
		return nil, nil
	})}
	gather := func(want int32) {
		t.Helper()
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { _, _ = c.Gather() })
		}
		all.Wait()
		if n := collected.Load(); n != want {
			t.Errorf("collected %d times, want %d", n, want)
		}
	}
	gather(1)
	now = now.Add(fresh)
	gather(2)
	now = now.Add(-time.Hour) // the clock was wrong
	gather(3)
}

// No more than maxInFlight requests are served at a time: others are told to come
// later.
func TestRequestsInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	first := true
	h := Handler(prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		if first {
			first = false
			close(entered)
			<-leave
		}
		return nil, nil
	}))
	request := func() int {
		r := httptest.NewRecorder()
		h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return r.Code
	}
	codes := make(chan int, 50)
	for range 50 {
		go func() { codes <- request() }()
	}
	<-entered
	for range 50 - maxInFlight {
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Errorf("code %d while others are served", code)
		}
	}
	close(leave)
	for range maxInFlight {
		if code := <-codes; code != http.StatusOK {
			t.Errorf("code %d", code)
		}
	}
}

func TestRequire(t *testing.T) {
	for name, c := range map[string]struct {
		token string
		err   error
		shown string
		code  int
	}{
		"right":           {"secret\n", nil, "Bearer secret", http.StatusOK},
		"wrong":           {"secret", nil, "Bearer secreT", http.StatusUnauthorized},
		"longer":          {"secret", nil, "Bearer secretsecret", http.StatusUnauthorized},
		"none":            {"secret", nil, "", http.StatusUnauthorized},
		"no bearer":       {"secret", nil, "secret", http.StatusUnauthorized},
		"empty":           {"secret", nil, "Bearer ", http.StatusUnauthorized},
		"none yet":        {"", errors.New("no such file"), "Bearer secret", http.StatusServiceUnavailable},
		"none yet, empty": {"", errors.New("no such file"), "Bearer ", http.StatusServiceUnavailable},
		"empty file":      {" \n", nil, "Bearer ", http.StatusServiceUnavailable},
	} {
		h := Require(func() (string, error) { return c.token, c.err }, nil, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		if c.shown != "" {
			r.Header.Set("Authorization", c.shown)
		}
		if h.ServeHTTP(w, r); w.Code != c.code {
			t.Errorf("%s: code %d, want %d", name, w.Code, c.code)
		}
	}
}

// A client that never finishes its request, or that opens connections without end,
// takes nothing from others for long.
func TestSlowClientsDoNotStay(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }))
	if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > timeout || s.ReadTimeout <= 0 || s.ReadTimeout > timeout || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 {
		t.Fatalf("timeouts: %+v", s)
	}
	s.ReadHeaderTimeout, s.ReadTimeout = 50*time.Millisecond, 50*time.Millisecond
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	var all sync.WaitGroup
	for range 2 * maxConnections {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\nX-")); err != nil {
			t.Fatal(err)
		}
		all.Go(func() { _, _ = io.Copy(io.Discard, c) }) // returns when the server closes it
	}
	r, err := http.Get("http://" + l.Addr().String() + "/metrics")
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("beside slow clients: %v, %v", r, err)
	}
	r.Body.Close()
	all.Wait()
}

// Whoever has connections open has at most so many, and keeps no others from their turn
// when they end.
func TestConnectionsAreLimited(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 2*maxConnections)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for range maxConnections + 1 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var open []net.Conn
	for range maxConnections {
		open = append(open, <-accepted)
	}
	select {
	case <-accepted:
		t.Errorf("more than %d connections", maxConnections)
	default:
	}
	for _, c := range open {
		c.Close()
	}
	(<-accepted).Close()
}

func TestHealth(t *testing.T) {
	var why error
	h := Health(func() error { return why })
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w.Code, w.Body.String()
	}
	for _, why = range []error{errors.New("no program"), nil} {
		if code, text := get("/healthz"); code != http.StatusOK {
			t.Errorf("healthz: %d %s", code, text)
		}
		code, text := get("/readyz")
		if why == nil && code != http.StatusOK || why != nil && (code != http.StatusServiceUnavailable || text != "no program\n") {
			t.Errorf("readyz while %v: %d %s", why, code, text)
		}
	}
}

func TestRequireFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	ok := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	get := func(path string) int {
		r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		r.Header.Set("Authorization", "Bearer secret")
		RequireFile(path, nil, ok).ServeHTTP(w, r)
		return w.Code
	}
	if code := get(path); code != http.StatusServiceUnavailable {
		t.Errorf("without the file: %d", code)
	}
	for text, want := range map[string]int{"secret\n": http.StatusOK, "other": http.StatusUnauthorized} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code := get(path); code != want {
			t.Errorf("with %q in the file: %d", text, code)
		}
	}
	if code := get(""); code != http.StatusOK {
		t.Errorf("without a token: %d", code)
	}
}
