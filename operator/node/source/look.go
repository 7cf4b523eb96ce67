// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

// look looks at all files, and reports whether what counts, or what is wrong, has changed.
// A full look reads them even if nothing suggests that they have changed.
func (s *Source) look(full bool) (changed bool) {
	before := s.generation
	was := s.heard()
	s.complaints, s.notes = nil, nil
	clear(s.dirs)
	now := time.Now()
	found := map[*file]bool{}
	first := !s.looked
	dirty := first
	for _, r := range s.roots {
		if r.fixed {
			found[s.files[r.path]] = true
			continue
		}
		paths, err := s.list(r)
		for _, path := range paths {
			f := s.file(r, path)
			found[f] = true
			dirty = f.look(now, first && (f.good == nil || s.once), full) || dirty
			if f.changed.After(s.changed) {
				s.changed = f.changed
			}
		}
		if err != nil {
			s.complaints = append(s.complaints, &manifest.Error{File: r.arg, Reason: err.Error(), Unread: true})
		}
		usable := slices.ContainsFunc(paths, func(path string) bool {
			f := s.files[path]
			return f.good != nil || f.read != nil && f.wrong == nil
		})
		for path, f := range s.files {
			if f.root != r || found[f] {
				continue
			}
			if usable && (err == nil || !s.hidden(path)) {
				delete(s.files, path)
				s.store.drop(path)
				s.changed = now
				s.generation++
				dirty = true
			} else if f.present {
				f.present, f.read, f.wrong, f.stamp, f.broken = false, nil, nil, stamp{}, nil
				dirty = true
			}
		}
		if !usable && err == nil && !(s.mayBeEmpty && len(paths) == 0 && !s.served(r)) {
			what := "no *.yaml, *.yml or *.json files"
			if len(paths) > 0 {
				what = "none of its files is valid"
			}
			s.complaints = append(s.complaints, &manifest.Error{File: r.arg, Reason: fmt.Sprintf("read directory %s: %s", r.arg, what), Unread: len(paths) == 0})
		}
	}
	s.looked = true
	if dirty {
		s.settle()
	}
	changed = s.generation != before || was != s.heard()
	if first || changed {
		s.publish()
	} else {
		s.touch()
	}
	return changed
}

// served reports whether a file below a root is served, or was.
func (s *Source) served(r *root) bool {
	for _, f := range s.files {
		if f.root == r && f.good != nil {
			return true
		}
	}
	return false
}

// heard returns what there is to say.
func (s *Source) heard() string {
	return reasons(s.complaints, "\n") + strings.Join(s.notes, "\n") + s.reasons
}

// hidden reports whether a file that was not found is in a directory that could not be
// read.
func (s *Source) hidden(path string) bool {
	_, err := os.ReadDir(filepath.Dir(path))
	return err != nil && !errors.Is(err, fs.ErrNotExist)
}

// list returns the manifests at a root, and why some may be missing.
func (s *Source) list(r *root) ([]string, error) {
	s.dirs[filepath.Dir(r.path)] = struct{}{} // it reports when the root itself is replaced
	info, err := os.Stat(r.path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %s", r.arg, unwrapPath(err))
	}
	if !info.IsDir() {
		return []string{r.path}, nil
	}
	var paths []string
	return paths, s.walk(r, r.path, &paths)
}

// walk adds the manifests of a directory and, if asked to, of those below. Links to
// directories are not followed, so there are no loops.
func (s *Source) walk(r *root, dir string, paths *[]string) error {
	s.dirs[dir] = struct{}{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read directory %s: %s", r.show(dir), unwrapPath(err))
	}
	var failed error
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		switch {
		case strings.HasPrefix(entry.Name(), "."):
		case entry.IsDir() && s.recursive:
			failed = errors.Join(failed, s.walk(r, path, paths))
		case isDir(entry, path) && s.files[path] != nil: // it was a file
			*paths = append(*paths, path)
		case isDir(entry, path):
			remedy := "give -R, or "
			if s.recursive { // it is a link
				remedy = "links to directories are not followed: give "
			}
			if hasManifests(path) {
				s.notes = append(s.notes, fmt.Sprintf("%s has manifests, which are not read: %s-f %s as well", r.show(path), remedy, r.show(path)))
			}
		case manifest.IsManifest(entry.Name()):
			*paths = append(*paths, path)
		}
	}
	return failed
}

// isDir follows links, of which ConfigMaps consist.
func isDir(entry fs.DirEntry, path string) bool {
	if entry.Type()&fs.ModeSymlink == 0 {
		return entry.IsDir()
	}
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// show returns a path below the root as it would be given.
func (r *root) show(path string) string {
	name, err := filepath.Rel(r.path, path)
	if err != nil {
		return path
	}
	return filepath.Join(r.arg, name)
}

func hasManifests(dir string) bool {
	d, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer d.Close()
	names, _ := d.Readdirnames(1000)
	return slices.ContainsFunc(names, manifest.IsManifest)
}

// look reads the file if it has changed, and reports whether something else counts now.
// It waits for somebody who writes unless what is there counts at once.
func (f *file) look(now time.Time, atOnce, full bool) (dirty bool) {
	info, err := os.Stat(f.path)
	at := stampOf(info)
	same := at == f.stamp
	if err == nil && f.present && !full && !f.confirm && f.writing.IsZero() && same && f.broken == nil {
		return false
	}
	inPlace := f.present && at.dev == f.stamp.dev && at.ino == f.stamp.ino
	f.confirm, f.stamp, f.present = !same, at, true
	// waits reports whether what is there does not count yet.
	waits := func(w writer) bool {
		limit := time.Duration(0)
		switch {
		case atOnce:
		case w == isOpen:
			limit = stalled
		case w == unknown && (inPlace && !same || !f.writing.IsZero()):
			limit = paused
		}
		if limit == 0 {
			f.writing = time.Time{}
			return false
		}
		if !same {
			f.changed = now
		}
		if f.writing.IsZero() {
			f.writing = now
		}
		if now.Sub(f.changed) < limit && now.Sub(f.writing) < slowest {
			return true
		}
		f.writing = time.Time{}
		return false
	}
	var text []byte
	if err == nil {
		text, err = readFile(f.path, info, waits)
	}
	if errors.Is(err, errWaits) {
		return false
	}
	if err != nil {
		was := f.broken
		var failed *os.PathError
		f.broken = &manifest.Error{File: f.name, Reason: unwrapPath(err), Unread: errors.As(err, &failed)}
		f.writing, f.text, f.read, f.wrong = time.Time{}, nil, nil, nil
		return was == nil || *was != *f.broken
	}
	mended := f.broken != nil
	f.broken = nil
	if f.read != nil && bytes.Equal(text, f.text) {
		return mended
	}
	f.changed, f.text = now, text
	f.read, f.wrong = manifest.Parse(f.name, text)
	return true
}

// stamp is what differs after each change of a file. Clocks that go back, or times that
// somebody sets, do not matter: nobody can set the time of the last change of an inode.
type stamp struct {
	dev, ino     uint64
	mode         uint32
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	if info == nil {
		return stamp{}
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}
	}
	return stamp{s.Dev, s.Ino, s.Mode, s.Size, s.Mtim, s.Ctim}
}

// writer is whether somebody has a file open for writing.
type writer int

const (
	unknown writer = iota
	isOpen
	isClosed
)

// errWaits says that a file does not count yet.
var errWaits = errors.New("somebody is writing the file")

// readFile reads a regular file. It returns errWaits if waits says so, whom it tells who
// writes, before and after the file was read.
func readFile(path string, info fs.FileInfo, waits func(writer) bool) ([]byte, error) {
	if err := readable(info); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, err
	}
	if err := readable(info); err != nil { // another one by now
		return nil, err
	}
	before := leaseOf(file)
	if waits(before) {
		return nil, errWaits
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, tooLarge(int64(len(text)))
	}
	if before != isOpen && leaseOf(file) == isOpen && waits(isOpen) {
		return nil, errWaits
	}
	return text, nil
}

// readable returns an error for what is no regular file, and for one that is too large.
func readable(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		kind := "special file"
		switch {
		case info.Mode()&fs.ModeNamedPipe != 0:
			kind = "named pipe"
		case info.Mode()&fs.ModeSocket != 0:
			kind = "socket"
		case info.Mode()&fs.ModeDevice != 0:
			kind = "device"
		case info.IsDir():
			kind = "directory"
		}
		return fmt.Errorf("this is a %s: remove it, or give it another name", kind)
	}
	if info.Size() > maxSize {
		return tooLarge(info.Size())
	}
	return nil
}

func tooLarge(size int64) error {
	return fmt.Errorf("the file has %d MB, and %d MB is the limit: divide it into several", size>>20, maxSize>>20)
}

// leaseOf is replaced by tests.
var leaseOf = writerOf

// writerOf asks for a read lease, which the kernel grants only if nobody has the file open
// for writing (fcntl(2)). Without CAP_LEASE it does so for the process's own files alone,
// and network file systems refuse leases for reasons of their own.
func writerOf(file *os.File) writer {
	var info unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &info); err != nil {
		return unknown
	}
	switch info.Type {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return unknown
	}
	_, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if errors.Is(err, unix.EAGAIN) {
		return isOpen
	}
	if err != nil {
		return unknown
	}
	_, _ = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	return isClosed
}
