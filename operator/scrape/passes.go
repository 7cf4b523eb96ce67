// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Passes are the metrics of loops that read objects and have them served, in the operator
// and on a host without Kubernetes.
type Passes struct {
	phases *prometheus.HistogramVec
	total  *prometheus.CounterVec
}

// NewPasses returns those of a process that has just begun.
func NewPasses() *Passes {
	p := &Passes{
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "blixt_pass_duration_seconds",
			Help:    "Time of each phase of passes. In the operator: over all objects (read, translate, endpoints, publish), over the endpoints of one Service (service), over the nodes (rollout). Of blixt run: reading files and network (read), preparing (publish) and writing a state (write).",
			Buckets: []float64{.001, .005, .025, .1, .5, 2, 10, 60}, NativeHistogramBucketFactor: 1.1,
		}, []string{"phase"}),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "blixt_passes_total", Help: "Passes, by result: ok, or failed, which are tried again.",
		}, []string{"result"}),
	}
	for _, result := range []string{resultOK, resultFailed} {
		p.total.WithLabelValues(result) // shown from the beginning, as 0
	}
	return p
}

// DescProblems describes how many objects have something wrong.
var DescProblems = prometheus.NewDesc("blixt_problems",
	"What is wrong with objects. In the operator: conditions of Blixt's objects and listeners that are False, as they are stored, but for those that wait. Of blixt run: files and objects that the log names.",
	[]string{"kind", "reason"}, nil)

const (
	resultOK     = "ok"
	resultFailed = "failed"
)

// Collectors returns the collectors to register.
func (p *Passes) Collectors() []prometheus.Collector {
	return []prometheus.Collector{p.phases, p.total}
}

// Count counts a pass.
func (p *Passes) Count(err error) {
	result := resultOK
	if err != nil {
		result = resultFailed
	}
	p.total.WithLabelValues(result).Inc()
}

// Took records how long a phase took.
func (p *Passes) Took(phase string, d time.Duration) {
	p.phases.WithLabelValues(phase).Observe(d.Seconds())
}

// Start begins a pass.
func (p *Passes) Start() *Stopwatch { return &Stopwatch{p, time.Now()} }

// Stopwatch measures the phases of a pass.
type Stopwatch struct {
	passes *Passes
	from   time.Time
}

// Lap ends a phase, and begins the next one.
func (w *Stopwatch) Lap(phase string) {
	now := time.Now()
	w.passes.Took(phase, now.Sub(w.from))
	w.from = now
}
