// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Addresses of the tests: what serves, what flows have (see addFlow), and nobody.
var (
	testVIP   = netip.MustParseAddr("192.0.2.1")
	testNode  = netip.MustParseAddr("198.51.100.7")
	testOther = netip.MustParseAddr("192.0.2.99")
)

const (
	vip, shared, host = datapath.InterestVIP, datapath.InterestShared, datapath.InterestHost
	from, fresh       = bpf.BlixtInterestFlagINTEREST_FROM, datapath.InterestFresh
)

// sweeping is a writer whose time passes when the test says so.
type sweeping struct {
	*testing.T
	*datapath.Fake
	w   *Writer
	now time.Time
}

func newSweepingLater(t *testing.T, o Options) *sweeping {
	t.Helper()
	s := &sweeping{t, datapath.NewFake(testSizes), nil, time.Unix(1e9, 0)}
	o.Clock = func() time.Time { return s.now }
	o.Ticks = func() uint32 { return testNow }
	o.Sleep = func(ctx context.Context, d time.Duration) error { s.now = s.now.Add(max(d, 0)); return ctx.Err() }
	s.w = New(s.Fake, o)
	return s
}

// sweep sweeps ten seconds later.
func (s *sweeping) sweep() {
	s.Helper()
	s.now = s.now.Add(10 * time.Second)
	if _, err := s.w.Sweep(context.Background()); err != nil {
		s.Fatal(err)
	}
}

func (s *sweeping) want(ip netip.Addr, bits bpf.BlixtInterestFlag) {
	s.Helper()
	if have := s.Interest(ip); have != bits {
		s.Errorf("byte of %s has bits %b, want %b", ip, have, bits)
	}
}

func (s *sweeping) add(ip netip.Addr, bits bpf.BlixtInterestFlag) {
	s.Helper()
	if err := s.AddInterest(datapath.ToAddr(ip), bits); err != nil {
		s.Fatal(err)
	}
}

// Bits come before an address, and go a sweep after it.
func TestInterestFollowsAddresses(t *testing.T) {
	s := newSweepingLater(t, Options{HostAddresses: []netip.Addr{testNode}})
	serve := func(exclusive bool) {
		t.Helper()
		state := testState(1)
		state.Addresses = []lb.Address{{IP: testVIP, Exclusive: exclusive}}
		mustApply(t, s.w, state)
	}
	serve(true)
	s.want(testVIP, vip|fresh)
	s.want(testNode, host|fresh)
	s.sweep()
	s.want(testVIP, vip)
	s.want(testNode, host)
	serve(false)
	s.want(testVIP, vip|shared|fresh)
	s.sweep()
	s.want(testVIP, vip|shared)
	serve(true)
	s.want(testVIP, vip|shared|fresh)
	s.sweep()
	s.want(testVIP, vip|shared)
	s.sweep()
	s.want(testVIP, vip)
	mustApply(t, s.w, lb.State{})
	s.want(testVIP, vip)
	s.sweep()
	s.want(testVIP, 0)
	if err := s.w.SetSNAT(lb.DefaultSNATPorts, nil); err != nil {
		t.Fatal(err)
	}
	s.sweep()
	s.sweep()
	s.want(testNode, host)
}

// Packets of peers have to be looked at as long as there are any.
func TestInterestFollowsPeers(t *testing.T) {
	s := newSweepingLater(t, Options{})
	s.sweep()
	s.add(testOther, datapath.InterestPeer)
	if err := s.AddPeer(testOther, 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		s.sweep()
		s.want(testOther, datapath.InterestPeer)
	}
	if err := s.DeletePeer(testOther); err != nil {
		t.Fatal(err)
	}
	s.sweep()
	s.want(testOther, 0)
	// The bit of a flow of a peer that is gone.
	key := bpf.BlixtFlowKey{Src: datapath.ToAddr(testOther), Protocol: 6}
	for _, flags := range []uint32{datapath.FlowUndone, datapath.FlowPlain} {
		s.FlowTable[key] = bpf.BlixtFlow{Flags: flags, Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND), LastSeen: testNow, IdleTicks: testIdle}
		s.sweep()
		s.want(testOther, datapath.InterestPeer)
	}
}

// What any table of flows has keeps its bits; what none has loses them, unless a
// packet has set one since the sweep before.
func TestInterestFollowsFlows(t *testing.T) {
	s := newSweepingLater(t, Options{})
	client := netip.MustParseAddr("203.0.113.1")
	s.sweep()
	for _, ip := range []netip.Addr{testVIP, testOther, client} {
		s.add(ip, vip|from)
	}
	forward, reply := addFlow(s.Fake, flowSpec{udp: true})
	s.NewFlowTable[bpf.BlixtFlowKey{Src: datapath.ToAddr(client), Protocol: 6}] = bpf.BlixtFlow{Frontend: uint32(bpf.BlixtNoFlowOfNO_FRONTEND)}
	s.sweep()
	s.want(testVIP, vip|from)
	s.want(testOther, vip|from)
	s.want(client, vip|from)
	s.add(testOther, vip)
	s.sweep()
	s.want(testVIP, vip)
	s.want(testNode, host) // nobody has set it: whoever has deleted the map's contents
	s.want(testOther, vip|from)
	s.want(client, from)
	s.sweep()
	s.want(testOther, 0)
	delete(s.FlowTable, forward)
	delete(s.FlowTable, reply)
	clear(s.NewFlowTable)
	s.sweep()
	s.want(testVIP, 0)
	s.want(client, 0)
	s.want(testNode, host)
}

// A flow that is established while a sweep goes on may be in neither table when
// the sweep comes to it.
func TestInterestOfMovingFlowStays(t *testing.T) {
	s := newSweepingLater(t, Options{})
	s.add(testVIP, vip)
	s.sweep()
	s.sweep()
	s.want(testVIP, 0)
	s.add(testVIP, vip)
	forward, _ := addFlow(s.Fake, flowSpec{noReply: true})
	flow := s.FlowTable[forward]
	delete(s.FlowTable, forward)
	s.NewFlowTable[forward] = flow
	s.sweep()
	s.sweep()
	s.want(testVIP, vip)
	s.w.tables = &moving{s.Fake, func() {
		s.add(testVIP, vip)
		s.FlowTable[forward] = flow
		delete(s.NewFlowTable, forward)
	}}
	s.sweep()
	s.want(testVIP, vip)
	s.w.tables = s.Fake
	s.sweep()
	s.want(testVIP, vip)
}

// moving has something happen between the tables.
type moving struct {
	*datapath.Fake
	then func()
}

func (m *moving) EachNewFlow(yield func([]datapath.FlowEntry) bool) error {
	m.then()
	return m.Fake.EachNewFlow(yield)
}

// A sweep that fails or ends early, and one that follows too soon, clear nothing.
func TestInterestStaysWithoutWholeSweep(t *testing.T) {
	s := newSweepingLater(t, Options{})
	s.add(testOther, vip)
	s.sweep()
	for _, tables := range []Tables{&failing{Fake: s.Fake, flows: true}, &failing{Fake: s.Fake}} {
		s.now = s.now.Add(10 * time.Second)
		s.w.tables = tables
		if _, err := s.w.Sweep(t.Context()); !errors.Is(err, errBatch) {
			t.Errorf("error %v, want that of the batch", err)
		}
		s.want(testOther, vip)
	}
	s.w.tables = s.Fake
	ended, end := context.WithCancel(t.Context())
	end()
	addFlow(s.Fake, flowSpec{})
	if _, err := s.w.Sweep(ended); err == nil {
		t.Error("goes on after its context has ended")
	}
	s.want(testOther, vip)
	s.now = s.w.settled.Add(settleGrace - 1)
	if _, err := s.w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(testOther, vip)
	s.sweep()
	s.want(testOther, 0)
}

var errBatch = errors.New("batch fails")

// failing fails in the middle of one of the tables.
type failing struct {
	*datapath.Fake
	flows bool // or else in new_flows
}

func (f *failing) EachFlow(yield func([]datapath.FlowEntry) bool) error {
	if f.flows {
		return errBatch
	}
	return f.Fake.EachFlow(yield)
}

func (f *failing) EachNewFlow(func([]datapath.FlowEntry) bool) error { return errBatch }

// The bytes of a map that a newer program has been given are full: nobody knows
// yet what is needed.
func TestInterestIsClearedOfWhatIsUnknown(t *testing.T) {
	s := newSweepingLater(t, Options{})
	s.add(testOther, 0xff)
	s.sweep()
	s.want(testOther, 0x7f)
	s.sweep()
	s.want(testOther, host)
}

// ports_min and ports_max enclose all ports that flows may have.
func TestConfigHasAllPortsThereWere(t *testing.T) {
	type ports = lb.PortRange
	for _, steps := range [][]struct{ set, want ports }{
		{{ports{First: 1000, Last: 1999}, ports{}}, {ports{First: 1000, Last: 1999}, ports{}}, {ports{First: 3000, Last: 3999}, ports{First: 1000, Last: 3999}},
			{ports{First: 2000, Last: 2999}, ports{First: 1000, Last: 3999}}, {ports{First: 1000, Last: 1999}, ports{First: 1000, Last: 3999}}},
		{{ports{First: 3000, Last: 3999}, ports{}}, {ports{First: 1000, Last: 1999}, ports{First: 1000, Last: 3999}}},
		{{ports{First: 1000, Last: 3999}, ports{}}, {ports{First: 1000, Last: 1999}, ports{First: 1000, Last: 3999}}, {ports{First: 1000, Last: 3999}, ports{First: 1000, Last: 3999}}},
	} {
		fake := datapath.NewFake(testSizes)
		for i, step := range steps {
			w := New(fake, Options{SNAT: step.set}) // as after a restart
			if i%2 != 0 {
				w = New(fake, Options{SNAT: steps[i-1].set})
				if err := w.SetSNAT(step.set, nil); err != nil {
					t.Fatal(err)
				}
			}
			mustApply(t, w, testState(1))
			c, err := fake.Config()
			if got := (ports{First: c.PortsMin, Last: c.PortsMax}); err != nil || got != step.want {
				t.Errorf("after %v: all ports are %v (%v), want %v", steps[:i+1], got, err, step.want)
			}
			if same, err := w.unchanged(); !same || err != nil {
				t.Errorf("after %v: takes its own config for another's (%v)", steps[:i+1], err)
			}
		}
	}
}
