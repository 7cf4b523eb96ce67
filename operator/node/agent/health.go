// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// Handler serves an agent's /healthz and /readyz.
func (a *Agent) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	return mux
}

// Metrics serves an agent's /metrics to those who have the token of a file, which
// is read again for each; "": to everybody.
func (a *Agent) Metrics(tokenFile string) http.Handler {
	h := scrape.Handler(newGatherer(a))
	if tokenFile != "" {
		h = scrape.Require(func() (string, error) {
			text, err := os.ReadFile(tokenFile)
			return string(text), err
		}, h)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", h)
	return mux
}

// gatherer gathers an agent's metrics. Those of frontends, which may be thousands, do
// not go through a registry, which checks each.
type gatherer struct {
	registry  *prometheus.Registry
	collector *collector
}

func newGatherer(a *Agent) *gatherer {
	g := &gatherer{prometheus.NewRegistry(), &collector{a: a}}
	g.registry.MustRegister(g.collector, collectors.NewGoCollector())
	return g
}

// Gather implements prometheus.Gatherer.
func (g *gatherer) Gather() ([]*dto.MetricFamily, error) {
	families, err := g.registry.Gather()
	if established := g.collector.established; len(established) > 0 {
		families = append(families, establishedFamily(established))
	}
	return families, err
}

// establishedFamily returns the established flows of each TCP frontend.
func establishedFamily(frontends []writer.FrontendFlows) *dto.MetricFamily {
	family := &dto.MetricFamily{
		Name: new("blixt_frontend_established_flows"), Help: new("Established TCP flows of a frontend."), Type: dto.MetricType_GAUGE.Enum(),
	}
	names := [3]*string{new("frontend"), new("gateway"), new("listener")}
	for _, f := range frontends {
		family.Metric = append(family.Metric, &dto.Metric{
			Label: []*dto.LabelPair{
				{Name: names[0], Value: new(f.Key.String())}, {Name: names[1], Value: &f.Gateway}, {Name: names[2], Value: &f.Listener},
			},
			Gauge: &dto.Gauge{Value: new(float64(f.Established))},
		})
	}
	return family
}

// collector collects when metrics are scraped, one scrape at a time.
type collector struct {
	a           *Agent
	established []writer.FrontendFlows // as last collected
}

// descriptors are those of all metrics below.
var descriptors []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("blixt_"+name, help, labels, nil)
	descriptors = append(descriptors, d)
	return d
}

var (
	descConnected = describe("operator_connected", "1 while connected to the operator.")
	descReady     = describe("ready", "1 once the maps hold a state of the operator.")
	descFailing   = describe("state_failing", "1 while the newest state could not be written.")
	descAge       = describe("state_age_seconds", "Seconds since a state was applied, or found to be in the maps already.")
	descEpoch     = describe("state_epoch", "Epoch of the state that the maps hold.")
	descSequence  = describe("state_sequence", "Sequence of the state that the maps hold.")
	descDraining  = describe("draining", "1 while the data plane serves only the flows that it knows.")
	descHeartbeat = describe("heartbeat_age_seconds", "Seconds since a packet was last seen.")
	descLost      = describe("heartbeat_lost", "1 while a direction has seen no packet for too long.")
	descFrontends = describe("frontends", "Frontends: addresses, protocols and ports that are served.")
	descBackends  = describe("backends", "Backends of all frontends.")
	descFlows     = describe("flows", "Flows at the last count.")

	descNearlyFull = describe("flows_nearly_full", "Established TCP flows of all frontends from which on each has to keep to its share.")
	descShare      = describe("flows_share", "Established TCP flows that each frontend may have when the table is nearly full.")

	descUsed    = describe("table_used", "Entries in use of a table.", "table")
	descSize    = describe("table_size", "Entries that a table has room for.", "table")
	descPackets = describe("packets_total", "Packets by what was done with them, and why.", "reason")
)

// Describe implements prometheus.Collector.
func (*collector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range descriptors {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (k *collector) Collect(all chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	k.collectOwn(gauge)
	s, err := k.a.writer.Metrics()
	if err != nil {
		all <- prometheus.NewInvalidMetric(descFrontends, fmt.Errorf("read metrics: %w", err))
		return
	}
	gauge(descEpoch, float64(s.Version.Epoch))
	gauge(descSequence, float64(s.Version.Sequence))
	gauge(descDraining, number(s.Draining))
	gauge(descFrontends, float64(s.Tables["frontends"].Used))
	gauge(descBackends, float64(s.Tables["backends"].Used))
	gauge(descFlows, float64(s.Tables["flows"].Used+s.Tables["udp_flows"].Used))
	gauge(descNearlyFull, float64(s.FlowQuota.NearlyFull))
	gauge(descShare, float64(s.FlowQuota.Share))
	k.established = s.Frontends
	for table, use := range s.Tables {
		gauge(descUsed, float64(use.Used), table)
		gauge(descSize, float64(use.Size), table)
	}
	k.collectPeers(all, gauge)
	for reason, n := range s.Counters {
		all <- prometheus.MustNewConstMetric(descPackets, prometheus.CounterValue, float64(n), reason)
	}
}

// collectOwn collects the metrics for which no map is read.
func (k *collector) collectOwn(gauge func(*prometheus.Desc, float64, ...string)) {
	k.a.mu.Lock()
	defer k.a.mu.Unlock()
	now := time.Now()
	gauge(descConnected, number(k.a.connected))
	gauge(descReady, number(!k.a.applied.IsZero()))
	gauge(descFailing, number(k.a.failure != ""))
	if !k.a.applied.IsZero() {
		gauge(descAge, now.Sub(k.a.applied).Seconds())
	}
	gauge(descHeartbeat, k.a.heartbeat.age(now).Seconds())
	gauge(descLost, number(k.a.heartbeat.lost(now)))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
