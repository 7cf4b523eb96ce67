// SPDX-License-Identifier: Apache-2.0

package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// pinner is a map, a program or a link.
type pinner interface {
	Pin(path string) error
	Unpin() error
}

// repin pins again what somebody has unpinned: it would end with this process, and
// nobody would find it. It returns a message about that.
func (l *Loader) repin() (found []string, err error) {
	missing := map[string]pinner{}
	links, err := pinnedIn(filepath.Join(l.dir, "links"))
	if err != nil {
		return nil, err
	}
	for k, a := range l.links {
		if !links[k.String()] {
			missing[a.path] = a.link
		}
	}
	tables, err := pinnedIn(l.Dir())
	if err != nil {
		return nil, err
	}
	for name, m := range l.maps {
		if !tables[name] {
			missing[filepath.Join(l.Dir(), name)] = m
		}
	}
	programs, err := l.programPins()
	if err != nil {
		return nil, err
	}
	if len(programs) == 0 {
		spec, err := l.options.spec()
		if err != nil {
			return nil, err
		}
		missing[filepath.Join(l.dir, programPrefix+fingerprint(spec, l.program))] = l.program
	}
	if len(missing) == 0 {
		return nil, nil
	}
	if _, err := mountBPFFS(l.options.BPFFS); err != nil {
		return nil, err
	}
	for path, p := range missing {
		// A library remembers where it has pinned it.
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), p.Unpin(), p.Pin(path)); err != nil {
			return nil, fmt.Errorf("pin %s again: %w", path, err)
		}
	}
	return []string{fmt.Sprintf("somebody has removed %d pins below %s: they are there again", len(missing), l.dir)}, l.permit()
}

// pinnedIn returns the names of what is pinned in a directory.
func pinnedIn(dir string) (map[string]bool, error) {
	names := map[string]bool{}
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return names, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("read pin directory: %w", err)
	}
	for _, name := range all {
		names[name] = true
	}
	return names, nil
}
