// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestUpgradeThatFailsLeavesTheOldOneServing tries upgrades that have to fail.
func TestUpgradeThatFailsLeavesTheOldOneServing(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-fail", 2)
	m.Check(m.Blixt.Start())
	clients := m.StartClients(20, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	old := m.Status().Program
	broken := filepath.Join(m.Dir(), "broken.o")
	m.Check(os.WriteFile(broken, breakObject(t), 0o644))
	for _, c := range []struct {
		name string
		args []string
		says string
	}{
		{"the verifier refuses it", []string{"--bytecode", broken}, "bpfman: load "},
		{"the verifier refuses it, told to replace", []string{"--replace", "--bytecode", broken}, "bpfman: load "},
		{"before the old one", []string{"--priority", "49"}, "whose flows it would break: give it the --priority of that one"},
		{"ports for one", []string{"--snat-ports", "2000-2000"}, "--snat-ports 2000-2000: want at least two ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
			m.Check(m.Blixt.Kill())
			setVersion(m, 32768, c.args...)
			m.CheckRefused(m.Blixt.Start(), c.says)
			clients.CheckUnharmed(c.name)
			m.CheckChain(c.name, old.ProgramID)
			setVersion(m, 65536)
			m.Check(m.Blixt.Start())
			m.CheckCarries()
			if now := readHandover(m); now.Program.ProgramID != old.ProgramID || len(now.Older) > 0 {
				t.Errorf("%+v was replaced by %+v", old, now.Program)
			}
		})
	}
	clients.Close() // a later question would be a new flow, which CheckCarries would count
	t.Run("told to replace", func(t *testing.T) {
		m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
		m.Check(m.Blixt.Kill())
		setVersion(m, 32768, "--replace")
		m.Check(m.Blixt.Start())
		if !strings.Contains(m.Blixt.Log(), fmt.Sprintf("bpfman unloaded program %d of this name (%s): it is replaced, ", old.ProgramID, old.Digest)) {
			t.Error("blixt does not say that it replaced one")
		}
		m.CheckCarries()
	})
	t.Run("told to go back", func(t *testing.T) {
		m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
		upgrade(m, 16384)
		before := readHandover(m)
		m.Check(m.Blixt.Kill())
		setVersion(m, 32768, "--replace")
		m.Check(m.Blixt.Start())
		if now := readHandover(m); len(before.Older) != 1 || now.Program.ProgramID != before.Older[0].Program || now.Draining || len(now.Older) > 0 {
			t.Errorf("from %+v back to %+v", before.Older, now.Program)
		}
		m.CheckCarries()
	})
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// breakObject returns the object with a program that exits without a return value,
// which the verifier rejects.
func breakObject(t *testing.T) []byte {
	object := bytes.Clone(bpf.Object())
	file, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	const exit = 0x95
	copy(object[file.Section("classifier").Offset:], []byte{exit, 0, 0, 0, 0, 0, 0, 0})
	return object
}
