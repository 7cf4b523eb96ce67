// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// failures is what the chart's alert BlixtOperatorFailing watches.
var failures = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "blixt_operator_failures_total", Help: "Passes of loops and writes of statuses that have failed.",
})

func init() { metrics.Registry.MustRegister(failures) }

// onceLog logs what is wrong with a subject once, until it changes.
type onceLog struct {
	log    *slog.Logger
	mu     sync.Mutex
	logged map[string]string // the last message by subject
}

func newOnceLog(log *slog.Logger) *onceLog { return &onceLog{log: log, logged: map[string]string{}} }

// warn logs a message. An empty one means that nothing is wrong any more.
func (l *onceLog) warn(subject, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.logged[subject] == message:
	case message == "":
		delete(l.logged, subject)
	default:
		l.logged[subject] = message
		l.log.Warn(message, "subject", subject)
	}
}

// result logs and counts an error; nil means that nothing is wrong any more.
func (l *onceLog) result(subject string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
		failures.Inc()
	}
	l.warn(subject, message)
}
