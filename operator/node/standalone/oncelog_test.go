// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
)

// logbook collects what is logged while a test runs.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// captureLog returns a logbook of all that is logged until the test ends.
func captureLog(t testing.TB) *logbook {
	l := &logbook{}
	previous := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})))
	t.Cleanup(func() { slog.SetDefault(previous) })
	return l
}

// take returns the lines since the last call.
func (l *logbook) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := strings.TrimSpace(l.text.String())
	l.text.Reset()
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// wants fails the test unless exactly these lines were logged since the last call.
func (l *logbook) wants(t *testing.T, lines ...string) {
	t.Helper()
	if got := l.take(); !slices.Equal(got, lines) {
		t.Errorf("logged %q, want %q", got, lines)
	}
}

func TestMessageIsLoggedOnceWhileItIsTrue(t *testing.T) {
	l := captureLog(t)
	s := onceLog{last: map[string]string{}}
	s.once("files", slog.LevelError, "") // nothing was wrong before
	l.wants(t)
	s.once("files", slog.LevelError, "line 3 is bad")
	s.once("files", slog.LevelError, "line 3 is bad")
	s.once("network", slog.LevelError, "no netlink")
	l.wants(t, `level=ERROR msg="line 3 is bad"`, `level=ERROR msg="no netlink"`)
	s.once("files", slog.LevelError, "line 4 is bad")
	l.wants(t, `level=ERROR msg="line 4 is bad"`)
	s.once("files", slog.LevelError, "")
	s.once("files", slog.LevelError, "")
	l.wants(t, `level=INFO msg=mended was="line 4 is bad"`)
	s.once("files", slog.LevelError, "line 4 is bad")
	l.wants(t, `level=ERROR msg="line 4 is bad"`)
}

func TestLastingMessagesAreLoggedWhenTheyAppear(t *testing.T) {
	l := captureLog(t)
	s := onceLog{last: map[string]string{}}
	s.once("attach", slog.LevelWarn, "eth9 is missing")
	s.each("problem", slog.LevelWarn, []string{"a", "b"})
	l.wants(t, `level=WARN msg="eth9 is missing"`, `level=WARN msg=a`, `level=WARN msg=b`)
	s.each("problem", slog.LevelWarn, []string{"b", "c"})
	l.wants(t, `level=WARN msg=c`, `level=INFO msg=mended was=a`)
	s.each("problem", slog.LevelWarn, []string{"a"}) // again
	l.wants(t, `level=WARN msg=a`, `level=INFO msg=mended was=b`, `level=INFO msg=mended was=c`)
	s.each("problem", slog.LevelWarn, nil)
	s.once("attach", slog.LevelWarn, "eth9 is missing")
	l.wants(t, `level=INFO msg=mended was=a`)
}

// However many lines an error has, the log has one, and takes it back as one.
func TestMessageOfSeveralLines(t *testing.T) {
	book := captureLog(t)
	l := onceLog{last: map[string]string{}}
	several := errors.Join(errors.New("web.yaml:2: wrong"), errors.New("db.yaml:7: wrong, too"))
	l.failure("files", several)
	book.wants(t, `level=ERROR msg="web.yaml:2: wrong; db.yaml:7: wrong, too"`)
	l.failure("files", several)
	l.each("file", slog.LevelWarn, []string{"a\nb"})
	book.wants(t, `level=WARN msg="a; b"`)
	l.each("file", slog.LevelWarn, []string{"a\nb"})
	l.each("file", slog.LevelWarn, nil)
	l.forget("files", "never said")
	book.wants(t, `level=INFO msg=mended was="a; b"`, `level=INFO msg=mended was="web.yaml:2: wrong; db.yaml:7: wrong, too"`)
	if left := l.problems(); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}
