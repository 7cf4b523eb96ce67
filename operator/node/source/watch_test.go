// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// write makes a directory of files, given as name and text in turn.
func write(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		put(t, filepath.Join(dir, files[i]), files[i+1])
	}
	return dir
}

// object is a manifest that says only a word.
func object(word string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: x, annotations: {says: %q}}\n", word)
}

// words looks, and returns what the objects say, in order.
func words(t *testing.T, s *Source) string {
	t.Helper()
	s.mu.Lock()
	s.look(false)
	s.mu.Unlock()
	return said(s)
}

// said returns what the objects said at the last look.
func said(s *Source) string {
	result, err := s.Read()
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, n := range result.Set().Objects.Namespaces {
		all = append(all, n.Annotations["says"])
	}
	return strings.Join(all, " ")
}

func open(t *testing.T, o Options) *Source {
	t.Helper()
	s, err := Open(o)
	must(t, err)
	t.Cleanup(s.Close)
	return s
}

// watched is a directory under watch, read at each call as a caller would.
type watched struct {
	t      *testing.T
	source *Source
	dir    string
	reads  chan string // the content of a.yaml, or the error
	count  atomic.Int32
}

func startWatch(t *testing.T, dir string) *watched {
	t.Helper()
	w := &watched{t: t, dir: dir, reads: make(chan string, 1000), source: open(t, Options{Paths: []string{dir}})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.source.Watch(ctx, func() {
			w.count.Add(1)
			w.reads <- said(w.source)
		}, func(string, error) {})
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return w
}

// expect waits until the content was read, and returns how long that took.
func (w *watched) expect(want string) time.Duration {
	w.t.Helper()
	begin := time.Now()
	deadline := time.After(time.Minute)
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
	w := startWatch(t, write(t, "a.yaml", object("one")))
	w.expect("one")
}

func TestWatch_WriteRenameRemove(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", object("one")))
	w.expect("one")

	put(t, w.path("a.yaml"), object("two"))
	w.expect("two")

	put(t, w.path("a.yaml.tmp"), object("three")) // as careful editors do
	must(t, os.Rename(w.path("a.yaml.tmp"), w.path("a.yaml")))
	w.expect("three")

	put(t, w.path("b.yaml"), "# nothing\n")
	must(t, os.Remove(w.path("a.yaml")))
	w.expect("")

	put(t, w.path("a.yaml"), object("four"))
	w.expect("four")
}

func TestWatch_IsQuick(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", object("zero")))
	w.expect("zero")
	w.expectQuick()
}

// expectQuick asks for one in five changes to be seen at once, as a loaded
// machine may stumble, and long before the patrol would see all of them.
func (w *watched) expectQuick() {
	w.t.Helper()
	best := time.Hour
	for _, text := range []string{"1", "2", "3", "4", "5"} {
		put(w.t, w.path("a.yaml"), object(text))
		best = min(best, w.expect(text))
	}
	if best > 100*time.Millisecond {
		w.t.Errorf("the quickest of five changes was seen after %v, want 100 ms at most", best)
	}
}

// Kubernetes swaps a symlink: a.yaml -> ..data/a.yaml, ..data -> ..2026.
func TestWatch_ConfigMapSwap(t *testing.T) {
	dir := t.TempDir()
	for _, generation := range []string{"one", "two"} {
		must(t, os.Mkdir(filepath.Join(dir, ".."+generation), 0o755))
		put(t, filepath.Join(dir, ".."+generation, "a.yaml"), object(generation))
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
	put(t, filepath.Join(dir, "a.yaml"), object("one"))
	w := startWatch(t, dir)
	w.expect("one")

	must(t, os.RemoveAll(dir))
	must(t, os.Mkdir(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), object("two"))
	w.expect("two")

	must(t, os.Rename(dir, dir+".old"))
	must(t, os.Mkdir(dir+".new", 0o755))
	put(t, filepath.Join(dir+".new", "a.yaml"), object("three"))
	must(t, os.Rename(dir+".new", dir))
	w.expect("three")

	w.expectQuick() // the new directory is watched, too
	put(t, filepath.Join(dir+".old", "a.yaml"), object("stale"))
	put(t, w.path("a.yaml"), object("five"))
	w.expect("five")
}

func TestWatch_DirectoryIsASymlink(t *testing.T) {
	parent := t.TempDir()
	for _, release := range []string{"one", "two"} {
		must(t, os.Mkdir(filepath.Join(parent, release), 0o755))
		put(t, filepath.Join(parent, release, "a.yaml"), object(release))
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
	elsewhere := write(t, "real.yaml", object("one"))
	dir := t.TempDir()
	must(t, os.Symlink(filepath.Join(elsewhere, "real.yaml"), filepath.Join(dir, "a.yaml")))
	w := startWatch(t, dir)
	w.expect("one")
	put(t, filepath.Join(elsewhere, "real.yaml"), object("second"))
	w.expect("second")
}

func TestWatch_AncestorReplaced(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b", "conf")
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), object("one"))
	w := startWatch(t, dir)
	w.expect("one")
	must(t, os.Rename(filepath.Join(root, "a"), filepath.Join(root, "old")))
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "a.yaml"), object("two"))
	w.expect("two")
	w.expectQuick()
}

// A change while the caller reads is not lost, however the two meet.
func TestWatch_MissesNothing(t *testing.T) {
	dir := write(t, "a.yaml", object("start"))
	source := open(t, Options{Paths: []string{dir}})
	ctx, cancel := context.WithCancel(t.Context())
	var last atomic.Value
	var rounds atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		source.Watch(ctx, func() {
			says := said(source)
			if rounds.Add(1)%3 == 0 { // a change between reading and returning
				time.Sleep(5 * time.Millisecond)
			}
			last.Store(says)
		}, func(string, error) {})
	}()
	defer func() {
		cancel()
		<-done
	}()
	for i := range 200 {
		want := fmt.Sprint("word", i)
		put(t, filepath.Join(dir, "a.tmp"), object(want))
		must(t, os.Rename(filepath.Join(dir, "a.tmp"), filepath.Join(dir, "a.yaml")))
		if i%10 != 0 {
			time.Sleep(time.Duration(i%7) * time.Millisecond)
			continue
		}
		for begin := time.Now(); last.Load() != want; time.Sleep(time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatalf("change %d was missed", i)
			}
		}
	}
}

func TestWatch_IgnoresWhatEditorsKeepBeside(t *testing.T) {
	w := startWatch(t, write(t, "a.yaml", object("one")))
	w.expect("one")
	for _, name := range []string{".a.yaml.swp", "a.yaml~", "#a.yaml#", "4913", "notes.txt"} {
		put(t, w.path(name), object("x"))
	}
	time.Sleep(patience + calm + 50*time.Millisecond)
	if n := w.count.Load(); n != 1 {
		t.Errorf("%d calls, want only the first", n)
	}
}

// Without inotify, changes are seen a second later, and that is said once; with it again,
// they are seen at once.
func TestWatch_WithoutInotify(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	newWatcher = func() (*fsnotify.Watcher, error) {
		if broken.Load() {
			return nil, unix.EMFILE
		}
		return fsnotify.NewWatcher()
	}
	failures := make(chan error, 100)
	dir := write(t, "a.yaml", object("one"))
	w := &watched{t: t, dir: dir, reads: make(chan string, 1000), source: open(t, Options{Paths: []string{dir}})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.source.Watch(ctx, func() { w.reads <- said(w.source) }, func(subject string, err error) {
			if subject == "inotify" {
				select {
				case failures <- err:
				default:
				}
			}
		})
	}()
	defer func() {
		cancel()
		<-done
		newWatcher = fsnotify.NewWatcher
	}()
	w.expect("one")
	if err := <-failures; err == nil || !strings.Contains(err.Error(), "raise fs.inotify.max_user_") {
		t.Errorf("without inotify it says %v", err)
	}
	put(t, w.path("a.yaml"), object("two"))
	w.expect("two")
	must(t, os.Remove(w.path("a.yaml")))
	put(t, w.path("b.yaml"), object("three"))
	w.expect("three")
	must(t, os.Rename(w.path("b.yaml"), w.path("a.yaml")))
	put(t, w.path("a.yaml"), object("four"))
	w.expect("four")
	broken.Store(false)
	for err := range failures {
		if err == nil {
			break
		}
	}
	w.expectQuick()
}
