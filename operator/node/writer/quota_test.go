// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// A writer that knows no seed keeps that of the maps. One that does writes it, and
// keeps all else.
func TestSetSeed(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	mustApply(t, a, testState(1))
	c, err := fake.Config()
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := a.SetSeed(7); err != nil {
			t.Fatal(err)
		}
	}
	c.Seed = 7
	if got, err := fake.Config(); got != c || err != nil {
		t.Errorf("config %+v (%v), want %+v", got, err, c)
	}
	next := New(fake, Options{})
	mustApply(t, next, testState(2))
	if err := next.SetSNAT(lb.PortRange{First: 20000, Last: 21000}, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := fake.Config(); got.Seed != 7 || err != nil {
		t.Errorf("seed %d (%v), want 7", got.Seed, err)
	}
}

// The config has the quota of the table as it is and of the frontends that there
// are. Another writer that changes it is noticed.
func TestConfigHasTheQuota(t *testing.T) {
	sizes := testSizes
	sizes.Flows = 1000
	fake := datapath.NewFake(sizes)
	a := New(fake, Options{})
	want := func(nearlyFull, share uint32) {
		t.Helper()
		c, err := fake.Config()
		if err != nil || c.FlowsNearlyFull != nearlyFull || c.FlowsShare != share {
			t.Errorf("nearly full at %d, share %d (%v), want %d and %d", c.FlowsNearlyFull, c.FlowsShare, err, nearlyFull, share)
		}
		if same, err := a.unchanged(); !same || err != nil {
			t.Errorf("found changed (%v)", err)
		}
	}
	s := testState(1)
	mustApply(t, a, s)
	want(750, 1000)
	for port := range uint16(3) {
		for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
			f := s.Frontends[0]
			f.Port, f.Protocol = 90+port, protocol
			s.Frontends = append(s.Frontends, f)
		}
	}
	mustApply(t, a, s)
	want(750, 250)
	if err := a.SetSNAT(lb.PortRange{First: 20000, Last: 21000}, nil); err != nil {
		t.Fatal(err)
	}
	want(750, 250)
	mustApply(t, a, lb.State{})
	want(750, 1000)

	c, _ := fake.Config()
	c.FlowsShare = 7
	if err := fake.SetConfig(c); err != nil {
		t.Fatal(err)
	}
	if same, err := a.unchanged(); same || err != nil {
		t.Errorf("another share is not noticed (%v)", err)
	}
	if status, err := a.Status(); err != nil || status.FlowQuota != (FlowQuota{750, 7}) {
		t.Errorf("status says %+v (%v)", status.FlowQuota, err)
	}
}

// The sweep corrects the data plane's numbers of established flows. What changes
// while the sweep runs is no drift.
func TestSweepCorrectsEstablishedFlows(t *testing.T) {
	type numbers = map[int]uint32 // by element, without zeros
	for name, c := range map[string]struct {
		before numbers
		during func(*datapath.Fake)
		want   numbers
	}{
		"right":                 {before: numbers{0: 6, 1: 3, 4: 2}, want: numbers{0: 6, 1: 3, 4: 2}},
		"nothing counted":       {before: numbers{}, want: numbers{0: 6, 1: 3, 4: 2}},
		"too many":              {before: numbers{0: 9, 1: 4, 4: 5}, want: numbers{0: 6, 1: 3, 4: 2}},
		"too few":               {before: numbers{0: 1, 1: 1}, want: numbers{0: 6, 1: 3, 4: 2}},
		"below zero":            {before: numbers{0: 1<<32 - 2, 1: 1<<32 - 1}, want: numbers{0: 6, 1: 3, 4: 2}},
		"of a frontend gone":    {before: numbers{0: 7, 1: 3, 4: 2, 9: 1}, want: numbers{0: 6, 1: 3, 4: 2}},
		"one begins meanwhile":  {numbers{0: 6, 1: 3, 4: 2}, func(f *datapath.Fake) { add(f, 1) }, numbers{0: 7, 1: 4, 4: 2}},
		"one ends meanwhile":    {numbers{0: 7, 1: 4, 4: 2}, func(f *datapath.Fake) { add(f, -1) }, numbers{0: 6, 1: 3, 4: 2}},
		"drift, and one begins": {numbers{0: 9, 1: 7, 4: 2}, func(f *datapath.Fake) { add(f, 1) }, numbers{0: 7, 1: 4, 4: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			a := newSweeping(t, fake)
			for i := range uint16(3) {
				addFlow(fake, flowSpec{client: i, backend: 1, generation: 1})
			}
			addFlow(fake, flowSpec{client: 3, backend: 1, generation: 1, frontend: 3})
			addFlow(fake, flowSpec{client: 4, backend: 1, generation: 1, frontend: 3, noReply: true})
			addFlow(fake, flowSpec{client: 5, backend: 1, generation: 1, udp: true})
			addFlow(fake, flowSpec{client: 6, backend: 1, generation: 1, frontend: 0xffffffff}) // the host's own
			for i, n := range c.before {
				fake.EstablishedNow[i] = n
			}
			if c.during != nil {
				a.tables = &waking{Fake: fake, wake: once(func() { c.during(fake) })}
			}
			if _, err := a.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			got := numbers{}
			for i, n := range fake.Established() {
				if n != 0 {
					got[i] = n
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("established (-want +got):\n%s", diff)
			}
		})
	}
}

func add(f *datapath.Fake, delta int32) {
	f.AddEstablished(0, delta)
	f.AddEstablished(1, delta)
}

func once(do func()) func() {
	return func() {
		if do != nil {
			do()
		}
		do = nil
	}
}

// A flow that the sweep removes is counted once, even if the data plane removes
// it at the same time.
func TestSweptFlowsAreNotEstablished(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := newSweeping(t, fake)
	for i := range uint16(3) {
		addFlow(fake, flowSpec{client: i, backend: 1, generation: 1, forwardAge: 1e5, replyAge: 1e5})
		add(fake, 1)
	}
	addFlow(fake, flowSpec{client: 3, backend: 1, generation: 1, forwardAge: 1e5, replyAge: 1e5, udp: true})
	got, err := a.Sweep(context.Background())
	if err != nil || got.Idle != 4 {
		t.Errorf("swept %+v (%v), want 4 idle flows", got, err)
	}
	if n := fake.Established(); n[0] != 0 || n[1] != 0 {
		t.Errorf("established flows: %d, of the frontend %d, want none", int32(n[0]), int32(n[1]))
	}
}
