// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/kubernetes-sigs/blixt/operator/admission"
)

// memoryFile keeps on disk which objects were good last, and who holds which frontend,
// for the next start. It writes in the background, as a disk may be slow, full, or gone:
// that must delay no change.
type memoryFile struct {
	path string // empty: nothing is kept
	// paths are where the objects come from. What others say is nobody's past.
	paths []string
	next  chan *admission.Memory // the newest
	// closing ends the pause between two writes.
	closing, done chan struct{}
	told          func(error) // is told whether writing works
}

// memoryRecord is the contents of the file.
type memoryRecord struct {
	Paths []string `json:"paths"`
	// Sum is the SHA-256 of the memory, in hexadecimal digits.
	Sum    string          `json:"sha256"`
	Memory json.RawMessage `json:"memory"`
}

// memoryEvery is how often at most to write, memoryAfter how long after a change: the
// change itself comes first. Tests change them.
var (
	memoryEvery = time.Second
	memoryAfter = 100 * time.Millisecond
)

// openMemory returns what was kept in the directory; "": nothing is. What is damaged or
// of other paths is as good as nothing; the error says which.
func openMemory(dir string, paths []string, told func(error)) (*memoryFile, *admission.Memory, error) {
	f := &memoryFile{next: make(chan *admission.Memory, 1), closing: make(chan struct{}), done: make(chan struct{}), told: told}
	for _, path := range paths {
		if absolute, err := filepath.Abs(path); err == nil {
			path = absolute
		}
		f.paths = append(f.paths, path)
	}
	if dir != "" {
		f.path = filepath.Join(dir, "objects")
	}
	memory, err := f.read()
	go f.run()
	return f, memory, err
}

func (f *memoryFile) read() (*admission.Memory, error) {
	if f.path == "" {
		return &admission.Memory{}, nil
	}
	text, err := os.ReadFile(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return &admission.Memory{}, nil
	}
	var record memoryRecord
	memory := &admission.Memory{}
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err == nil && record.Sum != memorySum(record.Memory) {
		err = errors.New("it is damaged")
	}
	if err == nil && !slices.Equal(record.Paths, f.paths) {
		return memory, nil
	}
	if err == nil {
		err = json.Unmarshal(record.Memory, memory)
	}
	if err != nil {
		return &admission.Memory{}, fmt.Errorf("which objects were good last is not known: read %s: %w", f.path, err)
	}
	return memory, nil
}

func memorySum(text []byte) string {
	s := sha256.Sum256(text)
	return hex.EncodeToString(s[:])
}

// set has the memory written soon. Only one goroutine may call it.
func (f *memoryFile) set(m *admission.Memory) {
	select {
	case <-f.next: // older
	default:
	}
	f.next <- m
}

// run writes what it is given, until close.
func (f *memoryFile) run() {
	defer close(f.done)
	var written string
	for m := range f.next {
		if f.path == "" {
			continue
		}
		select {
		case <-f.closing:
		case <-time.After(memoryAfter):
		}
		select {
		case newer, is := <-f.next:
			if is {
				m = newer
			}
		default:
		}
		text, err := json.Marshal(m)
		sum := memorySum(text)
		if err == nil && sum == written {
			continue
		}
		if err == nil {
			text, err = json.Marshal(memoryRecord{f.paths, sum, text})
		}
		if err == nil {
			err = os.MkdirAll(filepath.Dir(f.path), 0o700)
		}
		if err == nil {
			err = renameio.WriteFile(f.path, text, 0o600, renameio.WithTempDir(filepath.Dir(f.path)))
		}
		if err != nil {
			f.told(fmt.Errorf("which objects are good now is not kept for the next start: %w: give a directory that can be written with --state-dir", err))
			continue
		}
		f.told(nil)
		written = sum
		select {
		case <-f.closing:
		case <-time.After(memoryEvery):
		}
	}
}

// close waits until the memory is written, but not for long.
func (f *memoryFile) close() {
	close(f.closing)
	close(f.next)
	select {
	case <-f.done:
	case <-time.After(2 * time.Second):
	}
}
