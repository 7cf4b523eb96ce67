// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock reserves a name for one process. It is a locked file that contains the
// process id of its holder. The kernel releases it when the process ends, in
// whichever way.
type Lock struct {
	file *os.File
}

// Acquire takes the lock of a name. If another process has it, the error names
// that process.
func Acquire(dir, name string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	path := filepath.Join(dir, name+".lock")
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			defer f.Close()
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lock %s: %w", path, err)
			}
			text, _ := io.ReadAll(io.LimitReader(f, 20))
			pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
			return nil, fmt.Errorf("data plane %q is held by process %d: stop that one first, or choose another name", name, pid)
		}
		// The previous holder may have removed the file between open and flock:
		// then this is a lock on a file that nobody else can open.
		if !samePath(f, path) {
			f.Close()
			continue
		}
		if err := f.Truncate(0); err != nil {
			return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
		}
		if _, err := fmt.Fprintln(f, os.Getpid()); err != nil {
			return nil, errors.Join(fmt.Errorf("write lock: %w", err), f.Close())
		}
		return &Lock{f}, nil
	}
}

// samePath reports whether the file is still the one at path.
func samePath(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// Release releases the name.
func (l *Lock) Release() error {
	if err := os.Remove(l.file.Name()); err != nil {
		return errors.Join(fmt.Errorf("remove lock: %w", err), l.file.Close())
	}
	return l.file.Close()
}
