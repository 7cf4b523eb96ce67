// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// newCounting returns tables with a backendRef, whose id is 1.
func newCounting(t *testing.T) (*datapath.Fake, *Writer) {
	t.Helper()
	sizes := testSizes
	sizes.Refs = 4
	fake := datapath.NewFake(sizes)
	w := newSweeping(t, fake)
	s := testState(1, 1)
	for i := range s.Frontends[0].Backends {
		s.Frontends[0].Backends[i].Service, s.Frontends[0].Backends[i].ServicePort = "default/web", 80
	}
	mustApply(t, w, s)
	if fake.RefsOf[1].Key == 0 {
		t.Fatal("nobody has id 1")
	}
	return fake, w
}

func TestUnanswered(t *testing.T) {
	fake, w := newCounting(t)
	c := &fake.RefsOf[1]
	want := func(what string, n uint64) {
		t.Helper()
		if _, err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := datapath.Unanswered(*c); got != n {
			t.Errorf("%s: %d are unanswered, want %d", what, got, n)
		}
	}
	// TCP flows that wait, one that is answered, one that is closed, and one of the host.
	waiting := bpf.BlixtFlow{Ref: 1, LastSeen: testNow, IdleTicks: testIdle}
	add := func(port uint16, change func(*bpf.BlixtFlow)) {
		flow := waiting
		change(&flow)
		fake.NewFlowTable[bpf.BlixtFlowKey{Sport: port, Protocol: 6}] = flow
	}
	for port := range uint16(3) {
		add(port, func(*bpf.BlixtFlow) {})
	}
	add(3, func(f *bpf.BlixtFlow) { f.Flags = datapath.FlowAnswered })
	add(4, func(f *bpf.BlixtFlow) { f.Flags = datapath.FlowClosed | datapath.FlowRST })
	add(5, func(f *bpf.BlixtFlow) { f.Flags = datapath.FlowReply })
	add(6, func(f *bpf.BlixtFlow) { f.Frontend = uint32(bpf.BlixtNoFlowOfNO_FRONTEND) })
	// UDP: one that waits, one that was answered, one that was refused.
	for i, flags := range []bpf.BlixtFlowFlag{0, bpf.BlixtFlowFlagFLOW_ANSWERED, bpf.BlixtFlowFlagFLOW_REFUSED} {
		forward, reply := addFlow(fake, flowSpec{client: uint16(i), udp: true, backend: 1, generation: 1, replyFlags: flags})
		for _, key := range []bpf.BlixtFlowKey{forward, reply} {
			value := fake.FlowTable[key]
			value.Ref = 1
			fake.FlowTable[key] = value
		}
	}
	c.Flows, c.Answered, c.Reset, c.Unreachable = 12, 2, 2, 2
	want("one sweep", 0)
	want("two sweeps", 2) // 12 - 6 - 4
	want("and not twice", 2)

	add(0, func(f *bpf.BlixtFlow) { f.Flags = datapath.FlowAnswered })
	c.Answered++
	want("one was answered", 2)
	delete(fake.NewFlowTable, bpf.BlixtFlowKey{Sport: 1, Protocol: 6})
	want("one has ended", 2)
	want("one has ended, two sweeps", 3)

	c.Answered += 3 // of flows that begin while the table is read
	want("it never falls", 3)
	c.Flows += 3

	// A flow that one sweep does not see, as it is being moved.
	moved := bpf.BlixtFlowKey{Sport: 2, Protocol: 6}
	value := fake.NewFlowTable[moved]
	delete(fake.NewFlowTable, moved)
	want("moved", 3)
	fake.NewFlowTable[moved] = value
	want("there again", 3)

	// A process that begins anew goes on where this one was.
	w = newSweepingOver(fake)
	want("after a restart", 3)
	delete(fake.NewFlowTable, moved)
	want("first sweep", 3)
	want("second sweep", 4)

	// Somebody else gets the id.
	if err := fake.GiveRef(1, 77); err != nil {
		t.Fatal(err)
	}
	want("a new one", 0)
}

// newSweepingOver returns a writer of tables that hold something already.
func newSweepingOver(fake *datapath.Fake) *Writer {
	return New(fake, Options{Ticks: func() uint32 { return testNow }, Sleep: func(context.Context, time.Duration) error { return nil }})
}
