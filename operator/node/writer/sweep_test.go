// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// flowSpec is a flow as the data plane would store it. Ages are in ticks before
// testNow.
type flowSpec struct {
	client                        uint16
	peer                          bool // the flow is of another node: it has no backend
	backend, generation, frontend uint32
	forwardAge, replyAge          uint32
	forwardFlags, replyFlags      bpf.BlixtFlowFlag
	noReply, udp                  bool
}

const (
	testNow  = 1_000_000
	testIdle = 7200
)

// addFlow adds both entries of a translated flow, client to VIP becoming node
// to backend, and returns their keys.
func addFlow(f *datapath.Fake, s flowSpec) (forward, reply bpf.BlixtFlowKey) {
	client, vip := datapath.ToAddr(netip.MustParseAddr("203.0.113.1")), datapath.ToAddr(netip.MustParseAddr("192.0.2.1"))
	node, backend := datapath.ToAddr(netip.MustParseAddr("198.51.100.7")), datapath.ToAddr(netip.MustParseAddr("10.0.0.1"))
	cport, vport := datapath.ToPort(40000+s.client), datapath.ToPort(80)
	nport, bport := datapath.ToPort(61000+s.client), datapath.ToPort(8080)
	protocol := lb.TCP
	if s.udp {
		protocol = lb.UDP
	}
	forward = bpf.BlixtFlowKey{Src: client, Sport: cport, Dst: vip, Dport: vport, Protocol: uint8(protocol)}
	reply = bpf.BlixtFlowKey{Src: backend, Sport: bport, Dst: node, Dport: nport, Protocol: uint8(protocol)}
	value := bpf.BlixtFlow{Backend: s.backend, Generation: s.generation, Frontend: s.frontend, IdleTicks: testIdle}
	if s.peer {
		value.Backend, value.Generation, value.Frontend = 0, 0, uint32(bpf.BlixtNoFlowOfNO_FRONTEND)
	}
	out, back := value, value
	out.Src, out.Sport, out.Dst, out.Dport = node, nport, backend, bport
	out.LastSeen, out.Flags = testNow-s.forwardAge, uint32(s.forwardFlags)
	back.Src, back.Sport, back.Dst, back.Dport = vip, vport, client, cport
	back.LastSeen, back.Flags = testNow-s.replyAge, uint32(s.replyFlags|bpf.BlixtFlowFlagFLOW_REPLY)
	f.FlowTable[forward] = out
	if !s.noReply {
		f.FlowTable[reply] = back
	}
	return forward, reply
}

func newSweeping(t *testing.T, fake *datapath.Fake) *Writer {
	t.Helper()
	a := newSweepingOver(fake)
	mustApply(t, a, testState(1, 1)) // backends 1 and 2, generation 1
	return a
}

func TestWhatIsSwept(t *testing.T) {
	const fin, rst = bpf.BlixtFlowFlagFLOW_FIN, bpf.BlixtFlowFlagFLOW_RST
	minute, fourMinutes := datapath.Ticks(goneFor), datapath.Ticks(transitoryFor)
	for name, c := range map[string]struct {
		flow flowSpec
		want SweepResult
	}{
		"fresh":                           {flowSpec{}, SweepResult{}},
		"idle at the limit":               {flowSpec{forwardAge: testIdle, replyAge: testIdle}, SweepResult{}},
		"idle":                            {flowSpec{forwardAge: testIdle + 1, replyAge: testIdle + 1}, SweepResult{Idle: 1}},
		"idle in one direction":           {flowSpec{forwardAge: 1e5, replyAge: 10}, SweepResult{}},
		"idle in the other":               {flowSpec{forwardAge: 10, replyAge: 1e5}, SweepResult{}},
		"idle, half of it gone":           {flowSpec{forwardAge: 1e5, noReply: true}, SweepResult{Idle: 1}},
		"seen after the clock was read":   {flowSpec{forwardAge: ^uint32(0), replyAge: 1e5}, SweepResult{}},
		"FIN of one, data of the other":   {flowSpec{forwardFlags: fin, forwardAge: 1000, replyAge: fourMinutes}, SweepResult{}},
		"FIN of one, and silence":         {flowSpec{forwardFlags: fin, forwardAge: 1000, replyAge: fourMinutes + 1}, SweepResult{Closed: 1}},
		"FIN of the backend, and silence": {flowSpec{replyFlags: fin, forwardAge: 1000, replyAge: fourMinutes + 1}, SweepResult{Closed: 1}},
		"FIN of both, just now":           {flowSpec{forwardFlags: fin, replyFlags: fin, forwardAge: fourMinutes, replyAge: 1000}, SweepResult{}},
		"FIN of both":                     {flowSpec{forwardFlags: fin, replyFlags: fin, forwardAge: fourMinutes + 1, replyAge: 1000}, SweepResult{Closed: 1}},
		"RST, just now":                   {flowSpec{replyFlags: rst, forwardAge: fourMinutes, replyAge: 1000}, SweepResult{}},
		"RST of the backend":              {flowSpec{replyFlags: rst, forwardAge: fourMinutes + 1, replyAge: fourMinutes + 1}, SweepResult{Closed: 1}},
		"RST of the client":               {flowSpec{forwardFlags: rst, forwardAge: fourMinutes + 1, replyAge: 1000}, SweepResult{Closed: 1}},
		"UDP, idle":                       {flowSpec{udp: true, forwardAge: testIdle + 1, replyAge: testIdle + 1}, SweepResult{Idle: 1}},
		"UDP, half of it evicted":         {flowSpec{udp: true, forwardAge: testIdle, noReply: true}, SweepResult{}},
		"RST, and yet it goes on":         {flowSpec{forwardFlags: rst, forwardAge: 1000, replyAge: 2}, SweepResult{}},
		"backend gone, not long ago":      {flowSpec{generation: 9, forwardAge: minute, replyAge: 1000}, SweepResult{}},
		"backend gone":                    {flowSpec{generation: 9, forwardAge: minute + 1, replyAge: 1000}, SweepResult{Gone: 1}},
		"backend newer than what we saw":  {flowSpec{generation: 13, forwardAge: minute + 1, replyAge: 1000}, SweepResult{}},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			a := newSweeping(t, fake)
			c.flow.backend = 5
			if err := fake.PutBackend(5, bpf.BlixtBackend{Generation: 12}); err != nil {
				t.Fatal(err)
			}
			if c.flow.generation == 0 {
				c.flow.generation = 12
			}
			addFlow(fake, c.flow)
			entries := len(fake.FlowTable)
			got, err := a.Sweep(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if got.Idle != c.want.Idle || got.Closed != c.want.Closed || got.Gone != c.want.Gone {
				t.Errorf("swept %+v, want %+v", got, c.want)
			}
			want := entries
			if c.want.Removed() > 0 {
				want = 0
			}
			if len(fake.FlowTable) != want {
				t.Errorf("%d of %d entries left, want %d", len(fake.FlowTable), entries, want)
			}
		})
	}
}

// What a backend on this node still sends on a TCP flow that was removed must
// not leave with its own address. A closed connection has nothing to send.
func TestSweepLeavesTombstones(t *testing.T) {
	const fin, local, remote = bpf.BlixtFlowFlagFLOW_FIN, bpf.BlixtFlowFlagFLOW_STACK, bpf.BlixtFlowFlagFLOW_SNAT
	for name, c := range map[string]struct {
		flow flowSpec
		want bool
	}{
		"idle":              {flowSpec{forwardFlags: local, replyFlags: local, generation: 1, forwardAge: 1e5, replyAge: 1e5}, true},
		"backend gone":      {flowSpec{forwardFlags: local, replyFlags: local, generation: ^uint32(0), forwardAge: 1000, replyAge: 1000}, true},
		"closed":            {flowSpec{forwardFlags: local | fin, replyFlags: local | fin, generation: 1, forwardAge: 1000, replyAge: 1000}, false},
		"backend elsewhere": {flowSpec{forwardFlags: remote, replyFlags: remote, generation: 1, forwardAge: 1e5, replyAge: 1e5}, false},
		"and gone":          {flowSpec{forwardFlags: remote, replyFlags: remote, generation: ^uint32(0), forwardAge: 1000, replyAge: 1000}, true},
		"UDP":               {flowSpec{udp: true, forwardFlags: local, replyFlags: local, generation: 1, forwardAge: 1e5, replyAge: 1e5}, false},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			a := newSweeping(t, fake)
			c.flow.backend = 1
			_, reply := addFlow(fake, c.flow)
			if _, err := a.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			if len(fake.FlowTable) != 0 || fake.Tombstones[reply] != c.want {
				t.Errorf("%d entries left, tombstone %t; want none and %t", len(fake.FlowTable), fake.Tombstones[reply], c.want)
			}
		})
	}
}

// Where it can, the sweep tells both ends of a connection whose backend is gone, at once.
func TestSweepResetsBothEnds(t *testing.T) {
	const established = bpf.BlixtFlowFlagFLOW_ESTABLISHED
	client, vip := netip.MustParseAddrPort("203.0.113.1:40000"), netip.MustParseAddrPort("192.0.2.1:80")
	node, server := netip.MustParseAddrPort("198.51.100.7:61000"), netip.MustParseAddrPort("10.0.0.1:8080")
	gone := flowSpec{backend: 1, generation: ^uint32(0), forwardFlags: established, replyFlags: established}
	for name, c := range map[string]struct {
		change                func(*flowSpec)
		clientNext, clientAck uint32
		serverNext, serverAck uint32
		want                  []Reset
	}{
		"idle":                 {nil, 1001, 5001, 5001, 1001, []Reset{{node, server, 1001}, {vip, client, 5001}}},
		"data on their way":    {nil, 1051, 5001, 5201, 1001, []Reset{{node, server, 1001}, {node, server, 1051}, {vip, client, 5001}, {vip, client, 5201}}},
		"the cache is ahead":   {nil, 901, 4001, 4001, 901, []Reset{{node, server, 1001}, {vip, client, 5001}}},
		"its backend is there": {func(f *flowSpec) { f.generation = 1 }, 1001, 5001, 5001, 1001, nil},
		"UDP":                  {func(f *flowSpec) { f.udp, f.forwardFlags, f.replyFlags = true, 0, 0 }, 0, 0, 0, 0, nil},
		"half of it is lost":   {func(f *flowSpec) { f.noReply = true }, 1001, 5001, 5001, 1001, nil},
		"numbers not known":    {func(f *flowSpec) { f.forwardFlags, f.replyFlags = 0, 0 }, 1001, 0, 0, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			w := newSweeping(t, fake)
			var got []Reset
			w.o.Reset = func(r Reset) { got = append(got, r) }
			spec := gone
			if c.change != nil {
				c.change(&spec)
			}
			forward, reply := addFlow(fake, spec)
			for key, numbers := range map[bpf.BlixtFlowKey][2]uint32{forward: {c.clientNext, c.clientAck}, reply: {c.serverNext, c.serverAck}} {
				if f, ok := fake.FlowTable[key]; ok {
					f.Next, f.Ack = numbers[0], numbers[1]
					fake.FlowTable[key] = f
				}
			}
			if name == "the cache is ahead" {
				fake.LaterNumbers = map[bpf.BlixtFlowKey][2]uint32{forward: {1001, 5001}, reply: {5001, 1001}}
			}
			if _, err := w.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("sent %v, want %v", got, c.want)
			}
			if lives := spec.generation == 1 || name == "UDP" || name == "numbers not known"; lives != (len(fake.FlowTable) > 0) {
				t.Errorf("%d entries are left, lives: %t", len(fake.FlowTable), lives)
			}
		})
	}
}

// Nobody waits for the next sweep to hear that a backend is gone.
func TestRemovedBackendIsSweptSoon(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	resets := make(chan Reset, 4)
	w := New(fake, Options{SweepEvery: time.Hour, Ticks: func() uint32 { return testNow }, Reset: func(r Reset) { resets <- r }})
	mustApply(t, w, testState(1, 1))
	const established = bpf.BlixtFlowFlagFLOW_ESTABLISHED
	addFlow(fake, flowSpec{backend: 1, generation: 1, forwardFlags: established, replyFlags: established})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); w.Run(ctx, make(chan VersionedState)) }()
	mustApply(t, w, testState())
	for range 2 {
		select {
		case <-resets:
		case <-time.After(30 * time.Second):
			t.Fatal("neither end hears of it")
		}
	}
	cancel()
	<-done
}

// A packet that comes between reading the batch and removing the flow saves it.
func TestFlowThatWakesUpStays(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := newSweeping(t, fake)
	forward, reply := addFlow(fake, flowSpec{backend: 1, generation: 1, forwardAge: 1e5, replyAge: 1e5})
	waking := &waking{Fake: fake}
	waking.wake = func() {
		v := fake.FlowTable[reply]
		v.LastSeen = testNow
		fake.FlowTable[reply] = v
	}
	a.tables = waking
	if got, err := a.Sweep(context.Background()); err != nil || got.Removed() != 0 || got.Flows.Total() != 1 {
		t.Errorf("swept %+v, %v", got, err)
	}
	if _, ok := fake.FlowTable[forward]; !ok {
		t.Error("live flow removed")
	}
}

// waking has a packet come right after a batch was read.
type waking struct {
	*datapath.Fake
	wake func()
}

func (w *waking) EachFlow(yield func([]datapath.FlowEntry) bool) error {
	return w.Fake.EachFlow(func(e []datapath.FlowEntry) bool {
		w.wake()
		return yield(e)
	})
}

func TestSweepCountsActiveFlows(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := newSweeping(t, fake)
	for i := range uint16(7) {
		addFlow(fake, flowSpec{client: i, backend: 1 + uint32(i%2), generation: 1, udp: i == 6})
	}
	addFlow(fake, flowSpec{client: 8, backend: 1, generation: 1, forwardAge: 1e5, replyAge: 1e5})
	if _, err := a.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	s, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	if tcp, udp := s.Tables["flows"].Used, s.Tables["udp_flows"].Used; tcp != 6 || udp != 1 {
		t.Errorf("%d TCP flows and %d UDP flows, want 6 and 1", tcp, udp)
	}
	f := s.Frontends[0]
	if f.ActiveFlows != 7 || f.Backends[0].ActiveFlows != 4 || f.Backends[1].ActiveFlows != 3 {
		t.Errorf("active flows %+v", f)
	}
}

// A sweep works a tenth of the time, and stops when told to.
func TestSweepIsPaced(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	now := time.Unix(1e9, 0)
	var slept time.Duration
	a := New(fake, Options{
		Clock: func() time.Time { now = now.Add(time.Millisecond); return now },
		Ticks: func() uint32 { return testNow },
		Sleep: func(ctx context.Context, d time.Duration) error { slept += d; return ctx.Err() },
	})
	for i := range uint16(100) {
		addFlow(fake, flowSpec{client: i})
	}
	if _, err := a.Sweep(context.Background()); err != nil {
		t.Fatal(err)
	}
	if want := 200 * 9 * time.Millisecond; slept < want*9/10 || slept > want*11/10 {
		t.Errorf("slept %v, want about %v", slept, want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := a.Sweep(ctx); err == nil {
		t.Error("goes on after its context has ended")
	}
}

// Flows of other nodes have no backend here, and no frontend. They end when they are
// idle in both directions, or closed, and never because a backend is gone; those that
// change nothing have one entry.
func TestSweepOfFlowsOfOtherNodes(t *testing.T) {
	const (
		fin    = bpf.BlixtFlowFlagFLOW_FIN
		undone = bpf.BlixtFlowFlagFLOW_UNDONE | bpf.BlixtFlowFlagFLOW_STACK
		back   = bpf.BlixtFlowFlagFLOW_UNDONE | bpf.BlixtFlowFlagFLOW_EGRESS
		plain  = bpf.BlixtFlowFlagFLOW_PLAIN
	)
	fourMinutes := datapath.Ticks(transitoryFor)
	for name, c := range map[string]struct {
		flow flowSpec
		want SweepResult // with the flows that are left
		tomb bool
	}{
		"in use":                {flowSpec{forwardFlags: undone, replyFlags: back}, SweepResult{Flows: FlowCounts{TCP: 1, Undone: 1}}, false},
		"idle in one direction": {flowSpec{forwardFlags: undone, replyFlags: back, replyAge: 1e5}, SweepResult{Flows: FlowCounts{TCP: 1, Undone: 1}}, false},
		"idle in the other":     {flowSpec{forwardFlags: undone, replyFlags: back, forwardAge: 1e5}, SweepResult{Flows: FlowCounts{TCP: 1, Undone: 1}}, false},
		"idle":                  {flowSpec{forwardFlags: undone, replyFlags: back, forwardAge: 1e5, replyAge: 1e5}, SweepResult{Idle: 1}, true},
		"closed":                {flowSpec{forwardFlags: undone | fin, replyFlags: back | fin, forwardAge: fourMinutes + 1, replyAge: fourMinutes + 1}, SweepResult{Closed: 1}, false},
		"UDP":                   {flowSpec{udp: true, forwardFlags: undone, replyFlags: back}, SweepResult{Flows: FlowCounts{UDP: 1, Undone: 1}}, false},
		"UDP, idle":             {flowSpec{udp: true, forwardFlags: undone, replyFlags: back, forwardAge: 1e5, replyAge: 1e5}, SweepResult{Idle: 1}, false},
		"plain":                 {flowSpec{udp: true, forwardFlags: plain, noReply: true}, SweepResult{Flows: FlowCounts{UDP: 1, Plain: 1}}, false},
		"plain, idle":           {flowSpec{udp: true, forwardFlags: plain, noReply: true, forwardAge: 1e5}, SweepResult{Idle: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			a := newSweeping(t, fake)
			c.flow.peer = true
			_, reply := addFlow(fake, c.flow)
			unneeded, err := unfinished(fake, func() uint32 { return testNow })
			if err != nil || (unneeded == 1) != (c.want.Flows.Undone == 1) {
				t.Errorf("%d flows need this data plane, %v", unneeded, err)
			}
			entries := len(fake.FlowTable)
			got, err := a.Sweep(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			flows, want := got.Flows, c.want.Flows
			if got.Idle != c.want.Idle || got.Closed != c.want.Closed || got.Gone != 0 ||
				flows.TCP != want.TCP || flows.UDP != want.UDP || flows.Undone != want.Undone || flows.Plain != want.Plain {
				t.Errorf("swept %+v, want %+v", got, c.want)
			}
			if left := len(fake.FlowTable); (left == 0) != (c.want.Removed() > 0) || left != 0 && left != entries || fake.Tombstones[reply] != c.tomb {
				t.Errorf("%d of %d entries left, tombstone %v; want %v", left, entries, fake.Tombstones[reply], c.tomb)
			}
		})
	}
}

// The tuple of a flow that changes nothing, turned round, may be that of another flow.
func TestPlainFlowLeavesOthersAlone(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := newSweeping(t, fake)
	node, pod := datapath.ToAddr(netip.MustParseAddr("198.51.100.9")), datapath.ToAddr(netip.MustParseAddr("10.0.0.9"))
	plain := bpf.BlixtFlowKey{Src: node, Dst: pod, Sport: 1, Dport: 2, Protocol: uint8(lb.UDP)}
	fake.FlowTable[plain] = bpf.BlixtFlow{
		Src: node, Dst: pod, Sport: 1, Dport: 2, Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND),
		Flags: datapath.FlowPlain, LastSeen: testNow - 1e5, IdleTicks: testIdle,
	}
	other := bpf.BlixtFlowKey{Src: pod, Dst: node, Sport: 2, Dport: 1, Protocol: uint8(lb.UDP)}
	fake.FlowTable[other] = bpf.BlixtFlow{Src: pod, Dst: node, Sport: 2, Dport: 1, Flags: datapath.FlowReply, LastSeen: testNow, IdleTicks: testIdle}
	if got, err := a.Sweep(t.Context()); err != nil || got.Idle != 1 {
		t.Errorf("swept %+v, %v", got, err)
	}
	if _, left := fake.FlowTable[other]; !left || len(fake.FlowTable) != 1 {
		t.Errorf("left: %+v", fake.FlowTable)
	}
}

// The operator hears which addresses flows are translated to, with tunnels' among them.
func TestSourcesOfFlows(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := newSweeping(t, fake)
	addFlow(fake, flowSpec{forwardFlags: bpf.BlixtFlowFlagFLOW_SNAT, replyFlags: bpf.BlixtFlowFlagFLOW_SNAT, backend: 1, generation: 1})
	addFlow(fake, flowSpec{client: 1, peer: true, forwardFlags: bpf.BlixtFlowFlagFLOW_UNDONE | bpf.BlixtFlowFlagFLOW_STACK})
	if _, err := a.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := a.Summary()
	if want := []netip.Addr{netip.MustParseAddr("198.51.100.7")}; err != nil || !slices.Equal(s.Sources, want) {
		t.Errorf("sources %v, %v; want %v", s.Sources, err, want)
	}
}
