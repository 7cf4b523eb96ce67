// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// withoutInterest is a revision of Blixt whose maps have this layout, without those
// that tell what is of interest and which flows are in use.
const withoutInterest = "b93b839fe472945a0fa123000fbc7a60b8603171"

// TestUpgradeFromAnEarlierBuild exchanges a program of the same layout that lacks maps
// under traffic of every kind: the built-in loader at once, and bpfman by draining.
func TestUpgradeFromAnEarlierBuild(t *testing.T) {
	_, earlier := lab.Revision(t, withoutInterest)
	t.Run("the built-in loader", func(t *testing.T) {
		w := newTrafficWorld(t, "upgrade-build")
		b, err := w.Standard.Blixt(w.Balancer, earlier, w.Config)
		w.Check(err)
		w.Blixt = b
		w.Check(b.Start())
		c := startTraffic(w)
		c.checkUnharmed("before")
		w.Check(b.Kill())
		b.Binary = labtest.Binary
		w.Check(b.Start())
		if text := "switched 8 links to a new program over the same maps"; !strings.Contains(b.Log(), text) {
			t.Errorf("blixt does not say %q", text)
		}
		c.end("upgraded")
		w.Check(b.Stop())
	})
	t.Run("bpfman", func(t *testing.T) {
		m := labtest.Manage(newTrafficWorld(t, "upgrade-build-2"))
		attachEverywhere(m)
		m.Blixt.Binary = earlier
		m.Check(m.Blixt.Start())
		old := m.Status().Program
		c := startTraffic(m.World)
		c.checkUnharmed("before")
		m.Check(m.Blixt.Kill())
		m.Blixt.Binary = labtest.Binary
		m.Check(m.Blixt.AwaitLog(") drains: it serves the flows that it has", labtest.Patience, m.Blixt.Start))
		c.end("upgraded")
		expireUDP(m, old.ProgramID)
		if e := awaitEnd(m, old.ProgramID); e.Cut == nil || *e.Cut != 0 {
			t.Errorf("status says %+v", e)
		}
		m.Check(m.Blixt.Stop())
		m.CheckNothingLeft()
	})
}
