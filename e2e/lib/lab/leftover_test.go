// SPDX-License-Identifier: Apache-2.0

package lab_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/loader"
)

// TestNextLabRemovesWhatAKilledOneLeft also checks that nothing is removed of a lab
// whose name only begins alike.
func TestNextLabRemovesWhatAKilledOneLeft(t *testing.T) {
	const name = "blixt-e2e-leftover"
	other, err := lab.New(name + "-other") // without it nobody has mounted what pins lie on
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	paths := func(name string) []string {
		return []string{
			filepath.Join(loader.DefaultRunDir, name+".bpfman.json"),
			filepath.Join(os.TempDir(), name+".123"),
			lab.Pins(name),
		}
	}
	if err := os.MkdirAll(loader.DefaultRunDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(paths(name), paths(name+"-other")...) {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
	}
	l, err := lab.New(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range paths(name) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	for _, path := range paths(name + "-other") {
		if _, err := os.Stat(path); err != nil {
			t.Errorf("another's is gone: %v", err)
		}
	}
}

// TestLabsShareABPFFileSystem checks that the first lab mounts one where the machine
// has none, as without systemd, and the last lab unmounts it. The machine's own stays.
func TestLabsShareABPFFileSystem(t *testing.T) {
	runtime.LockOSThread() // never unlocked: the mount namespace ends with the thread
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(unix.Unshare(unix.CLONE_NEWNS))
	check(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	for unix.Unmount(loader.DefaultBPFFS, unix.MNT_DETACH) == nil { // however many lie on each other
	}
	check(unix.Mount("tmpfs", "/run/lock", "tmpfs", 0, "")) // labs elsewhere have their own
	mounts := func() (n int) {
		table, err := os.ReadFile("/proc/thread-self/mountinfo")
		check(err)
		return strings.Count(string(table), " "+loader.DefaultBPFFS+" ")
	}
	want := func(when string, want int) {
		t.Helper()
		if got := mounts(); got != want {
			t.Errorf("%s %d file systems are mounted at %s, want %d", when, got, loader.DefaultBPFFS, want)
		}
	}
	start := func(name string) *lab.Lab {
		t.Helper()
		l, err := lab.New("blixt-e2e-bpffs-" + name)
		check(err)
		return l
	}
	first, second := start("1"), start("2")
	want("with two labs", 1)
	check(first.Close())
	want("when one has ended", 1)
	pin := filepath.Join(loader.DefaultBPFFS, "somebody's")
	check(os.Mkdir(pin, 0o700))
	check(second.Close())
	want("while somebody else has pinned", 1)
	check(os.Remove(pin))
	check(start("3").Close()) // as after a run that was killed
	want("in the end", 0)
	check(unix.Mount("bpf", loader.DefaultBPFFS, "bpf", 0, ""))
	check(start("4").Close())
	want("when the machine has one", 1)
}
