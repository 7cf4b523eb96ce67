// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/e2e/lib/umask"
)

// TestBpfmanMapsNeedNoPrivilege has a process without privileges write bpfman's maps:
// root only gives them to its group.
func TestBpfmanMapsNeedNoPrivilege(t *testing.T) {
	m := labtest.NewManaged(t, "bpfman-writer", 2)
	m.Check(m.Blixt.Start())
	dir := m.Status().Program.Dir
	m.Check(m.Blixt.Kill()) // it would undo what another process writes
	outside := m.Bpfman.Path(dir)
	pins, err := filepath.Glob(filepath.Join(outside, "*"))
	m.Check(err)
	for _, pin := range pins {
		info, err := os.Stat(pin)
		m.Check(err)
		if mode := info.Mode().Perm(); mode != 0o660 {
			t.Errorf("bpfman pins %s with mode %o, want 660", filepath.Base(pin), mode)
		}
		m.Check(os.Chown(pin, 0, nobody))
	}
	for path := outside; path != m.Bpfman.Path("/run"); path = filepath.Dir(path) {
		m.Check(os.Chown(path, 0, nobody))
	}

	runWriter(m.World, m.Bpfman.Via(), dir)
	for _, family := range []int{4, 6} { // packets see what was written
		for range 10 {
			if name, err := m.Answerer(labtest.VIP(family, 80)); name != "backend-2" {
				t.Fatalf("%s answers: %v", name, err)
			}
		}
	}
	m.Check(m.Blixt.Start())
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// runWriter has a process without privileges write a state into the maps of a
// directory, in the mount namespace of the command via.
func runWriter(w *labtest.World, via []string, dir string) {
	w.Helper()
	umask.Open(w.T)
	self, err := os.Open("/proc/self/exe") // only root can enter its directory
	w.Check(err)
	defer self.Close()
	id := fmt.Sprint(nobody)
	args := slices.Concat(via, []string{
		"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs",
		"--inh-caps=-all", "--bounding-set=-all", "env", writerOf + "=" + dir, "/proc/self/fd/3",
	})
	cmd := exec.Command(args[0], args[1:]...)
	cmd.ExtraFiles = []*os.File{self}
	if out, err := cmd.CombinedOutput(); err != nil {
		w.Fatalf("%v\n%s", err, out)
	}
}
