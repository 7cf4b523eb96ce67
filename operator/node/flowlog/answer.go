// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"cmp"
	"container/heap"
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// maxOpen is how many open flows an answer has at most, those of the latest packets: 10 MB
// while it is made.
const maxOpen = 16384

// Flows answers a question for flows: what the memory tells, then the flows that have not
// ended, then what has come meanwhile, and with Follow what comes.
func (l *Log) Flows(ctx context.Context, q observe.FlowsQuery, send func(any) error) error {
	l.refreshAllNames()
	reading := l.memory.end() // before the tables are read: so no flow ends in between unseen
	open, openLeft, recording, err := l.openFlows(ctx, q)
	if err != nil {
		return err
	}
	past, left := l.past(q, reading)
	m, err := l.tell(recording)
	if err != nil {
		return err
	}
	m.LeftOut = left + openLeft
	if err := send(observe.FlowsPiece{Memory: m}); err != nil {
		return err
	}
	for _, it := range past {
		if err := l.sendAt(ctx, q.Filter, it, send); err != nil {
			return err
		}
	}
	for _, r := range open {
		if err := cmp.Or(ctx.Err(), send(observe.FlowsPiece{Record: r})); err != nil {
			return err
		}
	}
	return l.follow(ctx, q, reading, send)
}

// spot is an entry of the memory, by its part and number.
type spot struct {
	time int64
	part part
	n    uint64
}

// past returns what a filter selects of the memory up to a place, oldest first, and how
// many it has left out.
func (l *Log) past(q observe.FlowsQuery, end place) (all []spot, left int) {
	copied := make([]entry, chunk)
	for p := range parts {
		var at place
		if !mayHave(p, q.Filter.Events) {
			continue
		}
		if hasAll(p, &q.Filter) && q.Last > 0 { // then the newest of all are among its newest
			first := l.memory.first(p)
			at[p] = max(first, end[p]-min(end[p], uint64(q.Last)))
			left += int(at[p] - min(at[p], first))
		}
		for {
			n, _ := l.memory.next(p, &at, end[p], copied)
			if n == 0 {
				break
			}
			for i := range n {
				if q.Filter.Has(l.record(&copied[i])) {
					all = append(all, spot{copied[i].time, p, at[p] - uint64(n-i)})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b spot) int {
		return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.part, b.part), cmp.Compare(a.n, b.n))
	})
	if more := len(all) - q.Last; q.Last > 0 && more > 0 {
		all, left = all[more:], left+more
	}
	return all, left
}

// mayHave reports whether a part has events of these kinds; none: of all.
func mayHave(p part, events []observe.Event) bool {
	ends := slices.Contains(events, observe.EventEnd)
	others := slices.Contains(events, observe.EventRejected) || slices.Contains(events, observe.EventDropped)
	return len(events) == 0 || p == partPackets && others || p != partPackets && ends
}

// hasAll reports whether a filter selects all of a part, whatever they are.
func hasAll(p part, f *observe.Filter) bool {
	rest := *f
	if rest.Events = nil; p == partPackets && len(f.Events) > 0 { // some of them, perhaps
		return false
	}
	return reflect.ValueOf(rest).IsZero() && mayHave(p, f.Events)
}

// sendAt sends one entry of the memory, unless it was forgotten meanwhile.
func (l *Log) sendAt(ctx context.Context, f observe.Filter, it spot, send func(any) error) error {
	var one [1]entry
	var at place
	at[it.part] = it.n
	if n, missed := l.memory.next(it.part, &at, it.n+1, one[:]); n == 0 || missed > 0 {
		return ctx.Err()
	}
	if r := l.record(&one[0]); f.Has(r) {
		return cmp.Or(ctx.Err(), send(observe.FlowsPiece{Record: r}))
	}
	return ctx.Err()
}

// follow sends what has come since a place, and with q.Follow what comes. Who reads
// slowly misses what is forgotten until then, and is told so.
func (l *Log) follow(ctx context.Context, q observe.FlowsQuery, at place, send func(any) error) error {
	copied := make([]entry, chunk)
	now := l.memory.end()
	for {
		ready := l.memory.wait(at)
		end := now
		if q.Follow {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ready:
			}
			end = l.memory.end()
		}
		var missed uint64
		for p := range parts {
			for {
				n, lost := l.memory.next(p, &at, end[p], copied)
				missed += lost
				if n == 0 {
					break
				}
				for i := range n {
					if r := l.record(&copied[i]); q.Filter.Has(r) {
						if err := cmp.Or(ctx.Err(), send(observe.FlowsPiece{Record: r})); err != nil {
							return err
						}
					}
				}
			}
		}
		if missed > 0 {
			m, err := l.tell(observe.RecordingAll)
			if err != nil {
				return err
			}
			m.Recording, m.Missed = "", missed
			if err := send(observe.FlowsPiece{Memory: m}); err != nil {
				return err
			}
		}
		if !q.Follow {
			return nil
		}
	}
}

// tell returns what the memory holds.
func (l *Log) tell(recording string) (*observe.Memory, error) {
	stats, err := l.Stats()
	if err != nil {
		return nil, err
	}
	m := &observe.Memory{Recording: recording, Began: l.memory.began.UTC(), Lost: map[string]uint64{}}
	for where, n := range stats.Lost {
		if n > 0 {
			m.Lost[where] = n
		}
	}
	for p, part := range []*observe.Remembered{&m.Flows, &m.Attempts, &m.Packets} {
		n, oldest, forgot := l.memory.held(partNumber(p))
		if part.Records = n; forgot {
			part.Since = time.Unix(0, oldest).UTC()
		}
	}
	return m, nil
}

func partNumber(i int) part { return part(i) }

// openFlows returns the flows in the tables that a filter selects, in the order of their
// last packets, how many it has left out, and whether flows are recorded.
func (l *Log) openFlows(ctx context.Context, q observe.FlowsQuery) (all []*observe.Record, left int, recording string, err error) {
	most := maxOpen
	if q.Last > 0 {
		most = min(most, q.Last)
	}
	var newest openHeap
	var on, off int
	err = l.eachSource(func(s *source) error {
		can := len(s.Maps.FlowLogs()) > 0
		frontends, err := l.recordingOf(s)
		if err != nil {
			return err
		}
		on, off = on+frontends[0], off+frontends[1]
		if !can {
			recording = observe.RecordingNot
		}
		if !q.Open || len(q.Filter.Events) > 0 && !slices.Contains(q.Filter.Events, observe.EventOpen) {
			return nil
		}
		visit := func(entries []datapath.FlowEntry) bool {
			for i := range entries {
				r, open := l.open(s, can, &entries[i])
				if !open || !q.Filter.Has(r) {
					continue
				}
				heap.Push(&newest, r)
				if len(newest) > most {
					heap.Pop(&newest)
					left++
				}
			}
			return ctx.Err() == nil
		}
		if err := s.Maps.EachFlow(visit); err != nil {
			return err
		}
		return s.Maps.EachNewFlow(visit)
	})
	if err = cmp.Or(err, ctx.Err()); err != nil {
		return nil, 0, "", err
	}
	all = newest
	slices.SortFunc(all, func(a, b *observe.Record) int { return a.Time.Compare(b.Time) })
	if recording == "" {
		switch {
		case on > 0 && off > 0:
			recording = observe.RecordingSome
		case on > 0:
			recording = observe.RecordingAll
		case off > 0:
			recording = observe.RecordingOff
		}
	}
	return all, left, recording, nil
}

// recordingOf returns how many frontends of a source have their flows recorded, and how
// many have not.
func (l *Log) recordingOf(s *source) (n [2]int, err error) {
	all, err := s.Maps.Frontends()
	for _, f := range all {
		if f.Flags&uint32(bpf.BlixtFrontendFlagFRONTEND_RECORDS) != 0 {
			n[0]++
		} else {
			n[1]++
		}
	}
	return n, err
}

// open returns the record of an entry of a table. It returns false for what is no
// forward entry of a flow of ours that lasts.
func (l *Log) open(s *source, recorded bool, e *datapath.FlowEntry) (*observe.Record, bool) {
	const not = bpf.BlixtFlowFlagFLOW_REPLY | bpf.BlixtFlowFlagFLOW_GONE | bpf.BlixtFlowFlagFLOW_CLOSED | bpf.BlixtFlowFlagFLOW_UNDONE | bpf.BlixtFlowFlagFLOW_PLAIN
	f := &e.Value
	tick := l.o.Ticks()
	if f.Flags&uint32(not) != 0 || f.Frontend == uint32(bpf.BlixtNoFlowOfNO_FRONTEND) || idle(f, tick) {
		return nil, false
	}
	r, found := flowRecord(e.Key, f), false
	last := l.o.Clock().UnixNano() - int64(int32(tick-f.LastSeen))<<datapath.TickShift
	if recorded && f.Flags&uint32(bpf.BlixtFlowFlagFLOW_RECORDED) != 0 {
		if it, has, err := s.Maps.Recorded(e.Key); err == nil && has {
			r, found = it, true
			addUncounted(s.Maps, e.Key, &r)
			last = int64(r.Ended) + l.wall.ahead()
		}
	}
	names, was := l.names.of(keyOf(&r))
	out := recordOf(&r, last, names, was)
	out.Node, out.Event = l.o.Node, observe.EventOpen
	if !found { // a tick is all that is known
		out.Time = out.Time.Truncate(time.Second)
	}
	return out, true
}

// openHeap has the record with the earliest packet at its top.
type openHeap []*observe.Record

func (h openHeap) Len() int           { return len(h) }
func (h openHeap) Less(i, j int) bool { return h[i].Time.Before(h[j].Time) }
func (h openHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *openHeap) Push(x any)        { *h = append(*h, x.(*observe.Record)) }
func (h *openHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	*h = (*h)[:last]
	return r
}

// Drops answers a question for the last packets of reasons.
func (l *Log) Drops(ctx context.Context, q observe.DropsQuery, send func(any) error) error {
	names, err := datapath.CounterNames()
	if err != nil {
		return err
	}
	packets := make([]uint64, len(names))
	err = l.eachSource(func(s *source) error {
		counters, err := s.Maps.Counters()
		if err != nil {
			return fmt.Errorf("read counters: %w", err)
		}
		for i, n := range counters[:min(len(counters), len(packets))] {
			packets[i] += n
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, name := range names {
		if !isDrop(name) || len(q.Reasons) > 0 && !slices.ContainsFunc(q.Reasons, func(r string) bool { return observe.HasReason(r, name) }) {
			continue
		}
		out := observe.DropsOf{Reason: name, Packets: packets[i]}
		last := l.memory.lastDrops(i)
		if q.Last > 0 && len(last) > q.Last {
			last = last[len(last)-q.Last:]
		}
		for k := range last {
			if k > 0 && last[k].r.Sampled > 0 {
				out.LeftOut += uint64(last[k].r.Sampled) - 1
			}
			out.Last = append(out.Last, *l.record(&last[k]))
		}
		if out.Packets == 0 && len(out.Last) == 0 {
			continue
		}
		if err := cmp.Or(ctx.Err(), send(out)); err != nil {
			return err
		}
	}
	return nil
}

// isDrop reports whether a counter counts packets that end here.
func isDrop(name string) bool {
	return strings.HasPrefix(name, "drop_") || strings.HasPrefix(name, "reject_")
}
