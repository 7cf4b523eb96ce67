// SPDX-License-Identifier: Apache-2.0

// Package metrics exports what the maps of a node hold and count, for agents and
// `blixt run` alike.
package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// DataPlane is what metrics are read from.
type DataPlane struct {
	Tables    writer.Tables
	Writer    *writer.Writer
	Announcer *announce.Announcer
}

// Source calls read with the data plane, whose maps stay open until read returns, and
// returns its error. While there is no data plane, it returns nil.
type Source func(read func(DataPlane) error) error

// AddTo adds the metrics of a data plane to a page, and those of the Go runtime.
func AddTo(page *scrape.Page, source Source) {
	page.AddCollectors("process", collectors.NewGoCollector(), scrape.BuildInfo(bpf.Layout))
	page.Add("maps", gatherer(source, maps))
}

// gatherer gathers one part. part reads it, and returns a collector of what was read.
// Families do not go through a registry, which checks each metric: there may be
// thousands.
func gatherer(source Source, part func(DataPlane) (prometheus.Collector, []*dto.MetricFamily, error)) scrape.Part {
	return described{prometheus.GathererFunc(func() (all []*dto.MetricFamily, err error) {
		err = source(func(d DataPlane) error {
			c, families, err := part(d)
			if err != nil {
				return err
			}
			r := prometheus.NewRegistry()
			if err := r.Register(c); err != nil {
				return err
			}
			all, err = r.Gather()
			all = append(all, families...)
			return err
		})
		return all, err
	})}
}

// described is a part that describes all metrics of this package.
type described struct{ prometheus.Gatherer }

// Describe implements scrape.Part.
func (described) Describe(all chan<- *prometheus.Desc) {
	for _, d := range descriptors {
		all <- d
	}
}

// collected is a collector of metrics that were read already.
type collected []prometheus.Metric

// Describe implements prometheus.Collector. All metrics are made by descriptors of
// this package, each with its labels: the registry need not check them beforehand.
func (collected) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c collected) Collect(all chan<- prometheus.Metric) {
	for _, m := range c {
		all <- m
	}
}

func (c *collected) gauge(d *prometheus.Desc, v float64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
}

func (c *collected) counter(d *prometheus.Desc, n uint64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...))
}

// descriptors are those of this package.
var descriptors []*prometheus.Desc

func describe(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("blixt_"+name, help, labels, nil)
	descriptors = append(descriptors, d)
	return d
}

var (
	descEpoch     = describe("state_epoch", "Epoch of the state that the maps hold.")
	descSequence  = describe("state_sequence", "Sequence of the state that the maps hold.")
	descDraining  = describe("draining", "1 while the data plane serves only the flows that it knows.")
	descFrontends = describe("frontends", "Frontends: addresses, protocols and ports that are served.")
	descBackends  = describe("backends", "Backends of all frontends.")
	descFlows     = describe("flows", "Flows at the last count.")

	descNearlyFull = describe("flows_nearly_full", "Established TCP flows of all frontends from which on each has to keep to its share.")
	descShare      = describe("flows_share", "Established TCP flows that each frontend may have when the table is nearly full.")

	descUsed    = describe("table_used", "Entries in use of a table.", "table")
	descSize    = describe("table_size", "Entries that a table has room for.", "table")
	descPackets = describe("packets_total", "Packets by what was done with them, and why.", "reason")
)

// maps returns what the writer knows of the maps.
func maps(d DataPlane) (prometheus.Collector, []*dto.MetricFamily, error) {
	s, err := d.Writer.Metrics()
	if err != nil {
		return nil, nil, fmt.Errorf("read metrics: %w", err)
	}
	var c collected
	c.gauge(descEpoch, float64(s.Version.Epoch))
	c.gauge(descSequence, float64(s.Version.Sequence))
	c.gauge(descDraining, Bool(s.Draining))
	c.gauge(descFrontends, float64(s.Tables["frontends"].Used))
	c.gauge(descBackends, float64(s.Tables["backends"].Used))
	c.gauge(descFlows, float64(s.Tables["flows"].Used+s.Tables["udp_flows"].Used))
	c.gauge(descNearlyFull, float64(s.FlowQuota.NearlyFull))
	c.gauge(descShare, float64(s.FlowQuota.Share))
	for table, use := range s.Tables {
		c.gauge(descUsed, float64(use.Used), table)
		c.gauge(descSize, float64(use.Size), table)
	}
	for reason, n := range s.Counters {
		c.counter(descPackets, n, reason)
	}
	c.policies(s.Policies)
	if len(s.Frontends) == 0 {
		return c, nil, nil
	}
	return c, []*dto.MetricFamily{established(s.Frontends)}, nil
}

const (
	establishedName = "frontend_established_flows"
	establishedHelp = "Established TCP flows of a frontend."
)

var _ = describe(establishedName, establishedHelp, "frontend", "gateway", "listener")

// established returns the established flows of each TCP frontend.
func established(frontends []writer.ServedFrontend) *dto.MetricFamily {
	family := &dto.MetricFamily{
		Name: new("blixt_" + establishedName), Help: new(establishedHelp), Type: dto.MetricType_GAUGE.Enum(),
	}
	names := [3]*string{new("frontend"), new("gateway"), new("listener")}
	for _, f := range frontends {
		family.Metric = append(family.Metric, &dto.Metric{
			Label: []*dto.LabelPair{
				{Name: names[0], Value: new(f.Key().String())}, {Name: names[1], Value: &f.Gateway}, {Name: names[2], Value: &f.Listener},
			},
			Gauge: &dto.Gauge{Value: new(float64(f.Established))},
		})
	}
	return family
}

// State is how the writing of states gets on.
type State struct {
	Ready bool
	// Failing is true while the newest state could not be written.
	Failing bool
	// Applied is when a state was last written, or found in the maps; zero: never.
	Applied time.Time
}

var (
	descReady   = describe("ready", "1 once the maps hold a state, and the program serves it.")
	descFailing = describe("state_failing", "1 while the newest state could not be written.")
	descAge     = describe("state_age_seconds", "Seconds since a state was applied, or found to be in the maps already.")
)

// Collector returns a collector of the metrics of State, as it is at each scrape.
func Collector(state func() State) prometheus.Collector { return stateCollector(state) }

type stateCollector func() State

// Describe implements prometheus.Collector.
func (stateCollector) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descReady, descFailing, descAge} {
		all <- d
	}
}

// Collect implements prometheus.Collector.
func (state stateCollector) Collect(all chan<- prometheus.Metric) {
	s := state()
	var c collected
	c.gauge(descReady, Bool(s.Ready))
	c.gauge(descFailing, Bool(s.Failing))
	if !s.Applied.IsZero() {
		c.gauge(descAge, time.Since(s.Applied).Seconds())
	}
	c.Collect(all)
}

// Bool returns 1 for true and 0 for false.
func Bool(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
