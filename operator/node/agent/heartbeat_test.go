// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"maps"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/clock"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

func TestHeartbeat(t *testing.T) {
	now := time.Unix(1e9, 0)
	links := func(in, out, tunnel uint64) []writer.HookCount {
		return []writer.HookCount{
			{Hook: writer.Hook{Index: 2, Direction: "ingress"}, Packets: in},
			{Hook: writer.Hook{Index: 2, Direction: "egress"}, Packets: out},
			{Hook: writer.Hook{Index: 9, Direction: "ingress"}, Packets: tunnel},
		}
	}
	var h heartbeat
	for _, step := range []struct {
		after           time.Duration
		in, out, tunnel uint64
		age             time.Duration
		lost            bool
	}{
		{0, 10, 10, 5, 0, false},
		{40 * time.Second, 11, 11, 5, 0, false},
		{40 * time.Second, 12, 12, 5, 0, false}, // the tunnel is idle
		{40 * time.Second, 13, 12, 5, 0, false},
		{40 * time.Second, 14, 12, 5, 0, true}, // nothing leaves: a link is missing
		{10 * time.Second, 15, 13, 5, 0, false},
		{61 * time.Second, 15, 13, 5, 61 * time.Second, true},
		{10 * time.Second, 0, 1, 0, 0, false}, // loaded again
	} {
		now = now.Add(step.after)
		h.count(now, links(step.in, step.out, step.tunnel))
		if age, lost := h.age(now), h.lost(now); age != step.age || lost != step.lost {
			t.Errorf("%+v: age %v, lost %v", step, age, lost)
		}
	}
}

// If packets always came soon, silence is reported soon. If they never did, or
// if not enough samples are known, it is not.
func TestHeartbeatLearns(t *testing.T) {
	for name, c := range map[string]struct {
		known, every, within time.Duration
	}{
		"busy":  {time.Minute, sampleEvery, 6 * time.Second},
		"quiet": {time.Minute, 4 * sampleEvery, 20 * time.Second},
		"idle":  {10 * time.Minute, 15 * sampleEvery, 62 * time.Second},
		"new":   {10 * time.Second, sampleEvery, 20 * time.Second}, // that it is busy is known by then
	} {
		t.Run(name, func(t *testing.T) {
			var h heartbeat
			began, packets := time.Unix(1e9, 0), uint64(0)
			sample := func(after time.Duration) bool {
				h.count(began.Add(after), []writer.HookCount{
					{Hook: writer.Hook{Index: 2, Direction: "ingress"}, Packets: packets}, {Hook: writer.Hook{Index: 2, Direction: "egress"}, Packets: packets},
				})
				return h.lost(began.Add(after))
			}
			at, last := time.Duration(0), time.Duration(0)
			for ; at <= c.known; at += sampleEvery {
				if at%c.every == 0 {
					packets, last = packets+1, at
				}
				if sample(at) {
					t.Fatalf("lost after %v, with packets every %v", at, c.every)
				}
			}
			for !sample(at) {
				at += sampleEvery
			}
			if silent := at - last; silent != c.within {
				t.Errorf("lost after a silence of %v, want %v", silent, c.within)
			}
		})
	}
}

// On the only node of a cluster, packets come only when somebody uses Blixt.
func TestSilenceOfTheOnlyNode(t *testing.T) {
	a := New(Options{Tables: datapath.NewFake(datapath.Sizes{Addresses: 4, Frontends: 4, Backends: 4, RingSlots: 1 << 18, Flows: 64})})
	a.sample(t.Context())
	for _, alone := range []bool{true, false, true} {
		if err := a.configure(&wire.Config{Alone: alone, Snat: &wire.Ports{Min: 11000, Max: 29999}}); err != nil {
			t.Fatal(err)
		}
		if lost := a.heartbeat.lost(time.Now().Add(time.Hour)); lost == alone {
			t.Errorf("packets are lost after an hour: %v, want %v where the node is alone: %v", lost, !alone, alone)
		}
	}
}

// The operator learns within a sample where the host listens, and no more of it
// until there is another port.
func TestHostListensIsReportedAtOnce(t *testing.T) {
	tables := datapath.NewFake(datapath.Sizes{Addresses: 4, Frontends: 4, Backends: 4, RingSlots: 1 << 18, Flows: 64})
	a := New(Options{Tables: tables})
	a.sample(t.Context())
	seen := map[lb.Key]uint32{}
	for i, want := range []bool{true, false, true} {
		if want {
			seen[lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: uint16(80 + i)}] = 1
		}
		tables.SetHostListens(maps.Clone(seen))
		a.sample(t.Context())
		got := len(a.changed) > 0
		if got {
			<-a.changed
		}
		if got != want {
			t.Errorf("sample %d, of %d ports: reported %v, want %v", i, len(seen), got, want)
		}
	}
}

// The first report of an agent whose program drains tells how many flows need it.
func TestFlowsAreCountedBeforeTheFirstReport(t *testing.T) {
	tables := datapath.NewFake(datapath.Sizes{Addresses: 4, Frontends: 4, Backends: 4, RingSlots: 1 << 18, Flows: 64})
	if err := tables.SetConfig(datapath.Config{Flags: datapath.ConfigDrain}); err != nil {
		t.Fatal(err)
	}
	if err := tables.PutBackend(1, bpf.BlixtBackend{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	tables.FlowTable[bpf.BlixtFlowKey{Protocol: unix.IPPROTO_TCP, Sport: 1}] = bpf.BlixtFlow{
		Backend: 1, Generation: 1, IdleTicks: 1 << 20, LastSeen: uint32(clock.Monotonic() >> datapath.TickShift), Flags: uint32(bpf.BlixtFlowFlagFLOW_ESTABLISHED),
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	a := New(Options{Tables: tables, Operator: "127.0.0.1:1"})
	a.Run(ctx)
	if got := a.status().Flows; got != 1 {
		t.Errorf("%d flows, want 1", got)
	}
}
