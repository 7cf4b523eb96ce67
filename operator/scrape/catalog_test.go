// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// histograms is a part whose metrics are of both kinds.
type histograms struct{}

var descHistogram, descGauge = prometheus.NewDesc("blixt_h_seconds", "H.", []string{"a", "b"}, nil), prometheus.NewDesc("blixt_g", "G.", nil, nil)

func (histograms) Gather() ([]*dto.MetricFamily, error) { return nil, nil }
func (histograms) Describe(all chan<- *prometheus.Desc) { all <- descHistogram; all <- descGauge }
func (histograms) IsHistogram(d *prometheus.Desc) bool  { return d == descHistogram }
func (histograms) Collect(chan<- prometheus.Metric)     {}

// A catalogue has the name, type, labels and help of all that may be collected, whatever
// characters the help has, and whether or not anything was.
func TestCatalog(t *testing.T) {
	p := NewPage(slog.New(slog.DiscardHandler))
	p.AddCollectors("collectors",
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "blixt_c_total", Help: `Help with "quotes", a \ and {braces}, variableLabels: {x}}`}, []string{"reason"}),
		prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "blixt_v_seconds", Help: "V."}, []string{"phase"}),
		prometheus.NewHistogram(prometheus.HistogramOpts{Name: "blixt_w_seconds", Help: "W."}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "blixt_i", Help: "I.", ConstLabels: prometheus.Labels{"version": `a="b",c`}}, func() float64 { return 1 }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "blixt_i", Help: "I.", ConstLabels: prometheus.Labels{"version": "2"}}, func() float64 { return 1 }),
	)
	p.Add("histograms", histograms{})
	c := NewCatalog()
	if err := c.AddPage(p); err != nil {
		t.Fatal(err)
	}
	want := []Description{
		{"blixt_c_total", "counter", `Help with "quotes", a \ and {braces}, variableLabels: {x}}`, []string{"reason"}},
		{"blixt_g", "gauge", "G.", nil},
		{"blixt_h_seconds", "histogram", "H.", []string{"a", "b"}},
		{"blixt_i", "gauge", "I.", []string{"version"}},
		{"blixt_scrape_errors_total", "counter", "Parts of this page that could not be gathered, or not all of them.", []string{"part"}},
		{"blixt_v_seconds", "histogram", "V.", []string{"phase"}},
		{"blixt_w_seconds", "histogram", "W.", nil},
	}
	if d := cmp.Diff(want, c.Metrics()); d != "" {
		t.Error(d)
	}
	// What collects more than it describes would be missing.
	if err := c.Register(prometheus.CollectorFunc(func(chan<- prometheus.Metric) {})); err == nil {
		t.Error("a collector without a description is no error")
	}
	if err := c.Register(prometheus.NewGauge(prometheus.GaugeOpts{Name: "blixt_g", Help: "Another."})); err == nil {
		t.Error("two descriptions of a metric are no error")
	}
}
