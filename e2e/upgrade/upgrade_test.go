// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package upgrade

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestUpgradeBreaksNoConnection upgrades with 1,000 connections in use, kills Blixt
// while it drains, and upgrades again.
func TestUpgradeBreaksNoConnection(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade", 3)
	_, err := m.Balancer.ServeBoth(m.Balancer.Name, 8080) // a backend that sees the client's address
	m.Check(err)
	m.Config = labtest.ConfigOf(map[int][]lab.Endpoint{80: lab.Endpoints(8080, append(m.Backends, m.Balancer)...)})
	m.Check(m.Config.Write(m.Blixt.Dir))
	m.Check(m.Blixt.Start())
	first := readHandover(m)
	tcp := m.StartClients(1000, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	udp := m.StartClients(20, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	flood := startStream(m.World, m.Client, labtest.VIP(4, 80), 0)
	tcp.CheckUnharmed("before")
	if with := tcp.ByServer(); len(with) != 4 {
		t.Errorf("connections are with %v", with)
	}

	arrivals := startNewcomers(m.Client, labtest.VIP(6, 80))
	upgrade(m, 32768)
	arrivals.end(m.World)
	second := readHandover(m)
	if first.Program.Digest == second.Program.Digest || first.SNAT != alone[0] || second.SNAT != ends[1] {
		t.Errorf("program %s with ports %s, then %s with %s", first.Program.Digest, first.SNAT, second.Program.Digest, second.SNAT)
	}
	if o := second.Older; len(o) != 1 || o[0].Program != first.Program.ProgramID || o[0].Digest != first.Program.Digest ||
		o[0].Flows == nil || *o[0].Flows < 1000 || o[0].Until.Sub(o[0].Since) != time.Hour {
		t.Fatalf("status says of the older program: %+v", o)
	}
	text, err := m.Blixt.Run("status")
	m.Check(err)
	if !strings.Contains(text, fmt.Sprintf("Before it, program %d (%s), 1", first.Program.ProgramID, first.Program.Digest)) {
		t.Errorf("status prints\n%s", text)
	}
	m.CheckChain("drains", first.Program.ProgramID, second.Program.ProgramID)
	before := readCounter(m, first.Program.ProgramID, "forwarded")
	fresh := readCounter(m, first.Program.ProgramID, "flow_new")
	tcp.CheckUnharmed("upgraded")
	udp.CheckUnharmed("upgraded")
	m.CheckCarries() // all of these are flows of the new program
	if n := readCounter(m, first.Program.ProgramID, "flow_new") - fresh; n != 0 {
		t.Errorf("the program that drains has %d new flows", n)
	}
	if n := readCounter(m, first.Program.ProgramID, "forwarded") - before; n < 2000 {
		t.Errorf("the program that drains has forwarded %d packets", n)
	}

	t.Run("no third version", func(t *testing.T) {
		m := &labtest.Managed{World: m.In(t), Bpfman: m.Bpfman}
		m.Check(m.Blixt.Kill())
		for _, flows := range []int{16384, 65536} { // 65536 is the first version, which drains
			setVersion(m, flows)
			m.CheckRefused(m.Blixt.Start(), "no end of --snat-ports 11000-29999 is free", fmt.Sprintf("program %d of bpfman has ports 11000-23666 and drains, with 1", first.Program.ProgramID),
				"at most until "+second.Older[0].Until.Local().Format(time.DateTime), fmt.Sprintf("program %d of bpfman has ports 23667-29999 and serves", second.Program.ProgramID), "--replace")
		}
		setVersion(m, 32768)
		m.Check(m.Blixt.Start())
		tcp.CheckUnharmed("killed and started again")
		udp.CheckUnharmed("killed and started again")
	})
	third := readHandover(m)
	if third.Program.ProgramID != second.Program.ProgramID || third.SNAT != second.SNAT || len(third.Older) != 1 || !third.Older[0].Since.Equal(second.Older[0].Since) {
		t.Errorf("after a restart status says %+v, older %+v", third.Program, third.Older)
	}
	m.CheckChain("killed and started again", first.Program.ProgramID, second.Program.ProgramID)

	flood.end(m.World)
	udp.Close()
	tcp.Close()
	expireUDP(m, first.Program.ProgramID)
	m.Check(m.Blixt.AwaitLog(fmt.Sprintf("unloaded program %d (%s), its flows have ended", first.Program.ProgramID, first.Program.Digest), 30*time.Second, func() error { return nil }))
	if e := awaitEnd(m, first.Program.ProgramID); e.Cut == nil || *e.Cut != 0 {
		t.Errorf("status says %+v", e)
	}
	m.CheckChain("ended", second.Program.ProgramID)
	m.Check(lab.Eventually(labtest.Patience, func() error {
		if h := readHandover(m); h.SNAT != alone[1] {
			return fmt.Errorf("alone it has ports %s, want %s", h.SNAT, alone[1])
		}
		return nil
	}))
	if got, want := listPrograms(m), []string{fmt.Sprint(second.Program.ProgramID)}; !slices.Equal(got, want) {
		t.Errorf("bpfman lists programs %v, want %v", got, want)
	}

	tcp = m.StartClients(50, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	upgrade(m, 16384)
	tcp.CheckUnharmed("upgraded again")
	m.CheckCarries()
	last := readHandover(m)
	if last.SNAT != ends[0] || len(last.Older) != 1 {
		t.Errorf("the third program has ports %s, older %+v", last.SNAT, last.Older)
	}
	m.CheckChain("upgraded again", second.Program.ProgramID, last.Program.ProgramID)
	m.CheckChecksums()
	tcp.Close()
	m.Check(m.Blixt.Stop()) // while the previous program drains
	m.CheckNothingLeft()
}

// TestUpgradeCanBeKilledAtAnyMoment kills the new version while it starts, later each
// time.
func TestUpgradeCanBeKilledAtAnyMoment(t *testing.T) {
	m := labtest.NewManaged(t, "upgrade-kill", 3)
	m.Check(m.Blixt.Start())
	old := m.Status()
	clients := m.StartClients(60, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	arrivals := startNewcomers(m.Client, labtest.VIP(4, 80))
	m.Check(m.Blixt.Kill())
	setVersion(m, 32768)
	moments := map[string]bool{}
	drains := false
	for after := 20 * time.Millisecond; !drains; after += max(10*time.Millisecond, after/10) {
		args := m.Blixt.Command()
		_, err := m.Balancer.Run(after, args[0], args[1:]...)
		if err == nil || !strings.Contains(err.Error(), "killed") || after > 4*labtest.Patience {
			t.Fatalf("%s: %v", after, err)
		}
		list, err := m.Bpfman.Run("list", "links")
		m.Check(err)
		h, err := datapath.ReadHandover(mapsDir(m, old.Program.ProgramID))
		m.Check(err)
		drains = h.Draining
		moments[fmt.Sprintf("%d links, draining %v", strings.Count(list, "gress"), drains)] = true
	}
	t.Logf("killed with %v", slices.Sorted(maps.Keys(moments)))
	m.Check(m.Blixt.Start())
	clients.CheckUnharmed("killed many times")
	now := readHandover(m)
	if len(now.Older) != 1 || now.Older[0].Program != old.Program.ProgramID || now.SNAT != ends[1] {
		t.Errorf("status says %+v, ports %s", now.Older, now.SNAT)
	}
	m.CheckChain("killed many times", old.Program.ProgramID, now.Program.ProgramID)
	arrivals.end(m.World)
	m.CheckCarries()
	clients.Stop()
	m.Check(m.Blixt.Stop())
	m.CheckNothingLeft()
}
