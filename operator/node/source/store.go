// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// format is the version of what the store writes.
const format = 1

// record is the last good text of a file, as JSON in a file of its own.
type record struct {
	Format int    `json:"format"`
	Path   string `json:"path"`
	Text   string `json:"text"`
	// Sum is the SHA-256 of the text, in hexadecimal digits.
	Sum string `json:"sha256"`
}

// store keeps the last good texts in a directory. It writes in the background, as a disk
// may be slow, full, or gone: that must delay no change.
type store struct {
	dir string
	// readOnly is true if somebody else writes there.
	readOnly bool
	mu       sync.Mutex
	pending  map[string]*string // by path; nil: remove
	closed   bool
	wake     chan struct{}
	done     chan struct{}
	failed   error
}

func openStore(dir string, readOnly bool) *store {
	s := &store{dir: dir, readOnly: readOnly, pending: map[string]*string{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run()
	return s
}

// load returns the texts by path. What it does not understand it passes over.
func (s *store) load() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	texts := map[string]string{}
	if s.dir == "" {
		return texts
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.failed = fmt.Errorf("the files that were good last are not known: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, e.Name())
		half := halfName.MatchString(e.Name())
		if half && !s.readOnly {
			_ = os.Remove(path)
		}
		if !e.Type().IsRegular() || !fileName.MatchString(e.Name()) {
			continue
		}
		var r record
		text, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(text, &r)
		}
		switch {
		case err != nil:
		case r.Format != format:
			err = fmt.Errorf("format %d is that of another version", r.Format)
		case r.Sum != sum([]byte(r.Text)) || s.file(r.Path) != path:
			err = errors.New("it is damaged")
		default:
			texts[r.Path] = r.Text
		}
		if err != nil {
			s.failed = fmt.Errorf("a file that was good last is not known: read %s: %s", path, unwrapPath(err))
		}
	}
	return texts
}

func sum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

// file returns where the text of a path is kept.
func (s *store) file(path string) string { return filepath.Join(s.dir, sum([]byte(path))[:32]+".json") }

// Others keep files in the directory as well. What file has named is told from them, and what
// is half of such a file, as its writer was killed.
var (
	fileName = regexp.MustCompile(`^[0-9a-f]{32}\.json$`)
	halfName = regexp.MustCompile(`^\.[0-9a-f]{32}\.json`)
)

func (s *store) save(path, text string) { s.put(path, &text) }
func (s *store) drop(path string)       { s.put(path, nil) }

func (s *store) put(path string, text *string) {
	if s.dir == "" || s.readOnly {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.pending[path] = text
	s.try()
}

// try has what is pending written. The caller holds s.mu.
func (s *store) try() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// retry writes again what could not be written.
func (s *store) retry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && len(s.pending) > 0 {
		s.try()
	}
}

func (s *store) run() {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		pending := s.pending
		s.pending = map[string]*string{}
		s.mu.Unlock()
		if len(pending) == 0 {
			continue
		}
		var failed error
		again := map[string]*string{}
		for path, text := range pending {
			if err := s.write(path, text); err != nil {
				again[path] = text
				failed = fmt.Errorf("the files that are good now are not kept for the next start: %w: give a directory that can be written with --state-dir", err)
			}
		}
		s.mu.Lock()
		maps.Copy(again, s.pending) // what is newer counts
		s.pending, s.failed = again, failed
		s.mu.Unlock()
	}
}

func (s *store) write(path string, text *string) error {
	if text == nil {
		if err := os.Remove(s.file(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	// A text that is no UTF-8 would come back as another one. It is never valid.
	valid := strings.ToValidUTF8(*text, "\ufffd")
	content, err := json.Marshal(record{format, path, valid, sum([]byte(valid))})
	if err != nil {
		return err
	}
	return renameio.WriteFile(s.file(path), content, 0o600, renameio.WithTempDir(s.dir))
}

// err returns why the last good texts cannot be kept, or could not be read.
func (s *store) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// close waits until everything is written, but not for long.
func (s *store) close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.wake)
	}
	s.mu.Unlock()
	select {
	case <-s.done:
	case <-time.After(2 * time.Second):
	}
}
