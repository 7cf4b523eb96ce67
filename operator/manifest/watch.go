// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long nothing may happen before a change counts as whole:
	// an editor truncates, writes and renames within this time.
	settle = 15 * time.Millisecond
	// patience ends the wait while something happens all the time.
	patience = 60 * time.Millisecond
	// patrol is how often the directory is compared with what it was, for
	// changes that cause no event: files that are symlinks to elsewhere, a
	// replaced directory further up, an overflow of the kernel's queue.
	patrol = time.Second
)

// Watch calls changed once when it is ready, and from then on after every
// change of dir's manifests, until the context ends. A change that happens
// while changed runs leads to another call, so a caller that reads everything
// in changed misses nothing. Returns an error if dir cannot be watched.
func Watch(ctx context.Context, dir string, changed func()) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find directory: %w", err)
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("create watcher: %w", err)
	}
	defer watcher.Close()
	// The parent tells when the directory itself is replaced.
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := watcher.Add(path); err != nil {
			return fmt.Errorf("watch %s: %w", path, err)
		}
	}
	w := &watch{watcher: watcher, dir: dir, changed: changed}
	w.run(ctx)
	return nil
}

type watch struct {
	watcher *fsnotify.Watcher
	dir     string
	changed func()
	// before is what the directory looked like before the last call.
	before string
}

func (w *watch) run(ctx context.Context) {
	ticker := time.NewTicker(patrol)
	defer ticker.Stop()
	timer := time.NewTimer(0) // the call when ready
	var first time.Time       // of the events since the last call
	wait := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		timer.Reset(min(settle, patience-now.Sub(first)))
	}
	for {
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case event := <-w.watcher.Events:
			if event.Name == w.dir && !event.Has(fsnotify.Write|fsnotify.Chmod) {
				w.rearm()
				wait()
			} else if w.concerns(event.Name) {
				wait()
			}
		case err := <-w.watcher.Errors:
			_ = err // whatever went wrong, such as a full queue, anything may have changed
			w.rearm()
			wait()
		case <-ticker.C:
			if w.before != fingerprint(w.dir) {
				w.rearm()
				wait()
			}
		case <-timer.C:
			first = time.Time{}
			w.before = fingerprint(w.dir)
			w.changed()
		}
	}
}

// rearm watches what the directory's name, and its parent's, means now.
func (w *watch) rearm() {
	// The directory comes last: if it is replaced meanwhile, its parent tells.
	for _, path := range []string{filepath.Dir(w.dir), w.dir} {
		_ = w.watcher.Remove(path) // it may be gone already
		_ = w.watcher.Add(path)    // it may not be back yet
	}
}

// concerns leaves out editors' files, so that typing causes no reload.
func (w *watch) concerns(path string) bool {
	name := filepath.Base(path)
	return filepath.Dir(path) == w.dir && (isManifest(name) || name == "..data")
}

// fingerprint changes when a manifest does, or what its name leads to.
func fingerprint(dir string) string {
	var b strings.Builder
	if info, err := os.Stat(dir); err == nil {
		fmt.Fprintf(&b, "%v;", identity(info))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err.Error()
	}
	for _, entry := range entries {
		if isManifest(entry.Name()) {
			if info, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil {
				fmt.Fprintf(&b, "%s %v %d %s;", entry.Name(), identity(info), info.Size(), info.ModTime())
			}
		}
	}
	return b.String()
}
