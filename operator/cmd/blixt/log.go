// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// logFlags configure the log of a long-running command.
type logFlags struct{ level, format string }

func (l *logFlags) add(f *pflag.FlagSet) {
	f.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&l.format, "log-format", "text", "text or json")
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	level, err := l.parse()
	if err != nil {
		return nil, err
	}
	w = &terminal{out: w}
	o := &slog.HandlerOptions{Level: level}
	if l.format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// setDefault has slog's default logger do as the flags say. Its text is that of package
// log, by which scripts know `blixt run`.
func (l *logFlags) setDefault(w io.Writer) error {
	level, err := l.parse()
	if err != nil {
		return err
	}
	if l.format == "json" {
		log, err := l.logger(w)
		if err == nil {
			slog.SetDefault(log)
		}
		return err
	}
	slog.SetLogLoggerLevel(level)
	return nil
}

// parse returns the level, or an error if a flag is invalid.
func (l *logFlags) parse() (level slog.Level, err error) {
	if err := level.UnmarshalText([]byte(l.level)); err != nil {
		return 0, fmt.Errorf("--log-level %q: want debug, info, warn or error", l.level)
	}
	if l.format != "text" && l.format != "json" {
		return 0, fmt.Errorf("--log-format %q: want text or json", l.format)
	}
	return level, nil
}
