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
	dirty := !s.looked
	s.looked = true
	for _, r := range s.roots {
		if r.path == Stdin {
			found[s.files[Stdin]] = true
			continue
		}
		paths, err := s.list(r)
		for _, path := range paths {
			f := s.file(r, path)
			found[f] = true
			dirty = f.look(now, full) || dirty
			if f.changed.After(s.changed) {
				s.changed = f.changed
			}
		}
		if err != nil {
			s.complaints = append(s.complaints, err.Error())
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
				f.present, f.read, f.wrong, f.stamp, f.broken = false, nil, nil, nil, nil
				dirty = true
			}
		}
		if !usable && err == nil {
			what := "no *.yaml, *.yml or *.json files"
			if len(paths) > 0 {
				what = "none of its files is valid"
			}
			s.complaints = append(s.complaints, fmt.Sprintf("read directory %s: %s", r.arg, what))
		}
	}
	if dirty {
		s.settle()
	}
	return s.generation != before || was != s.heard()
}

// heard returns what there is to say.
func (s *Source) heard() string {
	return strings.Join(s.complaints, "\n") + strings.Join(s.notes, "\n") + s.reasons
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
		what := "file"
		if r.dir {
			what = "directory"
		}
		return nil, fmt.Errorf("read %s %s: %s", what, r.arg, unwrapPath(err))
	}
	if r.dir = info.IsDir(); !r.dir {
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
		switch info, err := os.Stat(path); { // follows links, of which ConfigMaps consist
		case strings.HasPrefix(entry.Name(), "."):
		case err == nil && info.IsDir() && s.recursive && entry.Type()&fs.ModeSymlink == 0:
			failed = errors.Join(failed, s.walk(r, path, paths))
		case err == nil && info.IsDir() && s.files[path] != nil: // it was a file
			*paths = append(*paths, path)
		case err == nil && info.IsDir():
			if hasManifests(path) {
				s.notes = append(s.notes, fmt.Sprintf("%s has manifests, which are not read: give -R, or -f %s as well", r.show(path), r.show(path)))
			}
		case manifest.IsManifest(entry.Name()):
			*paths = append(*paths, path)
		}
	}
	return failed
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
func (f *file) look(now time.Time, full bool) (dirty bool) {
	info, err := os.Stat(f.path)
	stamp := stampOf(info)
	if err == nil && f.present && !full && !f.confirm && f.writing.IsZero() && stamp == f.stamp && f.broken == nil {
		return false
	}
	f.confirm = stamp != f.stamp
	f.stamp, f.present = stamp, true
	var text []byte
	writing := false
	if err == nil {
		text, writing, err = readFile(f.path, info)
	}
	if err != nil {
		was := f.broken
		f.broken = &manifest.Error{File: f.name, Reason: unwrapPath(err)}
		f.writing, f.text, f.read, f.wrong = time.Time{}, nil, nil, nil
		return was == nil || *was != *f.broken
	}
	mended := f.broken != nil
	f.broken = nil
	differs := f.read == nil || !bytes.Equal(text, f.text)
	if differs && !f.unfinished(text) {
		f.changed = now
	}
	if !writing {
		f.writing = time.Time{}
	} else if f.writing.IsZero() {
		f.writing = now
	}
	if !differs {
		f.pending = nil
		return mended
	}
	// Until it is closed, the text that counted before does. A start waits for nobody.
	if f.pending = text; writing && (f.read != nil || f.good != nil) && now.Sub(f.changed) < stalled && now.Sub(f.writing) < slowest {
		return mended
	}
	f.text, f.pending = text, nil
	f.read, f.wrong = manifest.Parse(f.name, text)
	return true
}

// unfinished reports whether this is what the file held at the last look, too.
func (f *file) unfinished(text []byte) bool { return f.pending != nil && bytes.Equal(f.pending, text) }

// stampOf returns what differs after each change of a file. Clocks that go back, or times
// that somebody sets, do not matter: nobody can set the time of the last change of an inode.
func stampOf(info fs.FileInfo) any {
	if info == nil {
		return nil
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	type stamp struct {
		dev, ino     uint64
		mode         uint32
		size         int64
		mtime, ctime syscall.Timespec
	}
	return stamp{s.Dev, s.Ino, s.Mode, s.Size, s.Mtim, s.Ctim}
}

// readFile reads a regular file, and reports whether somebody has it open for writing.
func readFile(path string, info fs.FileInfo) (text []byte, writing bool, err error) {
	if err := readable(info); err != nil {
		return nil, false, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, false, err
	}
	defer file.Close()
	if info, err = file.Stat(); err != nil {
		return nil, false, err
	}
	if err := readable(info); err != nil { // another one by now
		return nil, false, err
	}
	writing = openForWriting(file)
	if text, err = io.ReadAll(io.LimitReader(file, maxSize+1)); err != nil {
		return nil, false, err
	}
	if len(text) > maxSize {
		return nil, false, tooLarge(int64(len(text)))
	}
	return text, writing || openForWriting(file), nil
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

// openForWriting reports whether somebody has the file open for writing, as far as this
// can be known: the kernel grants a read lease only if nobody has (fcntl(2)). Without
// CAP_LEASE it does so for the process's own files alone, and network file systems refuse
// leases for reasons of their own.
func openForWriting(file *os.File) bool {
	var fsInfo unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fsInfo); err != nil {
		return false
	}
	switch fsInfo.Type {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC:
		return false
	}
	_, err := unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	if err == nil {
		_, _ = unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return errors.Is(err, unix.EAGAIN)
}
