// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"log/slog"
	"maps"
	"strings"
	"sync"
)

// said logs each message once while it stays true.
type said struct {
	mu   sync.Mutex
	last map[string]string
}

// once logs a message on a subject unless it is what was said last; an empty
// one says that the subject is well again.
func (s *said) once(subject string, level slog.Level, message string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last[subject] == message {
		return
	}
	if message != "" {
		slog.Log(context.Background(), level, message)
	} else if s.last[subject] != "" {
		slog.Info("mended", "was", firstLine(s.last[subject]))
	}
	s.last[subject] = message
}

// fault logs what is wrong with a subject, once; nil says that it is well.
func (s *said) fault(subject string, err error) {
	message := ""
	if err != nil {
		message = err.Error()
	}
	s.once(subject, slog.LevelError, message)
}

// lasting logs those of the messages that were not there the last time.
func (s *said) lasting(subject string, level slog.Level, messages []string) {
	now := map[string]bool{}
	for _, m := range messages {
		now[subject+m] = true
		s.once(subject+m, level, m)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.last, func(key, _ string) bool { return strings.HasPrefix(key, subject) && !now[key] })
}

// firstLine returns what a message begins with.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
