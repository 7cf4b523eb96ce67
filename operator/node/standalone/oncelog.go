// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
)

// onceLog logs each message once while it stays true.
type onceLog struct {
	mu   sync.Mutex
	last map[string]string // message by subject
}

// once logs a message about a subject unless it is the last one about it. An empty
// message means that nothing is wrong any more.
func (l *onceLog) once(subject string, level slog.Level, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last[subject] == message {
		return
	}
	if message != "" {
		slog.Log(context.Background(), level, message)
	} else if l.last[subject] != "" {
		slog.Info("mended", "was", firstLine(l.last[subject]))
	}
	l.last[subject] = message
}

// failure logs an error about a subject, once; nil: nothing is wrong any more.
func (l *onceLog) failure(subject string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	l.once(subject, slog.LevelError, message)
}

// each logs those of the messages about a subject that it was not given the last
// time.
func (l *onceLog) each(subject string, level slog.Level, messages []string) {
	now := map[string]bool{}
	for _, m := range messages {
		now[subject+m] = true
		l.once(subject+m, level, m)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.last, func(key, _ string) bool { return strings.HasPrefix(key, subject) && !now[key] })
}

// firstLine returns the first line of a message.
func firstLine(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	return line
}
