// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// TestProgramThatSomebodyUnloadsIsLoadedAgain goes behind Blixt's back.
func TestProgramThatSomebodyUnloadsIsLoadedAgain(t *testing.T) {
	m := newManaged(t, "unload", 2)
	m.check(m.blixt.Start())
	m.carries()
	for range 2 {
		old := m.status().Program
		m.check(m.blixt.AwaitLog("INFO serving", 2*patience, func() error {
			_, err := m.bpfman.Run("unload", fmt.Sprint(old.ProgramID))
			return err
		}))
		if text := fmt.Sprintf("program %d is gone, somebody had bpfman unload it", old.ProgramID); strings.Count(m.blixt.Log(), text) != 1 {
			t.Errorf("blixt does not say once: %s", text)
		}
		m.carries()
		m.chain("loaded again", m.status().Program.ProgramID)
	}
	program := m.status().Program
	for _, l := range program.Links[:2] {
		_, err := m.bpfman.Run("detach", fmt.Sprint(l.ID))
		m.check(err)
	}
	m.check(lab.Eventually(2*patience, func() error {
		if n := len(m.status().Program.Links); n != 4 {
			return fmt.Errorf("%d links", n)
		}
		return nil
	}))
	m.carries()
	m.chain("attached again", program.ProgramID)
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
