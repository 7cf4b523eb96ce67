// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestUpgradeFromLayout1 upgrades from a Blixt whose maps this one cannot read: it
// serves its connections, and the new one serves all others.
func TestUpgradeFromLayout1(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-layout-1", 2)
	_, m.Blixt.Binary = lab.Revision(t, lab.Layout1)
	m.Blixt.Lasting = true // that one has no flags for it
	m.Check(m.Blixt.Start())
	old := m.Status().Program
	tcp := m.StartClients(200, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	udp := m.StartClients(20, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	arrivals := startNewcomers(m.Client, labtest.VIP(6, 80))
	m.Check(m.Blixt.Kill())
	m.Blixt.Binary, m.Blixt.Lasting = labtest.Binary, false

	_, err := datapath.Open(mapsDir(m, old.ProgramID))
	const says = "maps are of layout blixt_layout_1, this program knows blixt_layout_2: use the version of Blixt that belongs to the data plane"
	if err == nil || err.Error() != says {
		t.Errorf("maps of layout 1: error %v, want %q", err, says)
	}
	setVersion(m, 65536, "--drain-timeout", "20s")
	m.Check(m.Blixt.AwaitLog(") drains: it serves the flows that it has", labtest.Patience, m.Blixt.Start))
	h := readHandover(m)
	if len(h.Older) != 1 || h.Older[0].Program != old.ProgramID || h.Older[0].Flows != nil || h.Layout != 2 {
		t.Errorf("status says of the older program: %+v", h.Older)
	}
	if taken, err := datapath.ReadHandover(mapsDir(m, old.ProgramID)); err != nil || !taken.Draining || taken.SNAT.Overlaps(h.SNAT) {
		t.Errorf("the old program has ports %s, the new one %s (%v)", taken.SNAT, h.SNAT, err)
	}
	arrivals.end(m.World)
	tcp.CheckUnharmed("upgraded")
	udp.CheckUnharmed("upgraded")
	m.CheckChain("upgraded", old.ProgramID, h.Program.ProgramID)
	m.CheckCarries()
	tcp.Close()
	udp.Close()
	if e := awaitEnd(m, old.ProgramID); e.Cut != nil {
		t.Errorf("status says %+v, but nobody can know its flows", e)
	}
	m.CheckCarries()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}

// TestUpgradeFromLayout1UnderTraffic upgrades from a Blixt whose maps this one cannot
// read, under traffic of every kind.
func TestUpgradeFromLayout1UnderTraffic(t *testing.T) {
	m := labtest.Manage(newTrafficWorld(t, "upgrade-traffic"))
	attachEverywhere(m)
	_, m.Blixt.Binary = lab.Revision(t, lab.Layout1)
	m.Blixt.Lasting = true
	m.Check(m.Blixt.Start())
	c := startTraffic(m.World)
	c.checkUnharmed("before")
	m.Check(m.Blixt.Kill())
	m.Blixt.Binary, m.Blixt.Lasting = labtest.Binary, false
	m.Check(m.Blixt.AwaitLog(") drains: it serves the flows that it has", labtest.Patience, m.Blixt.Start))
	c.end("upgraded")
}

// attachEverywhere has Blixt choose the interfaces itself.
func attachEverywhere(m *labtest.Managed) {
	m.Blixt.Args = slices.DeleteFunc(m.Blixt.Args, func(arg string) bool { return arg == "--interface" || strings.HasPrefix(arg, "eth") })
}
