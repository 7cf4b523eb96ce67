// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// nobody is the user and group of a writer of maps.
const nobody = 65532

// writerOf is set in the process that has no privilege: what it is to write to.
const writerOf = "BLIXT_TEST_WRITER"

// TestBpfmanMapsNeedNoPrivilege has bpfman's maps written by a process without
// any: root only gives them to its group.
func TestBpfmanMapsNeedNoPrivilege(t *testing.T) {
	m := newManaged(t, "bpfman-writer", 2)
	m.check(m.blixt.Start())
	dir := m.status().Program.Dir
	m.check(m.blixt.Kill()) // else it would put right what another writes
	outside := m.bpfman.Path(dir)
	pins, err := filepath.Glob(filepath.Join(outside, "*"))
	m.check(err)
	for _, pin := range pins {
		info, err := os.Stat(pin)
		m.check(err)
		if mode := info.Mode().Perm(); mode != 0o660 {
			t.Errorf("bpfman pins %s with mode %o, want 660", filepath.Base(pin), mode)
		}
		m.check(os.Chown(pin, 0, nobody))
	}
	for path := outside; path != m.bpfman.Path("/run"); path = filepath.Dir(path) {
		m.check(os.Chown(path, 0, nobody))
	}

	m.runWriter(m.bpfman.Via(), dir)
	for _, family := range []int{4, 6} { // what it wrote is what packets meet
		for range 10 {
			if name, err := m.answerer(vip(family, 80)); name != "backend-2" {
				t.Fatalf("%s answers: %v", name, err)
			}
		}
	}
	m.check(m.blixt.Start())
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// runWriter writes a state into the maps of a directory by a process without
// any privilege, which sees files as a command run by via does.
func (w *world) runWriter(via []string, dir string) {
	w.Helper()
	self, err := os.Open("/proc/self/exe") // its directory is root's
	w.check(err)
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

// write is what the process without privilege does.
func write(dir string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65532\t65532\t65532\t65532"} {
		if !strings.Contains(string(status), want) {
			return fmt.Errorf("not as it should be: no %q in\n%s", want, status)
		}
	}
	maps, err := datapath.Open(dir)
	if err != nil {
		return err
	}
	defer maps.Close()
	var s lb.State
	for vip, backend := range map[string]string{"198.51.100.10": "10.77.0.12", "2001:db8:100::10": "fd77::12"} {
		s.Addresses = append(s.Addresses, lb.Address{IP: netip.MustParseAddr(vip), Exclusive: true})
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			s.Frontends = append(s.Frontends, lb.Frontend{
				Addr: netip.MustParseAddr(vip), Port: 80, Protocol: protocol,
				IdleTimeout: lb.DefaultIdleTimeout(protocol),
				Backends:    []lb.Backend{{Addr: netip.AddrPortFrom(netip.MustParseAddr(backend), 8080), Weight: lb.WeightUnit}},
			})
		}
	}
	a := writer.New(maps, writer.Options{})
	if _, err := a.Apply(context.Background(), s); err != nil {
		return err
	}
	if _, err := a.Sweep(context.Background()); err != nil {
		return err
	}
	_, err = a.Status()
	return err
}
