// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// failures is what the chart's alert BlixtOperatorFailing watches.
var failures = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "blixt_operator_failures_total", Help: "Passes of loops and writes that have failed, but for what the API server refuses of a single object.",
})

// refusals are the faults of single objects: nothing that an administrator of the
// operator can mend.
var refusals = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "blixt_operator_refused_writes_total", Help: "Writes that the API server has refused: by validation, a quota or an admission policy.",
}, []string{"kind"})

func init() { metrics.Registry.MustRegister(failures, refusals) }

// Limits of the log. Nobody can flood it: not with one object that changes all the
// time, and not with many.
const (
	logPause   = time.Minute // between two lines about a subject
	logLines   = 100         // of all subjects within a logPause
	logMessage = 1000        // bytes
)

// onceLog logs what is wrong with a subject once, until it changes. What is mended
// and comes back is logged again.
type onceLog struct {
	log   *slog.Logger
	clock func() time.Time

	mu       sync.Mutex
	subjects map[subject]*problem
	// began is when the first of lines was logged.
	began time.Time
	lines int
}

// subject is what a problem is about, and who has found it.
type subject struct{ finder, name string }

type problem struct {
	message string // empty: it is mended
	logged  time.Time
	// unsaid: the message was not logged, as the one before was so a moment ago.
	unsaid bool
}

func newOnceLog(log *slog.Logger, clock func() time.Time) *onceLog {
	return &onceLog{log: log, clock: clock, subjects: map[subject]*problem{}}
}

// set logs all that a finder has found, by subject. Other subjects of it are mended.
func (l *onceLog) set(finder string, found map[string]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, p := range l.subjects {
		if s.finder == finder && found[s.name] == "" || p.message == "" {
			l.warn(s, "")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		l.warn(subject{finder, name}, found[name])
	}
}

// result logs and counts an error; nil means that nothing is wrong any more.
func (l *onceLog) result(name string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
		failures.Inc()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warn(subject{"", name}, message)
}

// refused logs and counts what the API server has refused of an object.
func (l *onceLog) refused(kind, name string, err error) {
	refusals.WithLabelValues(kind).Inc()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warn(subject{"", name}, err.Error())
}

// warn logs a message. An empty one means that nothing is wrong any more; a little
// later, the subject is forgotten.
func (l *onceLog) warn(s subject, message string) {
	now := l.clock()
	p := l.subjects[s]
	switch {
	case message == "" && p == nil:
		return
	case message == "":
		p.message, p.unsaid = "", false
		if now.Sub(p.logged) >= logPause {
			delete(l.subjects, s)
		}
		return
	case p == nil:
		p = &problem{}
		l.subjects[s] = p
	case p.message == message && !p.unsaid:
		return
	}
	p.message, p.unsaid = message, true
	if now.Sub(l.began) >= logPause {
		l.began, l.lines = now, 0
	}
	if now.Sub(p.logged) < logPause || l.lines > logLines {
		return // it is logged later, if it is still so
	}
	if l.lines++; l.lines > logLines {
		l.log.Warn("more problems than the log takes: see the conditions of objects")
		return
	}
	p.logged, p.unsaid = now, false
	l.log.Warn(phrase.Clip(message, logMessage), "subject", s.name)
}
