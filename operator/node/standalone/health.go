// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// health is whether this host serves, for monitoring. Nothing waits for its lock.
type health struct {
	mu sync.Mutex
	// waiting is why the program does not serve yet, or any more; "": it serves.
	waiting string
	// failure is why the newest state could not be written, or "".
	failure string
	applied time.Time // when a state was last written, or found in the maps
}

// waits records why the program does not serve.
func (h *health) waits(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = why
}

// tried records an attempt to write a state. done reports that the maps hold it.
func (h *health) tried(done bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failure = text(err); err == nil && done {
		h.waiting, h.applied = "", time.Now()
	}
}

// ready returns an error that says why this host does not serve. While a newer state
// cannot be written, the last one is served.
func (h *health) ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.waiting == "":
		return nil
	case h.failure != "":
		return fmt.Errorf("%s: %s", h.waiting, h.failure)
	}
	return errors.New(h.waiting)
}

func (h *health) state() metrics.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return metrics.State{Ready: h.waiting == "", Failing: h.failure != "", Applied: h.applied}
}

// listen serves metrics and health checks from now on, until close is called.
func (r *runner) listen() (closed func(), err error) {
	if r.MetricsAddress == "" {
		return func() {}, nil
	}
	l, err := scrape.Listen(r.MetricsAddress)
	if err != nil {
		return nil, fmt.Errorf("serve metrics at %s: %w", r.MetricsAddress, err)
	}
	mux := scrape.Health(r.health.ready)
	mux.Handle("GET /metrics", scrape.RequireFile(r.MetricsTokenFile, scrape.Handler(r.page())))
	server := scrape.Server(mux)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			slog.Error("metrics are not served any more", "error", err)
		}
	})
	slog.Info("metrics and health checks are served", "address", l.Addr())
	return func() {
		_ = server.Close() // of connections that nobody waits for
		done.Wait()
	}, nil
}

// page returns the metrics.
func (r *runner) page() *scrape.Page {
	page := scrape.NewPage(slog.Default())
	page.AddCollectors("state", metrics.Collector(r.health.state))
	metrics.AddTo(page, r.readMaps)
	if len(r.Peering.Peers) > 0 {
		metrics.AddPeers(page, r.readMaps, metrics.DefaultPeers)
	}
	return page
}

// Page returns the metrics of a host that serves nothing: for a reference of them.
func Page() *scrape.Page {
	return (&runner{Options: Options{Peering: Peering{Peers: []Peer{{}}}}}).page()
}

// readMaps is a metrics.Source of our program's maps.
func (r *runner) readMaps(read func(metrics.DataPlane) error) error {
	p := r.ours.Load()
	if p == nil {
		return nil
	}
	p.reading.RLock()
	defer p.reading.RUnlock()
	if p.closed {
		return nil
	}
	return read(metrics.DataPlane{Tables: p.tables, Writer: p.writer, Announcer: p.announcer})
}
