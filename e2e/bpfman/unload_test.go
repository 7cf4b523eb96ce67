// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package bpfman

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// TestProgramThatSomebodyUnloadsIsLoadedAgain has bpfman unload and detach behind
// Blixt's back.
func TestProgramThatSomebodyUnloadsIsLoadedAgain(t *testing.T) {
	m := labtest.NewManaged(t, "unload", 2)
	m.Check(m.Blixt.Start())
	m.CheckCarries()
	for range 2 {
		old := m.Status().Program
		m.Check(m.Blixt.AwaitLog("INFO serving", 2*labtest.Patience, func() error {
			_, err := m.Bpfman.Run("unload", fmt.Sprint(old.ProgramID))
			return err
		}))
		if text := fmt.Sprintf("program %d is gone, somebody had bpfman unload it", old.ProgramID); strings.Count(m.Blixt.Log(), text) != 1 {
			t.Errorf("blixt does not say once: %s", text)
		}
		m.CheckCarries()
		m.CheckChain("loaded again", m.Status().Program.ProgramID)
	}
	program := m.Status().Program
	for _, l := range program.Links[:2] {
		_, err := m.Bpfman.Run("detach", fmt.Sprint(l.ID))
		m.Check(err)
	}
	m.Check(lab.Eventually(2*labtest.Patience, func() error {
		if n := len(m.Status().Program.Links); n != 4 {
			return fmt.Errorf("%d links", n)
		}
		return nil
	}))
	m.CheckCarries()
	m.CheckChain("attached again", program.ProgramID)
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}
