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

// Holder returns the process that has the lock of a name, 0: none that can be seen. It does
// not touch the lock, which would keep others from taking it.
func Holder(dir, name string) int {
	path := filepath.Join(dir, name+".lock")
	var file unix.Stat_t
	if unix.Lstat(path, &file) != nil || file.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0
	}
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line) // 1: FLOCK ADVISORY WRITE 4711 00:1a:815 0 EOF
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		at := strings.Split(f[5], ":")
		if at[len(at)-1] != strconv.FormatUint(file.Ino, 10) {
			continue
		}
		text, err := os.ReadFile(path) // inodes of several devices have the same number
		if pid := strings.TrimSpace(string(text)); err == nil && pid == f[4] {
			holder, _ := strconv.Atoi(pid)
			return holder
		}
	}
	return 0
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
