// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

// failing is a collector with a metric that is always there, and one that fails as long
// as err is set.
type failing struct{ err error }

var descGood, descBad = prometheus.NewDesc("blixt_good", "Good.", nil, nil), prometheus.NewDesc("blixt_bad", "Bad.", nil, nil)

func (*failing) Describe(all chan<- *prometheus.Desc) { all <- descGood; all <- descBad }
func (f *failing) Collect(all chan<- prometheus.Metric) {
	all <- prometheus.MustNewConstMetric(descGood, prometheus.GaugeValue, 1)
	if f.err != nil {
		all <- prometheus.NewInvalidMetric(descBad, f.err)
		return
	}
	all <- prometheus.MustNewConstMetric(descBad, prometheus.GaugeValue, 2)
}

// whole is a part that yields metrics or nothing.
type whole struct{ err error }

func (*whole) Describe(chan<- *prometheus.Desc) {}

func (w *whole) Gather() ([]*dto.MetricFamily, error) {
	if w.err != nil {
		return nil, w.err
	}
	return []*dto.MetricFamily{{Name: new("blixt_whole"), Help: new("Whole."), Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: new(3.0)}}}}}, nil
}

func read(t *testing.T, p *Page) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(p).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Errorf("code %d:\n%s", w.Code, w.Body)
	}
	return w.Body.String()
}

// A part that fails costs nothing but itself, and the page says so.
func TestPartThatFailsLeavesTheOthers(t *testing.T) {
	var log bytes.Buffer
	p := NewPage(slog.New(slog.NewTextHandler(&log, nil)))
	half, all := &failing{}, &whole{}
	p.AddCollectors("half", half)
	p.Add("all", all)
	expect := func(there, absent []string) {
		t.Helper()
		text := read(t, p)
		for _, line := range there {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("no %q in:\n%s", line, text)
			}
		}
		for _, name := range absent {
			if strings.Contains(text, "\n"+name+" ") {
				t.Errorf("%s is in:\n%s", name, text)
			}
		}
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
	}
	expect([]string{"blixt_good 1", "blixt_bad 2", "blixt_whole 3", `blixt_scrape_errors_total{part="half"} 0`, `blixt_scrape_errors_total{part="all"} 0`}, nil)
	half.err, all.err = errors.New("no such map"), errors.New("closed")
	gone := []string{"blixt_bad", "blixt_whole"}
	expect([]string{"blixt_good 1", `blixt_scrape_errors_total{part="half"} 1`, `blixt_scrape_errors_total{part="all"} 1`}, gone)
	expect([]string{"blixt_good 1", `blixt_scrape_errors_total{part="half"} 2`, `blixt_scrape_errors_total{part="all"} 2`}, gone)
	half.err, all.err = nil, nil
	expect([]string{"blixt_good 1", "blixt_bad 2", "blixt_whole 3", `blixt_scrape_errors_total{part="half"} 2`}, nil)
	for text, want := range map[string]int{"no such map": 1, "error=closed": 1, "complete again": 2} {
		if got := strings.Count(log.String(), text); got != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, got, want, log.String())
		}
	}
}

// Two parts with the same metric are a mistake that costs the second one.
func TestMetricOfTwoPartsIsOnThePageOnce(t *testing.T) {
	p := NewPage(slog.New(slog.DiscardHandler))
	p.Add("first", &whole{})
	p.Add("second", &whole{})
	text := read(t, p)
	for line, want := range map[string]int{"blixt_whole 3\n": 1, `part="first"} 0`: 1, `part="second"} 1`: 1} {
		if strings.Count(text, line) != want {
			t.Errorf("%q is not there %d times:\n%s", line, want, text)
		}
	}
}

// Pages may be read by several at once.
func TestPageIsGatheredByManyAtOnce(t *testing.T) {
	p := NewPage(slog.New(slog.DiscardHandler))
	p.Add("fails", &whole{errors.New("no")})
	p.AddCollectors("half", &failing{})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if families, err := p.Gather(); err != nil || len(families) != 3 {
				t.Errorf("%d families, %v", len(families), err)
			}
		})
	}
	all.Wait()
	if text := read(t, p); !strings.Contains(text, `part="fails"} 51`) {
		t.Error(text)
	}
}
