// SPDX-License-Identifier: Apache-2.0

//go:build bpfman

package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestUpgradeBreaksNoConnection upgrades under 1,000 connections in use, kills
// Blixt while it drains, and upgrades again.
func TestUpgradeBreaksNoConnection(t *testing.T) {
	m := newManaged(t, "upgrade", 3)
	_, err := m.Balancer.ServeBoth(m.Balancer.Name, 8080) // one that sees the client's address
	m.check(err)
	m.config = serve(map[int][]lab.Endpoint{80: lab.Endpoints(8080, append(m.Backends, m.Balancer)...)})
	m.check(m.config.Write(m.blixt.Dir))
	m.check(m.blixt.Start())
	first := m.handover()
	tcp := m.newCrowd(1000, "tcp", vip(4, 80), vip(6, 80))
	udp := m.newCrowd(20, "udp", vip(4, 80), vip(6, 80))
	flood := m.newStream(vip(4, 80))
	tcp.unharmed("before")
	if with := tcp.with(); len(with) != 4 {
		t.Errorf("connections are with %v", with)
	}

	arrivals := m.newNewcomers(vip(6, 80))
	m.upgrade(32768)
	arrivals.end(m)
	second := m.handover()
	if first.Program.Digest == second.Program.Digest || first.SNAT != halves[0] || second.SNAT != halves[1] {
		t.Errorf("program %s with ports %s, then %s with %s", first.Program.Digest, first.SNAT, second.Program.Digest, second.SNAT)
	}
	if o := second.Older; len(o) != 1 || o[0].Program != first.Program.ProgramID || o[0].Digest != first.Program.Digest ||
		o[0].Flows == nil || *o[0].Flows < 1000 || o[0].Until.Sub(o[0].Since) != time.Hour {
		t.Fatalf("status says of the older program: %+v", o)
	}
	text, err := m.blixt.Run("status")
	m.check(err)
	if !strings.Contains(text, fmt.Sprintf("Before it, program %d (%s), 1", first.Program.ProgramID, first.Program.Digest)) {
		t.Errorf("status prints\n%s", text)
	}
	m.chain("drains", first.Program.ProgramID, second.Program.ProgramID)
	before := m.counter(first.Program.ProgramID, "forwarded")
	fresh := m.counter(first.Program.ProgramID, "flow_new")
	tcp.unharmed("upgraded")
	udp.unharmed("upgraded")
	m.carries() // all of it is the new program's
	if n := m.counter(first.Program.ProgramID, "flow_new") - fresh; n != 0 {
		t.Errorf("the program that drains has %d new flows", n)
	}
	if n := m.counter(first.Program.ProgramID, "forwarded") - before; n < 2000 {
		t.Errorf("the program that drains has forwarded %d packets", n)
	}

	t.Run("no third version", func(t *testing.T) {
		m := &managed{world: m.in(t), bpfman: m.bpfman}
		m.check(m.blixt.Kill())
		for _, flows := range []int{16384, 65536} { // the first one again, too: it drains
			m.version(flows)
			m.refuses(m.blixt.Start(), "no half of --snat-ports 11000-29999 is free", fmt.Sprintf("program %d of bpfman has ports 11000-20499 and drains, with 1", first.Program.ProgramID),
				"at most until "+second.Older[0].Until.Local().Format(time.DateTime), fmt.Sprintf("program %d of bpfman has ports 20500-29999 and serves", second.Program.ProgramID), "--replace")
		}
		m.version(32768)
		m.check(m.blixt.Start())
		tcp.unharmed("killed and started again")
		udp.unharmed("killed and started again")
	})
	third := m.handover()
	if third.Program.ProgramID != second.Program.ProgramID || third.SNAT != second.SNAT || len(third.Older) != 1 || !third.Older[0].Since.Equal(second.Older[0].Since) {
		t.Errorf("after a restart status says %+v, older %+v", third.Program, third.Older)
	}
	m.chain("killed and started again", first.Program.ProgramID, second.Program.ProgramID)

	flood.end(m)
	udp.leave()
	tcp.leave()
	m.expire(first.Program.ProgramID)
	m.check(m.blixt.AwaitLog(fmt.Sprintf("unloaded program %d (%s), its flows have ended", first.Program.ProgramID, first.Program.Digest), 30*time.Second, func() error { return nil }))
	if e := m.ended(first.Program.ProgramID); e.Cut == nil || *e.Cut != 0 {
		t.Errorf("status says %+v", e)
	}
	m.chain("ended", second.Program.ProgramID)
	if got, want := m.listed(), []string{fmt.Sprint(second.Program.ProgramID)}; !slices.Equal(got, want) {
		t.Errorf("bpfman lists programs %v, want %v", got, want)
	}

	tcp = m.newCrowd(50, "tcp", vip(4, 80), vip(6, 80))
	m.upgrade(16384)
	tcp.unharmed("upgraded again")
	m.carries()
	last := m.handover()
	if last.SNAT != halves[0] || len(last.Older) != 1 {
		t.Errorf("the third program has ports %s, older %+v", last.SNAT, last.Older)
	}
	m.chain("upgraded again", second.Program.ProgramID, last.Program.ProgramID)
	m.noChecksumErrors()
	tcp.leave()
	m.check(m.blixt.Stop()) // in the middle
	m.nothingLeft()
}

// TestUpgradeCanBeKilledAtAnyMoment kills the new version while it starts,
// ever later.
func TestUpgradeCanBeKilledAtAnyMoment(t *testing.T) {
	m := newManaged(t, "upgrade-kill", 3)
	m.check(m.blixt.Start())
	old := m.status()
	crowd := m.newCrowd(60, "tcp", vip(4, 80), vip(6, 80))
	arrivals := m.newNewcomers(vip(4, 80))
	m.check(m.blixt.Kill())
	m.version(32768)
	moments := map[string]bool{}
	drains := false
	for after := 20 * time.Millisecond; !drains; after += max(10*time.Millisecond, after/10) {
		args := slices.Concat(m.blixt.Via, []string{m.blixt.Binary, "run", "--filename", m.blixt.Dir, "--name", m.blixt.Name}, m.blixt.Args)
		_, err := m.Balancer.Run(after, args[0], args[1:]...)
		if err == nil || !strings.Contains(err.Error(), "killed") || after > 4*patience {
			t.Fatalf("%s: %v", after, err)
		}
		list, err := m.bpfman.Run("list", "links")
		m.check(err)
		h, err := datapath.ReadHandover(m.maps(old.Program.ProgramID))
		m.check(err)
		drains = h.Draining
		moments[fmt.Sprintf("%d links, draining %v", strings.Count(list, "gress"), drains)] = true
	}
	t.Logf("killed with %v", slices.Sorted(maps.Keys(moments)))
	m.check(m.blixt.Start())
	crowd.unharmed("killed many times")
	now := m.handover()
	if len(now.Older) != 1 || now.Older[0].Program != old.Program.ProgramID || now.SNAT != halves[1] {
		t.Errorf("status says %+v, ports %s", now.Older, now.SNAT)
	}
	m.chain("killed many times", old.Program.ProgramID, now.Program.ProgramID)
	arrivals.end(m)
	m.carries()
	crowd.end()
	m.check(m.blixt.Stop())
	m.nothingLeft()
}
