// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// How long a flow is kept after its last packet, once it ends.
const (
	// transitoryFor is for a flow that one side at least has closed or reset:
	// RFC 5382, REQ-5, and RFC 7857, 2.1 and 2.2. The data plane gives a
	// half-closed flow this idle timeout itself, and moves a closed one to
	// `new_flows`. What is left here could not be moved.
	transitoryFor = 4 * time.Minute
	// goneFor is for a flow whose backend is gone: the data plane answers its
	// packets with a reset. Where Options.Reset tells both ends, it ends at once.
	goneFor = 60 * time.Second
)

// pauses are how long after its last packet a flow is kept that is half closed,
// closed (by both sides, or by a RST), or without its backend.
type pauses struct{ halfClosed, closed, gone uint32 } // ticks

// sweepShare is the part of one core that a sweep uses: 4 million flows have 8
// million entries, which take five seconds of work, and so are swept within a
// minute.
const sweepShare = 0.1

// FlowCounts counts active flows.
type FlowCounts struct {
	TCP, UDP  uint64
	Backends  map[uint32]uint64 // by id
	Frontends map[uint32]uint64 // by index
	Refs      map[uint32]uint64 // by id of the backendRef
	// Undone are those of the flows above whose clients another node has announced,
	// Plain those that keep the other node's address.
	Undone, Plain uint64

	translated map[bpf.BlixtAddr]bool // sources that flows are translated to
	last       bpf.BlixtAddr          // of them
}

// maxSources is how many sources are told apart: more than a node has devices.
const maxSources = 64

// newFlowCounts returns counts of no flows.
func newFlowCounts() FlowCounts {
	return FlowCounts{Backends: map[uint32]uint64{}, Frontends: map[uint32]uint64{}, Refs: map[uint32]uint64{}, translated: map[bpf.BlixtAddr]bool{}}
}

// addSource adds the source that a flow is translated to.
func (c *FlowCounts) addSource(a bpf.BlixtAddr) {
	if a != c.last && len(c.translated) < maxSources {
		c.translated[a], c.last = true, a
	}
}

// sources returns the addresses to which sources are translated, in order.
func (c FlowCounts) sources() (all []netip.Addr) {
	for a := range c.translated {
		all = append(all, datapath.FromAddr(a))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// Total returns the number of all flows.
func (c FlowCounts) Total() uint64 { return c.TCP + c.UDP }

// SweepResult is the result of a sweep.
type SweepResult struct {
	Entries int
	// Idle, Closed, Gone, Denied and TooOld are the numbers of removed flows, by reason.
	Idle, Closed, Gone, Denied, TooOld int
	Flows                              FlowCounts
	Duration                           time.Duration
}

// Removed returns the number of removed flows.
func (s SweepResult) Removed() int { return s.Idle + s.Closed + s.Gone + s.Denied + s.TooOld }

// add counts a removed flow.
func (s *SweepResult) add(why end) {
	switch why {
	case idle:
		s.Idle++
	case closed:
		s.Closed++
	case gone:
		s.Gone++
	case denied:
		s.Denied++
	case tooOld:
		s.TooOld++
	}
}

// Sweep visits every established TCP flow and every UDP flow once, removes those
// that have ended, and counts the others for the status. UDP flows are in an LRU
// table, which needs no sweep: but where idle ones are removed, it is full, and
// evicts others, only if that many are in use. Then it visits new flows, too, and
// clears what no flow needs any more in `interest`. It sleeps most of the time, see
// sweepShare.
func (w *Writer) Sweep(ctx context.Context) (SweepResult, error) {
	w.sweep.Lock()
	defer w.sweep.Unlock()
	start := w.o.Clock()
	backends, err := w.tables.Backends()
	if err != nil {
		return SweepResult{}, fmt.Errorf("read backends: %w", err)
	}
	s := sweeper{
		flows: w.tables, ticks: w.o.Ticks, backends: backends,
		pauses:      pauses{datapath.Ticks(transitoryFor), datapath.Ticks(transitoryFor), datapath.Ticks(goneFor)},
		established: newEstablished(w.tables), reset: w.o.Reset,
	}
	s.result.Flows = newFlowCounts()
	if s.policies, err = w.policiesInForce(); err != nil {
		return SweepResult{}, err
	}
	interest := newInterest(start)
	unanswered, err := newUnanswered(w.tables)
	if err != nil {
		return SweepResult{}, err
	}
	err = w.walk(ctx, w.tables.EachFlow, func(entries []datapath.FlowEntry) error {
		for _, e := range entries {
			interest.has(e)
			unanswered.has(e)
			if err := s.visit(e); err != nil {
				return err
			}
		}
		s.established.look()
		return nil
	})
	s.result.Duration = w.o.Clock().Sub(start)
	if err != nil {
		return s.result, err
	}
	s.established.correct()
	w.counts.Lock()
	w.counts.flows = s.result.Flows
	w.counts.Unlock()
	err = w.walk(ctx, w.tables.EachNewFlow, func(entries []datapath.FlowEntry) error {
		for _, e := range entries {
			interest.has(e)
			unanswered.has(e)
		}
		return nil
	})
	if err != nil {
		return s.result, err
	}
	w.waited = unanswered.settle(w.tables, w.waited)
	return s.result, w.settleInterest(interest)
}

// walk visits a table at the pace of a sweep.
func (w *Writer) walk(ctx context.Context, each func(func([]datapath.FlowEntry) bool) error, visit func([]datapath.FlowEntry) error) error {
	var failed error
	busy := w.o.Clock()
	err := each(func(entries []datapath.FlowEntry) bool {
		if failed = visit(entries); failed != nil {
			return false
		}
		worked := min(max(w.o.Clock().Sub(busy), 0), time.Second)
		failed = w.o.Sleep(ctx, time.Duration(float64(worked)*(1/sweepShare-1)))
		busy = w.o.Clock()
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	return err
}

type sweeper struct {
	flows       datapath.Flows
	ticks       func() uint32
	backends    []datapath.Backend
	pauses      pauses
	established *established
	reset       func(Reset) // nil: it cannot
	policies    *inForce    // nil: they are not asked
	result      SweepResult
}

// end is why a flow ends.
type end int

const (
	lives    end = iota
	vanished     // removed since the batch was read
	idle
	closed
	gone
	denied // by a policy
	tooOld // the same
)

// visit removes the flow of an entry if it has ended, otherwise it counts the
// flow.
func (s *sweeper) visit(e datapath.FlowEntry) error {
	s.result.Entries++
	f, why, err := s.classify(e)
	if err != nil {
		return err
	}
	if why > vanished {
		if err := s.remove(e, f, why); err != nil {
			return fmt.Errorf("remove flow: %w", err)
		}
	}
	s.result.add(why)
	if why != lives {
		return nil
	}
	if s.policies != nil {
		if why := s.policies.ends(&e, s.ticks()); why != lives {
			if s.marks(e) {
				s.established.has(e)
			}
			return s.endFlow(e, why)
		}
	}
	s.established.has(e)
	s.count(e)
	return nil
}

// remove removes a flow that has ended, of which e is an entry. A TCP flow that policies end is
// left for the program to reset, if nobody else can.
func (s *sweeper) remove(e datapath.FlowEntry, f flow, why end) error {
	if (why == denied || why == tooOld) && s.marks(e) {
		if err := s.flows.MarkGone(f.forward); err != nil {
			return err
		}
		return s.flows.MarkGone(f.reply)
	}
	resets := why == gone || why == denied || why == tooOld
	// The forward entry first: without it, no packet refreshes the other one.
	deleted, err := s.flows.DeleteFlow(f.forward)
	buries := false
	if err == nil && e.Value.Flags&datapath.FlowPlain == 0 {
		buries, err = s.flows.DeleteFlow(f.reply)
	}
	tcp := lb.Protocol(f.reply.Protocol) == lb.TCP
	// A backend on this node that does not know yet would be heard with its own
	// address, and one that is gone may hear of it.
	if err == nil && buries && tcp && (resets || why == idle && isLocal(e.Value)) {
		flags := e.Value.Flags
		if flags&datapath.FlowUndone != 0 {
			flags = datapath.FlowStack // only its forward entry has it
		}
		err = s.flows.Bury(f.reply, bpf.BlixtFlowFlag(flags), s.ticks())
	}
	if err != nil {
		return err
	}
	if deleted {
		s.established.removed(e)
	}
	if deleted && buries && tcp && resets && s.reset != nil {
		if err := f.update(s.flows); err != nil {
			return err
		}
		for _, r := range f.resets() {
			s.reset(r)
		}
	}
	return nil
}

// marks reports whether a flow that policies end stays until the program resets it.
func (s *sweeper) marks(e datapath.FlowEntry) bool {
	return s.reset == nil && lb.Protocol(e.Key.Protocol) == lb.TCP
}

// isLocal reports whether the flow's backend is on this node, and sees its
// client: is_local in bpf/flow.h, or the flow is undone.
func isLocal(f datapath.Flow) bool {
	return f.Flags&(datapath.FlowStack|datapath.FlowSNAT) == datapath.FlowStack || f.Flags&datapath.FlowUndone != 0
}

// flow is both entries of a flow, read together.
type flow struct {
	forward, reply datapath.FlowKey
	out, back      datapath.Flow // out or back is zero if the table has lost it
	plain          bool          // it has a forward entry alone
}

// classify returns whether and why the flow of an entry has ended, and the flow
// if it has.
func (s *sweeper) classify(e datapath.FlowEntry) (flow, end, error) {
	now := s.ticks()
	if !s.mayEnd(e.Value, now) {
		return flow{}, lives, nil
	}
	f, found, err := s.both(e)
	if err != nil || !found {
		return flow{}, vanished, err
	}
	entries := []datapath.Flow{f.out}
	if e.Value.Flags&datapath.FlowReply != 0 {
		entries[0] = f.back
	}
	if f.plain {
		return f, s.end(now, entries...), nil
	}
	if other := f.other(e); other != (datapath.Flow{}) {
		entries = append(entries, other)
	}
	return f, s.end(now, entries...), nil
}

// both reads the entries of a flow, of which e is one: a batch may be outdated, so it
// is read again right before the flow is removed. found is false if e is gone.
func (s *sweeper) both(e datapath.FlowEntry) (f flow, found bool, err error) {
	own, found, err := s.flows.Flow(e.Key)
	if err != nil || !found {
		return flow{}, false, err
	}
	f = flow{forward: e.Key, reply: peer(e.Key, own), out: own, plain: own.Flags&datapath.FlowPlain != 0}
	if f.plain { // it has one entry; the other key may be of another flow
		return f, true, nil
	}
	if f.back, _, err = s.flows.Flow(f.reply); err != nil {
		return flow{}, false, err
	}
	if own.Flags&datapath.FlowReply != 0 {
		f.forward, f.reply, f.out, f.back = f.reply, f.forward, f.back, f.out
	}
	return f, true, nil
}

// other returns the entry that e is not.
func (f *flow) other(e datapath.FlowEntry) datapath.Flow {
	if e.Value.Flags&datapath.FlowReply != 0 {
		return f.out
	}
	return f.back
}

// peer returns the key of a flow's other entry: the translated tuple,
// reversed.
func peer(k datapath.FlowKey, f datapath.Flow) datapath.FlowKey {
	return datapath.FlowKey{Src: f.Dst, Dst: f.Src, Sport: f.Dport, Dport: f.Sport, Protocol: k.Protocol}
}

// mayEnd reports whether this entry alone is a reason to read both. Each flow
// that has ended has such an entry.
func (s *sweeper) mayEnd(f datapath.Flow, now uint32) bool {
	age := age(f, now)
	return age > f.IdleTicks ||
		age > min(s.pauses.halfClosed, s.pauses.closed) && f.Flags&(datapath.FlowFIN|datapath.FlowRST) != 0 ||
		int64(age) > s.goneAfter(f) && s.backendGone(f)
}

// goneAfter returns how long a flow is kept whose backend is gone; negative: not at all.
// Where both ends can be told, nobody has to wait for the next packet to hear it.
func (s *sweeper) goneAfter(f datapath.Flow) int64 {
	if s.reset != nil && f.Flags&datapath.FlowEstablished != 0 {
		return -1
	}
	return int64(s.pauses.gone)
}

// end returns whether and why a flow with these entries has ended.
func (s *sweeper) end(now uint32, entries ...datapath.Flow) end {
	young := age(entries[0], now)
	fins, rst, dead := 0, false, false
	idleTicks := uint32(0)
	for _, f := range entries {
		young = min(young, age(f, now))
		idleTicks = max(idleTicks, f.IdleTicks)
		if f.Flags&datapath.FlowFIN != 0 {
			fins++
		}
		rst = rst || f.Flags&datapath.FlowRST != 0
		dead = dead || s.backendGone(f)
	}
	switch {
	case dead && int64(young) > s.goneAfter(entries[0]):
		return gone
	case (rst || fins == 2) && young > s.pauses.closed, fins > 0 && young > s.pauses.halfClosed:
		return closed
	case young > idleTicks:
		return idle
	}
	return lives
}

// age returns the number of ticks since the entry's last packet, which may be
// later than now.
func age(f datapath.Flow, now uint32) uint32 {
	if d := int32(now - f.LastSeen); d > 0 {
		return uint32(d)
	}
	return 0
}

// backendGone compares with the generations that were read before the sweep.
// Generations only grow: a backend that was gone then is gone for good, and a
// flow that is newer is left alone.
func (s *sweeper) backendGone(f datapath.Flow) bool {
	return int(f.Backend) < len(s.backends) && int32(s.backends[f.Backend].Generation-f.Generation) > 0
}

// count counts a flow by its forward entry, unless it is over: its backend is
// gone, or its client has sent a FIN or RST.
func (s *sweeper) count(e datapath.FlowEntry) {
	const over = datapath.FlowReply | datapath.FlowFIN | datapath.FlowRST
	f := e.Value
	if f.Flags&over != 0 || s.backendGone(f) {
		return
	}
	if lb.Protocol(e.Key.Protocol) == lb.UDP {
		s.result.Flows.UDP++
	} else {
		s.result.Flows.TCP++
	}
	switch {
	case f.Flags&datapath.FlowUndone != 0:
		s.result.Flows.Undone++
	case f.Flags&datapath.FlowPlain != 0:
		s.result.Flows.Plain++
	case f.Flags&datapath.FlowSNAT != 0:
		s.result.Flows.addSource(f.Src)
	}
	s.result.Flows.Backends[f.Backend]++
	if f.Frontend != uint32(bpf.BlixtNoFlowOfNO_FRONTEND) { // otherwise ref is something else
		s.result.Flows.Frontends[f.Frontend]++
		s.result.Flows.Refs[f.Ref]++
	}
}
