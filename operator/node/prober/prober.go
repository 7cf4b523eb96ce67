// SPDX-License-Identifier: Apache-2.0

// Package prober checks backends at intervals: it connects, sends a datagram, or asks for a page. In
// come the backends and how to check them, out goes which are down. It needs plain sockets and no privilege.
package prober

import (
	"context"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Most is how many checks are made at the same time: each has a socket.
const Most = 128

// Target is a backend to check.
type Target struct {
	Key   lb.EjectedKey
	Check lb.ActiveHealth
}

// Targets returns the backends of frontends to check, each once.
func Targets(frontends []lb.Frontend) []Target {
	var all []Target
	seen := map[lb.EjectedKey]bool{}
	for _, g := range health.Groups(frontends) {
		if g.Health.Active == nil {
			continue
		}
		for _, m := range g.Members {
			key := lb.EjectedKey{Policy: g.Health.Policy, Protocol: g.Protocol, Backend: m}
			if !seen[key] {
				seen[key] = true
				all = append(all, Target{key, *g.Health.Active})
			}
		}
	}
	return all
}

// Prober checks targets. Its methods may be called concurrently.
type Prober struct {
	sockets chan struct{}
	checks  *prometheus.CounterVec

	mu      sync.Mutex
	targets map[lb.EjectedKey]*target
}

// target is a backend that is checked until it is canceled.
type target struct {
	Target
	cancel context.CancelFunc

	// Guarded by Prober.mu.
	good, bad int // checks in a row
	known     bool
	down      bool
	why       string
}

// New returns a prober without targets.
func New() *Prober {
	return &Prober{sockets: make(chan struct{}, Most), targets: map[lb.EjectedKey]*target{}, checks: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "blixt_health_checks_total", Help: "Checks of backends by this process, by result: ok or failed.",
	}, []string{"result"})}
}

// Collector returns the prober's metrics.
func (p *Prober) Collector() prometheus.Collector { return p.checks }

// Set has exactly these targets checked, until ctx ends. What is known of one that stays is kept, unless it is
// checked otherwise.
func (p *Prober) Set(ctx context.Context, targets []Target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wanted := make(map[lb.EjectedKey]bool, len(targets))
	for _, next := range targets {
		wanted[next.Key] = true
		old := p.targets[next.Key]
		if old != nil && reflect.DeepEqual(old.Check, next.Check) {
			continue
		}
		if old != nil {
			old.cancel()
		}
		ctx, cancel := context.WithCancel(ctx)
		t := &target{Target: next, cancel: cancel}
		p.targets[next.Key] = t
		go p.run(ctx, t)
	}
	for key, t := range p.targets {
		if !wanted[key] {
			t.cancel()
			delete(p.targets, key)
		}
	}
}

// Results returns what is known of the targets, in no order.
func (p *Prober) Results() []health.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]health.Result, 0, len(p.targets))
	for key, t := range p.targets {
		if t.known {
			all = append(all, health.Result{Key: key, Down: t.down, Why: t.why})
		}
	}
	return all
}

// run checks a target at its interval, the first time at a random time of it: so targets are not checked all at once.
func (p *Prober) run(ctx context.Context, t *target) {
	interval := max(t.Check.Interval, 100*time.Millisecond)
	pause := time.Duration(rand.Int64N(int64(interval)))
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case p.sockets <- struct{}{}:
		}
		began := time.Now()
		err := check(ctx, &t.Target)
		<-p.sockets
		if ctx.Err() != nil {
			return
		}
		result := "ok"
		if err != nil {
			result = "failed"
		}
		p.checks.WithLabelValues(result).Inc()
		p.mu.Lock()
		t.record(err)
		p.mu.Unlock()
		// A tenth more or less: checkers of other nodes began at the same time, perhaps.
		pause = max(interval-time.Since(began), 0) + time.Duration((rand.Float64()-0.5)*0.2*float64(interval))
	}
}

// record counts a check. Until enough of one kind have come in a row, what was known stays.
func (t *target) record(err error) {
	if err != nil {
		t.good = 0
		t.bad++
		if t.bad >= max(t.Check.Fall, 1) {
			t.known, t.down, t.why = true, true, err.Error()
		}
		return
	}
	t.bad = 0
	t.good++
	if !t.down || t.good >= max(t.Check.Rise, 1) {
		t.known, t.down, t.why = true, false, ""
	}
}
