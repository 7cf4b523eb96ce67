// SPDX-License-Identifier: Apache-2.0

// Package dist replaces a directory with a newer one: completely, or not at all.
package dist

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is a directory that is being made.
type Dir struct {
	// Work is a directory beside it, for all that is needed on the way. It is on the same
	// file system, and who begins again after a kill removes it.
	Work string

	path string
	lock *os.File
}

// Begin begins to make a directory, in which mark is a file that all of its kind have. Returns
// an error if somebody else does so already, and if there is one without that file, which is
// not ours to remove.
func Begin(path, mark string) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := replaceable(path, mark); err != nil {
		return nil, err
	}
	work := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".partial")
	lock, err := lock(work)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("somebody else is making %s: wait, or make another", path)
	}
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", work, err)
	}
	if err := empty(work); err != nil {
		lock.Close()
		return nil, fmt.Errorf("remove what a killed run left: %w", err)
	}
	return &Dir{Work: work, path: path, lock: lock}, nil
}

// replaceable returns an error unless path does not exist, is empty, or has the file mark.
func replaceable(path, mark string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(path, mark)); err != nil {
		return fmt.Errorf("%s holds something else, as it has no %s: choose another directory", path, mark)
	}
	return nil
}

// lock makes the directory and locks it, until this process ends.
func lock(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		if err := ours(dir); errors.Is(err, fs.ErrNotExist) {
			continue // its owner has just finished
		} else if err != nil {
			return nil, err
		}
		file, err := os.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its owner has just finished
		}
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			file.Close()
			return nil, err
		}
		locked, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		if found, err := os.Lstat(dir); err == nil && os.SameFile(found, locked) {
			return file, nil
		}
		file.Close() // it was removed before it was locked
	}
}

// ours returns an error for a link, and for the directory of somebody else, who could put
// other programs there while a release is made, as in /tmp.
func ours(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if !info.IsDir() || owner != uint32(os.Geteuid()) || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is %s of user %d: want a directory that only user %d can write: remove it, or choose another directory", dir, info.Mode(), owner, os.Geteuid())
	}
	return nil
}

func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// Replace puts made, a directory in Work, into the place of the old one.
func (d *Dir) Replace(made string) error {
	err := unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, d.path, unix.RENAME_EXCHANGE)
	switch {
	case errors.Is(err, unix.ENOENT): // there is no old one
		err = os.Rename(made, d.path)
	case errors.Is(err, unix.EINVAL): // this file system exchanges nothing
		if err = os.Rename(d.path, filepath.Join(d.Work, "old")); err == nil {
			err = os.Rename(made, d.path)
		}
	}
	if err != nil {
		return fmt.Errorf("replace %s: %w", d.path, err)
	}
	return nil
}

// Close removes all that is not needed any more.
func (d *Dir) Close() error {
	return errors.Join(os.RemoveAll(d.Work), d.lock.Close())
}

// Keep has a command, and what it starts, keep others out as long as it runs, even if
// this process is killed.
func (d *Dir) Keep(c *exec.Cmd) { c.ExtraFiles = append(c.ExtraFiles, d.lock) }
