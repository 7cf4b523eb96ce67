// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Page is a page of metrics, made of parts. A part that fails is counted in
// blixt_scrape_errors_total and logged; all that could be gathered stays on the page.
type Page struct {
	log *slog.Logger

	mu    sync.Mutex // of all below; not held while parts are gathered
	parts []*part
}

type part struct {
	name     string
	gatherer Part
	failed   uint64
	failure  string // of the last time, or ""
}

// NewPage returns a page without parts.
func NewPage(log *slog.Logger) *Page { return &Page{log: log} }

// Part yields metrics, and describes all that it may ever yield.
type Part interface {
	prometheus.Gatherer
	Describe(chan<- *prometheus.Desc)
}

// Add adds a part. Scrapes may gather it at the same time as others.
func (p *Page) Add(name string, g Part) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts = append(p.parts, &part{name: name, gatherer: g})
}

// AddCollectors adds a part of collectors, each of which is checked as it is registered.
func (p *Page) AddCollectors(name string, all ...prometheus.Collector) {
	r := prometheus.NewRegistry()
	r.MustRegister(all...)
	p.Add(name, &registered{r, all})
}

// registered is a part of collectors. They know the types of their metrics, which the
// registry does not.
type registered struct {
	*prometheus.Registry
	collectors []prometheus.Collector
}

// Gather implements prometheus.Gatherer. Its error is always nil: a page without
// metrics would not tell what is wrong.
func (p *Page) Gather() ([]*dto.MetricFamily, error) {
	p.mu.Lock()
	parts := slices.Clone(p.parts)
	p.mu.Unlock()
	var all []*dto.MetricFamily
	names := map[string]bool{errorsName: true}
	for _, part := range parts {
		families, err := part.gatherer.Gather()
		for _, f := range families {
			if names[f.GetName()] { // Prometheus would refuse the whole page
				err = errors.Join(err, fmt.Errorf("%s is in another part already", f.GetName()))
				continue
			}
			names[f.GetName()] = true
			all = append(all, f)
		}
		p.record(part, err)
	}
	if len(parts) > 0 {
		all = append(all, p.errors(parts))
	}
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return all, nil
}

// record counts the error of a part, and logs it once while it stays the same.
func (p *Page) record(part *part, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		part.failed++
	}
	if part.failure == text {
		return
	}
	if part.failure = text; err != nil {
		p.log.Error("metrics are incomplete", "part", part.name, "error", text)
	} else {
		p.log.Info("metrics are complete again", "part", part.name)
	}
}

// The metric of failures.
const (
	errorsName  = "blixt_scrape_errors_total"
	errorsHelp  = "Parts of this page that could not be gathered, or not all of them."
	errorsLabel = "part"
)

// errors returns how often each part has failed.
func (p *Page) errors(parts []*part) *dto.MetricFamily {
	p.mu.Lock()
	defer p.mu.Unlock()
	family := &dto.MetricFamily{Name: new(errorsName), Help: new(errorsHelp), Type: dto.MetricType_COUNTER.Enum()}
	label := new(errorsLabel)
	for _, part := range parts {
		family.Metric = append(family.Metric, &dto.Metric{
			Label: []*dto.LabelPair{{Name: label, Value: &part.name}}, Counter: &dto.Counter{Value: new(float64(part.failed))},
		})
	}
	return family
}
