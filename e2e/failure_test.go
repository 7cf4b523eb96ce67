// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"bytes"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// TestUpgradeThatFailsLeavesTheOldOneServing tries what cannot be.
func TestUpgradeThatFailsLeavesTheOldOneServing(t *testing.T) {
	m := newManaged(t, "upgrade-fail", 2)
	m.check(m.blixt.Start())
	crowd := m.newCrowd(20, "tcp", vip(4, 80), vip(6, 80))
	old := m.status().Program
	broken := filepath.Join(m.Dir(), "broken.o")
	m.check(os.WriteFile(broken, breakObject(t), 0o644))
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
			m := &managed{world: m.in(t), bpfman: m.bpfman}
			m.check(m.blixt.Kill())
			m.version(32768, c.args...)
			m.refuses(m.blixt.Start(), c.says)
			crowd.unharmed(c.name)
			m.chain(c.name, old.ProgramID)
			m.version(65536)
			m.check(m.blixt.Start())
			m.carries()
			if now := m.handover(); now.Program.ProgramID != old.ProgramID || len(now.Older) > 0 {
				t.Errorf("%+v was replaced by %+v", old, now.Program)
			}
		})
	}
	crowd.leave() // who asks after that has a new flow, which carries would count
	t.Run("told to replace", func(t *testing.T) {
		m := &managed{world: m.in(t), bpfman: m.bpfman}
		m.check(m.blixt.Kill())
		m.version(32768, "--replace")
		m.check(m.blixt.Start())
		if !strings.Contains(m.blixt.Log(), fmt.Sprintf("bpfman unloaded program %d of this name (%s): it is replaced, ", old.ProgramID, old.Digest)) {
			t.Error("blixt does not say that it replaced one")
		}
		m.carries()
	})
	t.Run("told to go back", func(t *testing.T) {
		m := &managed{world: m.in(t), bpfman: m.bpfman}
		m.upgrade(16384)
		before := m.handover()
		m.check(m.blixt.Kill())
		m.version(32768, "--replace")
		m.check(m.blixt.Start())
		if now := m.handover(); len(before.Older) != 1 || now.Program.ProgramID != before.Older[0].Program || now.Draining || len(now.Older) > 0 {
			t.Errorf("from %+v back to %+v", before.Older, now.Program)
		}
		m.carries()
	})
	m.check(m.blixt.Stop())
	m.nothingLeft()
}

// breakObject returns the data plane with a program that ends without saying how.
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
