// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"log"
	"log/slog"
	"strings"
	"testing"
)

// captured returns what blixt run logs with these flags.
func captured(t *testing.T, l logFlags, print func()) string {
	t.Helper()
	var out bytes.Buffer
	previous, writer, flags, level := slog.Default(), log.Writer(), log.Flags(), slog.SetLogLoggerLevel(slog.LevelInfo)
	log.SetOutput(&terminal{out: &out})
	defer func() {
		slog.SetLogLoggerLevel(level)
		slog.SetDefault(previous)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}()
	if err := l.setDefault(&out); err != nil {
		t.Fatal(err)
	}
	print()
	return out.String()
}

// Scripts know blixt run by this line, and log stores by JSON, of which a hostile file
// name makes no second line.
func TestRunLogs(t *testing.T) {
	print := func() {
		slog.Debug("in detail")
		slog.Info("serving", "frontends", 1, "backends", 2)
		slog.Error("failed", "error", errors.New("a\n{\"level\":\"INFO\"}\x1b[2J"))
	}
	for level, want := range map[string]int{"debug": 3, "info": 2, "warn": 1, "error": 1} {
		text := captured(t, logFlags{level, "text"}, print)
		if lines := strings.Count(text, "\n"); lines != want {
			t.Errorf("%s: %d lines, want %d:\n%s", level, lines, want, text)
		}
		if want > 1 && !strings.Contains(text, "INFO serving frontends=1 backends=2\n") {
			t.Errorf("%s: the line of scripts is not in:\n%s", level, text)
		}
		var objects []map[string]any
		text = captured(t, logFlags{level, "json"}, print)
		for line := range strings.Lines(text) {
			var o map[string]any
			if err := json.Unmarshal([]byte(line), &o); err != nil {
				t.Errorf("%s: %v in %q", level, err, line)
			}
			objects = append(objects, o)
		}
		if len(objects) != want || objects[want-1]["level"] != "ERROR" || objects[want-1]["msg"] != "failed" || strings.Contains(text, "\x1b") {
			t.Errorf("%s: %v", level, objects)
		}
	}
}

func TestInvalidLogFlagsEndACommandAtOnce(t *testing.T) {
	for _, flag := range []string{"--log-level=loud", "--log-format=xml", "--log-level="} {
		for _, args := range [][]string{
			{"run", "-f", "/nonexistent", "--name", "no-such"},
			{"agent", "--maps=/nonexistent", "--operator=x:1", "--application=a"},
			{"operator", "--agent-image=a", "--bytecode=b"},
		} {
			c := command()
			c.SetArgs(append(args, flag))
			name, _, _ := strings.Cut(flag, "=")
			if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v: %v, want an error about %s", args, err, name)
			}
		}
	}
}
