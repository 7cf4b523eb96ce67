// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file is never seen in part, nor is one that somebody else made lost: of many that write
// at once, one does.
func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	text := strings.Repeat("a line\n", 10_000)
	var written atomic.Int32
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			if err := writeNew(path, fmt.Sprint(i, "\n", text), false); err == nil {
				written.Add(1)
			} else if !strings.Contains(err.Error(), "it exists already") {
				t.Error(err)
			}
		})
	}
	for read := time.Now(); written.Load() == 0 && time.Since(read) < 10*time.Second; {
		if got, err := os.ReadFile(path); err == nil && !strings.HasSuffix(string(got), "\n"+text) {
			t.Fatalf("%d bytes are there while it is written", len(got))
		}
	}
	all.Wait()
	if written.Load() != 1 {
		t.Errorf("%d have written", written.Load())
	}
	if err := writeNew(path, "other", true); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(path); string(got) != "other" {
		t.Errorf("%q is there, %v", got, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// A link that leads nowhere is somebody's, too.
func TestWriteNewLeavesLinks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.yaml")
	if err := os.Symlink("nowhere", path); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(path, "text", false); err == nil || !strings.Contains(err.Error(), "it exists already") {
		t.Error(err)
	}
}

// A file in its place would break all others that use it: as root, -o /dev/null --force did.
func TestWriteNewWritesToPipes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, over := range []bool{false, true} {
		f, err := os.OpenFile(path, os.O_RDWR, 0) // neither side waits for the other
		if err != nil {
			t.Fatal(err)
		}
		if err := writeNew(path, "text", over); err != nil {
			t.Error(err)
		}
		got := make([]byte, 4)
		if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
			t.Fatalf("the pipe was replaced: %v, %v", info, err)
		}
		if _, err := f.Read(got); err != nil || string(got) != "text" {
			t.Errorf("got %q, %v", got, err)
		}
		f.Close()
	}
}

// Flags are read in the order of the command line, whichever way they are written.
func TestShortFlagsKeepTheirOrder(t *testing.T) {
	run := func(args ...string) string {
		c := command()
		var out strings.Builder
		c.SetOut(&out)
		c.SetErr(&out)
		c.SetArgs(append([]string{"init"}, args...))
		if err := c.Execute(); err != nil {
			return err.Error()
		}
		return out.String()
	}
	got := run("--listen=192.0.2.1:80", "--listen", "192.0.2.2:80", "--backend", "10.0.0.1", "--listen", "192.0.2.3:80", "--backend=10.0.0.2")
	if !strings.Contains(got, "name: tcp-80-192-0-2-2\n") || strings.Count(got, "kind: Service\n") != 2 || strings.Count(got, "    - name: tcp-80-192-0-2-1\n") != 2 {
		t.Error(got)
	}
	if got := run("--backend", "10.0.0.1", "--listen", ":80"); !strings.HasPrefix(got, "--backend 10.0.0.1: no --listen is before it") {
		t.Error(got)
	}
	if got := run(); !strings.Contains(got, "such as: blixt init --listen 192.0.2.10:80") {
		t.Error(got)
	}
}
