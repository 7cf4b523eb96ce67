// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"errors"
	"net/http"
	"net/http/httptest"
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
		h := Require(func() (string, error) { return c.token, c.err }, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		r, w := httptest.NewRequest(http.MethodGet, "/metrics", nil), httptest.NewRecorder()
		if c.shown != "" {
			r.Header.Set("Authorization", c.shown)
		}
		if h.ServeHTTP(w, r); w.Code != c.code {
			t.Errorf("%s: code %d, want %d", name, w.Code, c.code)
		}
	}
}
