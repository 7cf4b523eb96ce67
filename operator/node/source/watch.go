// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kubernetes-sigs/blixt/operator/manifest"
)

const (
	// calm is the quiet time after which a change counts as complete: an editor
	// truncates, writes and renames within it.
	calm = 15 * time.Millisecond
	// patience bounds the wait if events do not stop.
	patience = 60 * time.Millisecond
	// patrol is the interval of looks for changes that cause no event: files that are
	// links to elsewhere, a replaced directory further up, an overflow of the kernel's
	// queue, a network file system, no inotify at all.
	patrol = time.Second
	// inspection is the interval of looks that read every file, for file systems whose
	// times are not to be trusted.
	inspection = 2 * time.Minute
)

// Watch calls changed once when it is ready, and from then on after every change of what
// Read returns, until the context ends. A change that happens while changed runs leads to
// another call, so a caller that reads in changed misses nothing. It tells failure, by
// subject, what keeps it from being quick, and nil when that is over.
func (s *Source) Watch(ctx context.Context, changed func(), failure func(subject string, err error)) {
	w := &watch{Source: s, watched: map[string]any{}, failure: failure, events: make(chan fsnotify.Event), errors: make(chan error)}
	defer w.stop()
	w.run(ctx, changed)
}

// newWatcher is replaced by tests.
var newWatcher = fsnotify.NewWatcher

type watch struct {
	*Source
	watcher *fsnotify.Watcher // nil: none can be had
	// watched has what was at each path when the watch began.
	watched map[string]any
	failure func(subject string, err error)
	// events and errors are those of the watcher.
	events chan fsnotify.Event
	errors chan error
}

func (w *watch) run(ctx context.Context, changed func()) {
	ticker := time.NewTicker(patrol)
	defer ticker.Stop()
	inspections := time.NewTicker(inspection)
	defer inspections.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var first time.Time // of the events since the last look
	wait := func() {
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		timer.Reset(min(calm, patience-now.Sub(first)))
	}
	full, ready := false, false
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-w.events:
			if w.concerns(event.Name) {
				wait()
			}
			continue
		case err := <-w.errors:
			_ = err // such as a full queue: anything may have changed
			w.rearm(true)
			wait()
			continue
		case <-inspections.C:
			full = true
			w.store.retry()
		case <-ticker.C:
		case <-timer.C:
		}
		first = time.Time{}
		w.rearm(false)
		w.mu.Lock()
		look := w.look(full)
		again := w.soon()
		w.mu.Unlock()
		w.rearm(false) // directories that are new
		if look || !ready {
			changed()
		}
		full, ready = false, true
		w.failure("state-dir", w.store.err())
		if again > 0 {
			timer.Reset(again)
		}
	}
}

// soon returns when to look again at files that somebody is writing; 0: there are none.
func (s *Source) soon() (d time.Duration) {
	now := time.Now()
	for _, f := range s.files {
		if !f.writing.IsZero() {
			if wait := min(max(now.Sub(f.writing)/4, 20*time.Millisecond), 200*time.Millisecond); d == 0 || wait < d {
				d = wait
			}
		}
	}
	return d
}

// rearm watches the directories that are to be watched, those again that have been
// replaced, and with all, each again. Without inotify the looks go on.
func (w *watch) rearm(all bool) {
	if w.watcher == nil {
		watcher, err := newWatcher()
		if err != nil {
			w.failure("inotify", fmt.Errorf("changes of files are seen a second later: inotify: %w: raise fs.inotify.max_user_instances", err))
			return
		}
		w.watcher, w.events, w.errors = watcher, watcher.Events, watcher.Errors
		clear(w.watched)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var failed error
	for path := range w.watched {
		if _, wanted := w.dirs[path]; !wanted {
			_ = w.watcher.Remove(path) // it may be gone already
			delete(w.watched, path)
		}
	}
	for path := range w.dirs {
		info, err := os.Stat(path)
		if err != nil {
			continue // it is not back yet
		}
		if is := identity(info); all || w.watched[path] != is {
			_ = w.watcher.Remove(path)
			delete(w.watched, path)
			if err := w.watcher.Add(path); err != nil {
				failed = fmt.Errorf("changes of files are seen a second later: watch %s: %w: raise fs.inotify.max_user_watches", path, err)
				continue
			}
			w.watched[path] = is
		}
	}
	w.failure("inotify", failed)
}

func (w *watch) stop() {
	if w.watcher != nil {
		_ = w.watcher.Close()
	}
}

// concerns reports whether a change of a path counts. Editors' temporary files do not, so
// typing causes no look.
func (w *watch) concerns(path string) bool {
	name := filepath.Base(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, is := w.dirs[path]; is {
		return true
	}
	for _, r := range w.roots {
		if path == r.path {
			return true
		}
	}
	_, inside := w.dirs[filepath.Dir(path)]
	return inside && (manifest.IsManifest(name) || name == "..data" || w.recursive && !strings.HasPrefix(name, "."))
}

// identity distinguishes directories of the same name.
func identity(info fs.FileInfo) any {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return [2]uint64{s.Dev, s.Ino}
	}
	return nil
}
