// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/page"
)

// often is how often a View is made: tests do not wait for seconds.
const often = 200 * time.Millisecond

// server serves a page.
type server struct {
	*testing.T
	// URL is that of the page, with a slash at its end.
	URL     string
	options page.Options
	// requests counts those that came, by path; open are the streams.
	mu       sync.Mutex
	requests map[string]int
	open     atomic.Int64

	addr    string
	http    *http.Server
	handler *page.Handler
	done    chan struct{}
}

// serve serves a page of a source, until the test ends.
func serve(t *testing.T, s page.Source, options ...func(*page.Options)) *server {
	t.Helper()
	v := &server{T: t, options: page.Options{Source: s, Every: often}, requests: map[string]int{}, addr: "127.0.0.1:0"}
	for _, o := range options {
		o(&v.options)
	}
	v.start()
	t.Cleanup(v.stop)
	return v
}

// start begins to serve; after stop, at the same address.
func (v *server) start() {
	v.Helper()
	var err error
	if v.handler, err = page.NewHandler(v.options); err != nil {
		v.Fatal(err)
	}
	l, err := net.Listen("tcp", v.addr)
	if err != nil {
		v.Fatal(err)
	}
	v.addr, v.URL = l.Addr().String(), "http://"+l.Addr().String()+"/"
	v.http, v.done = &http.Server{Handler: http.HandlerFunc(v.serve), ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func() {
		defer close(v.done)
		_ = v.http.Serve(l) // until stop
	}()
}

func (v *server) serve(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.requests[r.URL.Path]++
	v.mu.Unlock()
	if r.URL.Path == "/events" {
		v.open.Add(1)
		defer v.open.Add(-1)
	}
	v.handler.ServeHTTP(w, r)
}

// stop ends the server and all connections, as that of a process that is killed.
func (v *server) stop() {
	v.handler.Close()
	_ = v.http.Close()
	<-v.done
}

// count returns how many requests came for a path.
func (v *server) count(path string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.requests[path]
}

// awaitStreams waits until so many streams are open.
func (v *server) awaitStreams(n int64) {
	v.Helper()
	deadline := time.Now().Add(patience)
	for v.open.Load() != n {
		if time.Now().After(deadline) {
			v.Fatalf("after %s: want %d open streams, seen %d", patience, n, v.open.Load())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
