// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/node/metrics"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// Handler serves an agent's /healthz and /readyz.
func (a *Agent) Handler() http.Handler { return scrape.Health(a.Ready) }

// Metrics serves an agent's /metrics to those who have the token of a file, or one of
// whose owner the operator says that they may; "": to everybody.
func (a *Agent) Metrics(tokenFile string) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape.RequireFile(tokenFile, scrape.NewReviews(a.reviews.review, v1alpha1.MetricsAudience, 1), scrape.Handler(a.Page())))
	return mux
}

// Page returns the agent's metrics.
func (a *Agent) Page() *scrape.Page {
	page := scrape.NewPage(a.o.Log)
	page.AddCollectors("certificate", scrape.CAFile(a.o.CAFile))
	page.AddCollectors("health", a.judged.probes.Collector())
	page.AddCollectors("agent", metrics.Collector(a.state),
		a.gauge("blixt_operator_connected", "1 while connected to the operator.", func() float64 { return metrics.Bool(a.connected) }),
		a.gauge("blixt_heartbeat_age_seconds", "Seconds since a packet was last seen.", func() float64 { return a.heartbeat.age(time.Now()).Seconds() }),
		a.gauge("blixt_heartbeat_lost", "1 while a direction has seen no packet for too long.", func() float64 { return metrics.Bool(a.heartbeat.lost(time.Now())) }))
	source := func(read func(metrics.DataPlane) error) error {
		return read(metrics.DataPlane{Tables: a.o.Tables, Writer: a.writer, Announcer: a.announcer})
	}
	metrics.AddTo(page, source)
	metrics.AddRoutes(page, source, a.o.RouteMetrics)
	metrics.AddPeers(page, source, a.o.PeerMetrics)
	metrics.AddRecords(page, a.flows)
	return page
}

func (a *Agent) state() metrics.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return metrics.State{Ready: !a.applied.IsZero(), Failing: a.failure != "", Applied: a.applied}
}

// gauge returns a gauge that is computed when it is read.
func (a *Agent) gauge(name, help string, value func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		a.mu.Lock()
		defer a.mu.Unlock()
		return value()
	})
}
