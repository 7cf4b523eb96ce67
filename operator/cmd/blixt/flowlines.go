// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
)

// flowLines are the flags for lines of JSON about flows.
type flowLines struct {
	path  string
	size  int64
	files int
}

func (l *flowLines) add(f *pflag.FlagSet) {
	f.StringVar(&l.path, "flow-log", "", "file for a line of JSON about each flow that has ended, if it has a record, and about samples of packets that are rejected or dropped; -: standard output; empty: none. It names clients, so only root may read it")
	f.Int64Var(&l.size, "flow-log-size", 100, "size in MB at which the file becomes FILE.1, that FILE.2, and so on")
	f.IntVar(&l.files, "flow-log-files", 5, "how many previous files are kept")
}

// open returns where to write lines; nil: nowhere.
func (l *flowLines) open(stdout io.Writer) (io.Writer, error) {
	switch l.path {
	case "":
		return nil, nil
	case "-":
		return stdout, nil
	}
	if l.size < 1 || l.files < 0 {
		return nil, fmt.Errorf("--flow-log-size %d, --flow-log-files %d: want 1 MB at least, and no negative number", l.size, l.files)
	}
	f, err := flowlog.OpenFile(l.path, l.size*1_000_000, l.files)
	if err != nil {
		return nil, fmt.Errorf("--flow-log: %w", err)
	}
	return f, nil
}
