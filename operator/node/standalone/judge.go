// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	judges "github.com/kubernetes-sigs/blixt/operator/health"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/prober"
	"github.com/kubernetes-sigs/blixt/operator/node/source"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

const (
	// judgeEvery is how often backends are judged.
	judgeEvery = time.Second
	// mostUnhealthy is how many backends that are not healthy, or frontends for which health is not obeyed, are
	// named one by one.
	mostUnhealthy = 20
)

// judging is what is known of the health of backends.
type judging struct {
	judge  judges.Judge
	probes *prober.Prober
	// now and total are how many are ejected, and how many times backends were.
	now   atomic.Int64
	total atomic.Int64
	// ejected is what was decided last, and failovers which groups of backends serve: r.reconciling guards them.
	ejected   lb.EjectedSet
	failovers gateway.Failovers
	// again is set when a group may be available for long enough: the same.
	again bool
}

// watchHealth judges backends by their flows, as the writer finds them, and by checks, until ctx ends.
func (r *runner) watchHealth(ctx context.Context, w *writer.Writer) {
	probes := r.judging.probes
	probes.Set(ctx, nil) // those of a program before have ended
	var judged *sent
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s := r.state.Load(); s != nil && s != judged {
			judged = s
			r.judging.judge.Judge(judges.Groups(s.State.Frontends))
			probes.Set(ctx, prober.Targets(s.State.Frontends))
		}
		now := time.Now()
		if seen := w.Health(); len(seen) > 0 {
			r.judging.judge.Observe(r.NodeName, seen, now)
		}
		if found := probes.Results(); len(found) > 0 {
			r.judging.judge.Check(r.NodeName, found, now)
		}
		r.obey(r.judging.judge.Decide(now), now)
	}
}

// obey has what was decided take effect, and says what it is.
func (r *runner) obey(d judges.Decision, now time.Time) {
	r.reconciling.Lock()
	was := r.judging.ejected
	changed := !maps.Equal(was, d.Ejected)
	if changed {
		r.judging.ejected = d.Ejected
	}
	if wake := r.judging.failovers.Wake(); !wake.IsZero() && !now.Before(wake) {
		r.judging.again, changed = true, true
	}
	r.reconciling.Unlock()
	if changed {
		r.wake()
	}
	r.sayEjected(was, d.Ejected)
	r.log.each("health check", slog.LevelWarn, noticed(d.Suspects, "checks"))
	if s := r.state.Load(); s != nil {
		r.log.each("health panic", slog.LevelWarn, noticed(judges.Panics(s.State.Frontends), "frontends"))
	}
}

// noticed returns where health is not obeyed, the first one by one.
func noticed(all []lb.HealthNotice, what string) (messages []string) {
	for _, n := range all[:min(len(all), mostUnhealthy)] {
		messages = append(messages, fmt.Sprintf("policy %s: %s", n.Policy, n.Why))
	}
	if more := len(all) - mostUnhealthy; more > 0 {
		messages = append(messages, fmt.Sprintf("%d more %s like these", more, what))
	}
	return messages
}

// sayEjected logs what has changed, and keeps what is ejected among the problems.
func (r *runner) sayEjected(was, now lb.EjectedSet) {
	r.judging.now.Store(int64(len(now)))
	var problems []string
	for _, key := range sortedEjected(now) {
		e, before := now[key], was[key]
		if before == nil || before.Since != e.Since {
			r.judging.total.Add(1)
		}
		if e.Trial && (before == nil || !before.Trial) {
			slog.Info("backend on trial: it gets one flow at a time", "backend", key.Backend, "protocol", key.Protocol, "policy", key.Policy)
		} else if !e.Trial && before != nil && before.Trial {
			slog.Warn("backend has failed on trial", "backend", key.Backend, "protocol", key.Protocol, "policy", key.Policy, "until", e.Until.Format(time.DateTime))
		}
		problems = append(problems, fmt.Sprintf("backend %s (%s) is ejected by policy %s: %s", key.Backend, key.Protocol, key.Policy, e.Why))
	}
	if more := len(problems) - mostUnhealthy; more > 0 {
		problems = append(problems[:mostUnhealthy], fmt.Sprintf("%d more backends are ejected", more))
	}
	r.log.each("health", slog.LevelWarn, problems)
}

// collectors returns the metrics of the health of backends.
func (j *judging) collectors() []prometheus.Collector {
	return []prometheus.Collector{
		j.probes.Collector(),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "blixt_backends_ejected", Help: "Backends that are ejected, as they are not healthy, or on trial.",
		}, func() float64 { return float64(j.now.Load()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "blixt_ejections_total", Help: "How many times backends were ejected.",
		}, func() float64 { return float64(j.total.Load()) }),
	}
}

func sortedEjected(set lb.EjectedSet) []lb.EjectedKey {
	return slices.SortedFunc(maps.Keys(set), func(a, b lb.EjectedKey) int {
		return cmp.Or(cmp.Compare(a.Policy, b.Policy), a.Backend.Compare(b.Backend), cmp.Compare(a.Protocol, b.Protocol))
	})
}

// resolveAgain is read for the same files as before, when other backends are healthy, or another group may serve.
// nil: there is more to it.
func (r *runner) resolveAgain(files *source.Result, o gateway.Options, on gateway.ResolveOptions) *resolved {
	was := r.resolved
	if was == nil || was.review.Memory != r.memory || r.Lenient || !slices.Equal(was.files.Files, files.Files) {
		return nil
	}
	if before := was.on; !r.judging.again {
		before.Ejected = on.Ejected
		if maps.Equal(was.on.Ejected, on.Ejected) || !reflect.DeepEqual(before, on) {
			return nil
		}
	}
	review, _, ok := was.review.WithEndpoints(nil, nil, o, files.At)
	if !ok {
		return nil
	}
	now := &resolved{files: files, review: review, on: on}
	now.Resolution = gateway.Resolve(&review.Translation.Unresolved, review.Endpoints, on)
	return now
}
