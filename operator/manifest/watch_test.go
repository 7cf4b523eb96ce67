// SPDX-License-Identifier: Apache-2.0

package manifest

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// watched is a directory under watch, read at each call as a caller would.
type watched struct {
	t     *testing.T
	dir   string
	reads chan string // the content of a.yaml, or the error
	count atomic.Int32
}

func startWatch(t *testing.T, dir string) *watched {
	t.Helper()
	w := &watched{t: t, dir: dir, reads: make(chan string, 1000)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, dir, func() {
			w.count.Add(1)
			text, err := os.ReadFile(filepath.Join(dir, "a.yaml"))
			if err != nil {
				text = []byte(unwrapPath(err))
			}
			w.reads <- string(text)
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("watch: %v", err)
		}
	})
	return w
}

// expect waits until the content was read, and returns how long that took.
func (w *watched) expect(want string) time.Duration {
	w.t.Helper()
	begin := time.Now()
	deadline := time.After(5 * time.Second)
	var seen []string
	for {
		select {
		case got := <-w.reads:
			if got == want {
				return time.Since(begin)
			}
			seen = append(seen, got)
		case <-deadline:
			w.t.Fatalf("read %q, want %q", seen, want)
		}
	}
}

func (w *watched) path(name string) string { return filepath.Join(w.dir, name) }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWatch_CallsWhenReady(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", "one"))
	w.expect("one")
}

func TestWatch_WriteRenameRemove(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", "one"))
	w.expect("one")

	put(t, w.path("a.yaml"), "two")
	w.expect("two")

	put(t, w.path("a.yaml.tmp"), "three") // as careful editors do
	must(t, os.Rename(w.path("a.yaml.tmp"), w.path("a.yaml")))
	w.expect("three")

	must(t, os.Remove(w.path("a.yaml")))
	w.expect("open: no such file or directory")

	put(t, w.path("a.yaml"), "four")
	w.expect("four")
}

func TestWatch_IsQuick(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", "zero"))
	w.expect("zero")
	w.expectQuick()
}

// expectQuick asks for one in five changes to be seen at once, as a loaded
// machine may stumble, and long before the patrol would see all of them.
func (w *watched) expectQuick() {
	w.t.Helper()
	best := time.Hour
	for _, text := range []string{"1", "2", "3", "4", "5"} {
		put(w.t, w.path("a.yaml"), text)
		best = min(best, w.expect(text))
	}
	if best > 100*time.Millisecond {
		w.t.Errorf("the quickest of five changes was seen after %v, want 100 ms at most", best)
	}
}

func TestWatch_TruncatedThenCompleted(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", "one"))
	w.expect("one")
	f, err := os.Create(w.path("a.yaml"))
	must(t, err)
	defer f.Close()
	for _, part := range []string{"t", "w", "o"} {
		time.Sleep(3 * time.Millisecond)
		if _, err := f.WriteString(part); err != nil {
			t.Fatal(err)
		}
	}
	w.expect("two")
}

// Kubernetes swaps a symlink: a.yaml -> ..data/a.yaml, ..data -> ..2026.
func TestWatch_ConfigMapSwap(t *testing.T) {
	dir := t.TempDir()
	for _, generation := range []string{"one", "two"} {
		must(t, os.Mkdir(filepath.Join(dir, ".."+generation), 0o755))
		put(t, filepath.Join(dir, ".."+generation, "a.yaml"), generation)
	}
	must(t, os.Symlink("..one", filepath.Join(dir, "..data")))
	must(t, os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")))
	w := startWatch(t, dir)
	w.expect("one")
	must(t, os.Symlink("..two", w.path("..data_tmp")))
	must(t, os.Rename(w.path("..data_tmp"), w.path("..data")))
	w.expect("two")
}

func TestWatch_DirectoryReplaced(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "conf")
	must(t, os.Mkdir(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), "one")
	w := startWatch(t, dir)
	w.expect("one")

	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), "two")
	w.expect("two")

	must(t, os.Rename(dir, dir+".old"))
	must(t, os.Mkdir(dir+".new", 0o755))
	put(t, filepath.Join(dir+".new", "a.yaml"), "three")
	must(t, os.Rename(dir+".new", dir))
	w.expect("three")

	w.expectQuick() // the new directory is watched, too
	put(t, filepath.Join(dir+".old", "a.yaml"), "stale")
	put(t, w.path("a.yaml"), "five")
	w.expect("five")
}

func TestWatch_DirectoryIsASymlink(t *testing.T) {
	parent := t.TempDir()
	for _, release := range []string{"one", "two"} {
		must(t, os.Mkdir(filepath.Join(parent, release), 0o755))
		put(t, filepath.Join(parent, release, "a.yaml"), release)
	}
	dir := filepath.Join(parent, "current")
	must(t, os.Symlink("one", dir))
	w := startWatch(t, dir)
	w.expect("one")
	must(t, os.Symlink("two", dir+".tmp"))
	must(t, os.Rename(dir+".tmp", dir))
	w.expect("two")
	w.expectQuick()
}

// No event tells of these; the patrol does.
func TestWatch_SymlinkTargetElsewhere(t *testing.T) {
	elsewhere := write(t, "real.yaml", "one")
	dir := t.TempDir()
	must(t, os.Symlink(filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "a.yaml")))
	w := startWatch(t, dir)
	w.expect("one")
	put(t, filepath.Join(elsewhere, "real.yaml"), "second")
	w.expect("second")
}

func TestWatch_AncestorReplaced(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "conf")
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), "one")
	w := startWatch(t, dir)
	w.expect("one")
	must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "old")))
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), "two")
	w.expect("two")
	w.expectQuick()
}

// A change while the caller reads is not lost, however the two meet.
func TestWatch_MissesNothing(t *testing.T) {
	dir := write(t, "a.yaml", "start")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last atomic.Value
	var rounds atomic.Int32
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, dir, func() {
			text, _ := os.ReadFile(filepath.Join(dir, "a.yaml"))
			if rounds.Add(1)%3 == 0 { // a change between reading and returning
				time.Sleep(5 * time.Millisecond)
			}
			last.Store(string(text))
		})
	}()
	for i := range 200 {
		want := string(rune('a'+i%26)) + time.Now().String()
		put(t, filepath.Join(dir, "a.tmp"), want)
		must(t, os.Rename(filepath.Join(dir, "a.tmp"), filepath.Join(dir, "a.yaml")))
		if i%10 != 0 {
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			continue
		}
		for begin := time.Now(); last.Load() != want; time.Sleep(time.Millisecond) {
			if time.Since(begin) > 5*time.Second {
				t.Fatalf("change %d was missed", i)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWatch_IgnoresWhatEditorsKeepBeside(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", "one"))
	w.expect("one")
	for _, name := range []string{".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", "notes.txt"} {
		put(t, w.path(name), "x")
	}
	time.Sleep(patience + settle + 50*time.Millisecond)
	if n := w.count.Load(); n != 1 {
		t.Errorf("%d calls, want only the first", n)
	}
}

func TestWatch_AbsentDirectory(t *testing.T) {
	if err := Watch(t.Context(), filepath.Join(t.TempDir(), "absent"), func() {}); err == nil {
		t.Error("an absent directory can be watched")
	}
}
