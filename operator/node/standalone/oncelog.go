// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// onceLog logs each message once while it stays true.
type onceLog struct {
	mu   sync.Mutex
	last map[string]string // message by subject
	// open are those that are warnings or worse, and changed is called when they differ.
	open    map[string]Problem
	changed func()
}

// once logs a message about a subject unless it is the last one about it. An empty
// message means that nothing is wrong any more.
func (l *onceLog) once(subject string, level slog.Level, message string) {
	l.log(subject, subject, level, message)
}

// log is once about a subject that is one of several about the same.
func (l *onceLog) log(subject, about string, level slog.Level, message string) {
	message = oneLine(message)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last[subject] == message {
		return
	}
	if message != "" {
		slog.Log(context.Background(), level, message)
	} else if l.last[subject] != "" {
		slog.Info("mended", "was", l.last[subject])
	}
	if l.last == nil {
		l.last = map[string]string{}
	}
	l.last[subject] = message
	l.note(subject, about, level, message)
}

// failure logs an error about a subject, once; nil: nothing is wrong any more.
func (l *onceLog) failure(subject string, err error) {
	l.once(subject, slog.LevelError, text(err))
}

// warning is failure for what costs nothing yet.
func (l *onceLog) warning(subject string, err error) {
	l.once(subject, slog.LevelWarn, text(err))
}

// text returns the message of an error in one line, none for nil. Several errors have a
// line each.
func text(err error) string {
	if err == nil {
		return ""
	}
	return oneLine(err.Error())
}

// oneLine joins the lines of a message.
func oneLine(message string) string {
	return strings.ReplaceAll(strings.TrimSpace(message), "\n", "; ")
}

// each logs those of the messages about a subject that it was not given the last
// time, and takes back those that it was given then and is not now.
func (l *onceLog) each(subject string, level slog.Level, messages []string) {
	now := map[string]bool{}
	for _, m := range messages {
		m = oneLine(m)
		now[subject+m] = true
		l.log(subject+m, subject, level, m)
	}
	l.mu.Lock()
	var gone []string
	for key, message := range l.last {
		if message != "" && key == subject+message && !now[key] {
			gone = append(gone, key)
		}
	}
	l.mu.Unlock()
	for _, key := range slices.Sorted(slices.Values(gone)) {
		l.log(key, subject, level, "")
		l.mu.Lock()
		delete(l.last, key)
		l.mu.Unlock()
	}
}

// forget takes back what was said about something that is gone for good.
func (l *onceLog) forget(subjects ...string) {
	for _, s := range subjects {
		l.once(s, slog.LevelInfo, "")
	}
}
