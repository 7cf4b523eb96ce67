// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file of lines that is kept small: when it would exceed a size, it becomes
// PATH.1, what that was becomes PATH.2, and so on; the oldest is removed. If somebody else
// moves or removes it, a new one begins. Only root may read it, as it names clients. It is
// for one goroutine.
type File struct {
	path string
	most int64 // bytes
	keep int   // how many previous files
	file *os.File
}

// OpenFile opens a file to append to.
func OpenFile(path string, most int64, keep int) (*File, error) {
	f := &File{path: path, most: most, keep: keep}
	return f, f.open()
}

func (f *File) open() (err error) {
	f.file, err = os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// Write appends whole lines.
func (f *File) Write(lines []byte) (int, error) {
	if err := f.ready(int64(len(lines))); err != nil {
		return 0, err
	}
	return f.file.Write(lines)
}

// ready makes f.file the file at its path, with room for some bytes.
func (f *File) ready(bytes int64) error {
	if f.file != nil {
		there, err := os.Lstat(f.path)
		ours, statErr := f.file.Stat()
		switch {
		case statErr != nil:
			return statErr
		case errors.Is(err, fs.ErrNotExist), err == nil && !os.SameFile(there, ours): // moved by somebody
		case err != nil:
			return err
		case ours.Size() == 0 || ours.Size()+bytes <= f.most:
			return nil
		default:
			if err := f.rotate(); err != nil {
				return err
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return f.open()
}

// rotate moves the files.
func (f *File) rotate() error {
	if f.keep == 0 {
		return os.Remove(f.path)
	}
	name := func(n int) string {
		if n == 0 {
			return f.path
		}
		return fmt.Sprintf("%s.%d", f.path, n)
	}
	for n := f.keep - 1; n >= 0; n-- {
		if err := os.Rename(name(n), name(n+1)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Close closes the file. A later Write opens it again.
func (f *File) Close() error {
	if f.file == nil {
		return nil
	}
	err := f.file.Close()
	f.file = nil
	return err
}
