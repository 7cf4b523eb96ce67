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
	// settle is the quiet time after which a change counts as complete: an editor
	// truncates, writes and renames within it.
	settle = 15 * time.Millisecond
	// patience bounds the wait if events do not stop.
	patience = 60 * time.Millisecond
	// patrol is the interval at which the directory is compared with its previous
	// state, for changes that cause no event: files that are symlinks to elsewhere, a
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
	// The parent reports when the directory itself is replaced.
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
	// before is the fingerprint of the directory before the last call.
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
			_ = err // after any error, such as a full queue, anything may have changed
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

// rearm watches the directories that now have the names of the directory and its parent.
func (w *watch) rearm() {
	// The directory comes last: if it is replaced meanwhile, its parent reports that.
	for _, path := range []string{filepath.Dir(w.dir), w.dir} {
		_ = w.watcher.Remove(path) // it may be gone already
		_ = w.watcher.Add(path)    // it may not be back yet
	}
}

// concerns reports whether a change of a file counts. Editors' temporary files do not, so
// typing causes no reload.
func (w *watch) concerns(path string) bool {
	name := filepath.Base(path)
	return filepath.Dir(path) == w.dir && (IsManifest(name) || name == "..data")
}

// fingerprint returns a text that changes with every change of a manifest, or of the
// file that its name leads to.
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
		if IsManifest(entry.Name()) {
			if info, err := os.Stat(filepath.Join(dir, entry.Name())); err == nil {
				fmt.Fprintf(&b, "%s %v %d %s;", entry.Name(), identity(info), info.Size(), info.ModTime())
			}
		}
	}
	return b.String()
}
