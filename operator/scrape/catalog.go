// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Description is what a reference says of a metric.
type Description struct {
	Name, Type, Help string
	Labels           []string
}

// Catalog describes the metrics of collectors, without collecting any. It is a
// prometheus.Registerer, so whatever registers metrics can be described.
type Catalog struct {
	mu      sync.Mutex
	metrics map[string]Description
}

// NewCatalog returns one without metrics.
func NewCatalog() *Catalog { return &Catalog{metrics: map[string]Description{}} }

// Metrics returns all descriptions, sorted by name.
func (c *Catalog) Metrics() []Description {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.SortedFunc(maps.Values(c.metrics), func(a, b Description) int { return cmp.Compare(a.Name, b.Name) })
}

// Register implements prometheus.Registerer. A collector that describes nothing is an
// error: nobody would know what it may collect.
func (c *Catalog) Register(collector prometheus.Collector) error {
	return c.add(collector)
}

// AddPage describes a page.
func (c *Catalog) AddPage(p *Page) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := c.set(Description{Name: errorsName, Type: "counter", Help: errorsHelp, Labels: []string{errorsLabel}}); err != nil {
		return err
	}
	for _, part := range p.parts {
		var all []describer
		if r, is := part.gatherer.(*registered); is {
			for _, collector := range r.collectors {
				all = append(all, collector)
			}
		} else {
			all = append(all, part.gatherer)
		}
		for _, d := range all {
			if err := c.add(d); err != nil {
				return fmt.Errorf("part %s: %w", part.name, err)
			}
		}
	}
	return nil
}

// describer is what collectors and parts of a page have in common.
type describer interface{ Describe(chan<- *prometheus.Desc) }

func (c *Catalog) add(d describer) error {
	all := make(chan *prometheus.Desc)
	go func() {
		defer close(all)
		d.Describe(all)
	}()
	var descs []*prometheus.Desc
	for desc := range all {
		descs = append(descs, desc)
	}
	for _, desc := range descs {
		next, err := describe(desc, d)
		if err != nil {
			return err
		}
		if err := c.set(next); err != nil {
			return err
		}
	}
	if len(descs) == 0 {
		return fmt.Errorf("%T describes no metric", d)
	}
	return nil
}

// set records a description. Several collectors may have a metric, with other values of
// a label each.
func (c *Catalog) set(d Description) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, known := c.metrics[d.Name]; known && !reflect.DeepEqual(before, d) {
		return fmt.Errorf("%s is described in two ways", d.Name)
	}
	c.metrics[d.Name] = d
	return nil
}

const histogram = "histogram"

// IsHistogram is what collectors and parts have whose histograms are no vectors of
// client_golang: a Desc does not say its type.
type IsHistogram interface {
	IsHistogram(*prometheus.Desc) bool
}

var descText = regexp.MustCompile(`^Desc{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), unit: "[^"]*", constLabels: {(.*)}, variableLabels: {(.*)}}$`)

// describe reads a Desc, of which there is no more than a text.
func describe(d *prometheus.Desc, from describer) (m Description, err error) {
	text := descText.FindStringSubmatch(d.String())
	if text == nil {
		return m, fmt.Errorf("%s cannot be read", d)
	}
	if m.Name, err = strconv.Unquote(text[1]); err != nil {
		return m, err
	}
	if m.Help, err = strconv.Unquote(text[2]); err != nil {
		return m, err
	}
	for _, pair := range constLabel.FindAllStringSubmatch(text[3], -1) {
		m.Labels = append(m.Labels, pair[1])
	}
	for name := range strings.SplitSeq(text[4], ",") {
		if name != "" {
			m.Labels = append(m.Labels, strings.TrimSuffix(strings.TrimPrefix(name, "c("), ")"))
		}
	}
	m.Type = typeOf(d, m.Name, from)
	return m, nil
}

var constLabel = regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`)

// typeOf returns the type of a metric. promlint sees to it that counters end in _total,
// and nothing else does.
func typeOf(d *prometheus.Desc, name string, from describer) string {
	switch c := from.(type) {
	case IsHistogram:
		if c.IsHistogram(d) {
			return histogram
		}
	case *prometheus.HistogramVec:
		return histogram
	case prometheus.Metric:
		var m dto.Metric
		if c.Write(&m) == nil && m.Histogram != nil {
			return histogram
		}
	}
	if strings.HasSuffix(name, "_total") {
		return "counter"
	}
	return "gauge"
}

// MustRegister implements prometheus.Registerer.
func (c *Catalog) MustRegister(all ...prometheus.Collector) {
	for _, collector := range all {
		if err := c.Register(collector); err != nil {
			panic(err)
		}
	}
}

// Unregister implements prometheus.Registerer. What was described stays so.
func (*Catalog) Unregister(prometheus.Collector) bool { return false }
