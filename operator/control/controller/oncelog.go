// SPDX-License-Identifier: Apache-2.0

package controller

import (
	"log/slog"
	"sync"
)

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

// result logs an error; nil means that nothing is wrong any more.
func (l *onceLog) result(subject string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	l.warn(subject, message)
}
