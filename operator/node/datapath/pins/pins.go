// SPDX-License-Identifier: Apache-2.0

// Package pins makes maps for the tests of those who write them: the real ones
// of the embedded object, pinned as bpfman pins them, without a program.
package pins

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// Make pins maps on a BPF file system of the test's own, which only its thread
// and the processes that it starts see. A group may read and write them.
// Returns the directory, beside which one named root is closed to the group.
func Make(t testing.TB, group int) string {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the mount namespace ends with the thread
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatalf("mounting needs root: %v", err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	mount := t.TempDir()
	must(os.Chmod(filepath.Dir(mount), 0o711))
	must(unix.Mount("bpf", mount, "bpf", 0, "mode=0711"))
	t.Cleanup(func() { _ = unix.Unmount(mount, unix.MNT_DETACH) })
	dir := filepath.Join(mount, "maps")
	must(os.Mkdir(filepath.Join(mount, "root"), 0o700))
	must(os.Mkdir(dir, 0o750))
	must(os.Chown(dir, 0, group))
	must(os.Chmod(dir, 0o750)) // whatever the umask
	spec, err := bpf.LoadBlixt()
	must(err)
	for name, s := range spec.Maps {
		m, err := ebpf.NewMap(s)
		must(err)
		t.Cleanup(func() { m.Close() })
		path := filepath.Join(dir, name)
		must(m.Pin(path))
		must(os.Chown(path, 0, group))
		must(os.Chmod(path, 0o660))
	}
	return dir
}
