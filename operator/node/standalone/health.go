// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/node/prober"
	"github.com/kubernetes-sigs/blixt/operator/node/systemd"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// health is whether this host serves, for monitoring and the service manager. Nothing
// waits for its lock.
type health struct {
	manager *systemd.Manager

	mu sync.Mutex
	// waiting is why the program does not serve yet, or any more; "": it serves.
	waiting string
	// failure is why the newest state could not be written, or "".
	failure string
	applied time.Time // when a state was last written, or found in the maps
	// How many files and objects have mistakes, as of the last read.
	files, objects int
	// How many were in the last state.
	frontends, backends int
}

// set changes it, and tells the service manager.
func (h *health) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	h.manager.Status(h.text())
}

// text describes it in one line. The caller holds h.mu.
func (h *health) text() string {
	text := h.waiting
	if text == "" {
		text = fmt.Sprintf("serving: frontends %d, backends %d", h.frontends, h.backends)
	}
	if h.files+h.objects > 0 {
		text += fmt.Sprintf("; files with mistakes %d, objects %d (see the log)", h.files, h.objects)
	}
	if h.failure != "" {
		text += ": " + h.failure
	}
	return text
}

// waits records why the program does not serve.
func (h *health) waits(why string) { h.set(func() { h.waiting = why }) }

// tried records an attempt to write a state. done reports that the maps hold it.
func (h *health) tried(done bool, err error) {
	h.set(func() {
		if h.failure = text(err); err == nil && done {
			h.waiting, h.applied = "", time.Now()
		}
	})
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

// serves returns how many frontends and backends were in the last state.
func (h *health) serves() (frontends, backends int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.frontends, h.backends
}

func (h *health) state() metrics.State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return metrics.State{Ready: h.waiting == "", Failing: h.failure != "", Applied: h.applied}
}

// tellManager tells the service manager how this process does, until it is stopped.
func (r *runner) tellManager() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		r.health.manager.Run(ctx, r.progress, func(err error) { r.log.warning("service manager", err) })
	})
	return func() { cancel(); done.Wait() }
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
	mux.Handle("GET /metrics", scrape.RequireFile(r.MetricsTokenFile, nil, scrape.Handler(r.page())))
	server := scrape.Server(mux)
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			r.log.failure("metrics", fmt.Errorf("metrics are not served any more: %w", err))
		}
	})
	slog.Info("metrics and health checks are served", "address", l.Addr().String())
	return func() {
		_ = server.Close() // of connections that nobody waits for
		done.Wait()
	}, nil
}

// page returns the metrics.
func (r *runner) page() *scrape.Page {
	page := scrape.NewPage(slog.Default())
	page.AddCollectors("state", append(r.passes.Collectors(), metrics.Collector(r.health.state), problems{&r.health})...)
	page.AddCollectors("health", r.judging.collectors()...)
	metrics.AddTo(page, r.readMaps)
	metrics.AddRoutes(page, r.readMaps, r.RouteMetrics)
	metrics.AddRecords(page, r.flows)
	if len(r.Peering.Peers) > 0 {
		metrics.AddPeers(page, r.readMaps, metrics.DefaultPeers)
	}
	return page
}

// Page returns the metrics of a host that serves nothing: for a reference of them.
func Page() *scrape.Page {
	return (&runner{Options: Options{Peering: Peering{Peers: []Peer{{}}}}, passes: scrape.NewPasses(), judging: judging{probes: prober.New()}}).page()
}

// problems collects how much of what was read is invalid.
type problems struct{ *health }

// Describe implements prometheus.Collector.
func (problems) Describe(all chan<- *prometheus.Desc) { all <- scrape.DescProblems }

// Collect implements prometheus.Collector.
func (p problems) Collect(all chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	all <- prometheus.MustNewConstMetric(scrape.DescProblems, prometheus.GaugeValue, float64(p.files), "File", "Invalid")
	all <- prometheus.MustNewConstMetric(scrape.DescProblems, prometheus.GaugeValue, float64(p.objects), "Object", "Mistake")
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

// progress returns when no change of files or of the network is being made: it never does if
// one hangs. Loading waits for others, who may take any time.
func (r *runner) progress() {
	if r.loading.Load() {
		return
	}
	r.reconciling.Lock()
	r.reconciling.Unlock() //nolint:staticcheck // nothing is to be done but to have had it
}
