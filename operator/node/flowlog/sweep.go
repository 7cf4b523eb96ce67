// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

const (
	// sweepEvery is how often records are looked for whose flow is gone.
	sweepEvery = 5 * time.Second
	// youngFor is how long after its last packet a record is left alone: the program
	// writes it and the flow's entries one after the other.
	youngFor = 2 * time.Second
	// sweepShare is the part of one core that a sweep uses.
	sweepShare = 0.1
)

func (l *Log) sweepForever(ctx context.Context, s *source) {
	failing := false // a seccomp profile of an earlier version does not let it: once is enough
	for pause(ctx, sweepEvery) {
		err := l.sweep(ctx, s)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			l.o.Log.Error("flows that have ended without a packet are not found: is the seccomp profile of an earlier version?", "error", err)
		}
		failing = err != nil
	}
}

// pause waits for d. It returns false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// sweep remembers the records of flows that have ended where the program did not see it:
// nothing came any more, a table has evicted them, or the agent has removed them.
func (l *Log) sweep(ctx context.Context, s *source) error {
	before := s.Maps.RecordedFlows()
	if before == 0 {
		return nil
	}
	backends, err := s.Maps.Backends()
	if err != nil {
		return fmt.Errorf("read backends: %w", err)
	}
	seen := 0
	var failed error
	busy := l.o.Clock()
	err = s.Maps.EachRecorded(func(all []datapath.RecordedFlow) bool {
		seen += len(all)
		for _, it := range all {
			if failed = l.visit(s, backends, it); failed != nil {
				return false
			}
		}
		worked := min(max(l.o.Clock().Sub(busy), 0), time.Second)
		if !pause(ctx, time.Duration(float64(worked)*(1/sweepShare-1))) {
			failed = ctx.Err()
		}
		busy = l.o.Clock()
		return failed == nil
	})
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	// Whoever was killed between a deletion and its count has left the number wrong. Where
	// it has not moved since, the difference is that.
	if after := s.Maps.RecordedFlows(); after == before && seen != int(after) {
		s.Maps.AddRecordedFlows(int32(seen - int(after)))
	}
	return nil
}

// visit remembers a record if its flow is gone.
func (l *Log) visit(s *source, backends []bpf.BlixtBackend, it datapath.RecordedFlow) error {
	now := uint64(l.o.BootClock().UnixNano())
	if now < it.Value.Ended+uint64(youngFor) {
		return nil
	}
	f, found, err := datapath.AnyFlow(s.Maps, it.Key)
	if err != nil {
		return fmt.Errorf("look up flow: %w", err)
	}
	if found && f.Flags&uint32(bpf.BlixtFlowFlagFLOW_RECORDED) != 0 {
		expired, err := l.expired(s, it.Key, &f)
		if err != nil || !expired {
			return err
		}
	}
	r, taken, err := s.Maps.TakeRecorded(it.Key)
	if err != nil || !taken {
		return err
	}
	if r.Began != it.Value.Began || r.Ended != it.Value.Ended {
		// The flow lives, or another one has taken its place.
		if returned, err := s.Maps.ReturnRecorded(it.Key, r); err != nil || returned {
			return err
		}
	}
	addUncounted(s.Maps, it.Key, &r)
	r.Event = uint8(bpf.BlixtRecordEventRECORD_END)
	if r.Reason == 0 {
		r.Reason = uint8(l.whyGone(&r, backends, now))
	}
	l.add([]entry{{r: r}})
	return nil
}

// addUncounted adds to a record what it does not have yet. Where that cannot be read, the
// record says a little less.
func addUncounted(maps datapath.Records, forward bpf.BlixtFlowKey, r *bpf.BlixtFlowRecord) {
	reply := bpf.BlixtFlowKey{Src: r.Backend, Dst: r.Snat, Sport: r.BackendPort, Dport: r.SnatPort, Protocol: r.Protocol}
	for i, key := range []bpf.BlixtFlowKey{forward, reply} {
		if packets, bytes, err := maps.Uncounted(key); err == nil {
			r.Packets[i] += packets
			r.Bytes[i] += bytes
		}
	}
}

// expired reports whether no direction of a flow has seen a packet for too long: a flow of
// `new_flows` stays there nevertheless, until its place is needed.
func (l *Log) expired(s *source, key bpf.BlixtFlowKey, f *bpf.BlixtFlow) (bool, error) {
	if !idle(f, l.o.Ticks()) {
		return false, nil
	}
	reply, found, err := datapath.AnyFlow(s.Maps, replyKey(key, f))
	if err != nil {
		return false, fmt.Errorf("look up flow: %w", err)
	}
	return !found || idle(&reply, l.o.Ticks()), nil
}

// idle reports whether an entry has seen no packet for longer than it may.
func idle(f *bpf.BlixtFlow, now uint32) bool {
	return int32(now-f.LastSeen) > 0 && now-f.LastSeen > f.IdleTicks
}

// embryonicFor is EMBRYONIC_TICKS of bpf/limits.h.
const embryonicFor = 63 * time.Second

// whyGone returns why a flow is gone that nobody has seen end.
func (l *Log) whyGone(r *bpf.BlixtFlowRecord, backends []bpf.BlixtBackend, now uint64) bpf.BlixtEndReason {
	silent := time.Duration(now - r.Ended)
	idleFor := lb.DefaultIdleTimeout(lb.Protocol(r.Protocol))
	if f, _ := l.names.of(keyOf(r)); f != nil {
		idleFor = f.IdleTimeout
	}
	switch {
	case int(r.BackendId) < len(backends) && backends[r.BackendId].Generation != r.Generation:
		return bpf.BlixtEndReasonRECORD_BACKEND_GONE
	case r.Packets[1] == 0 && silent >= min(embryonicFor, idleFor):
		return bpf.BlixtEndReasonRECORD_UNANSWERED
	case silent >= idleFor:
		return bpf.BlixtEndReasonRECORD_IDLE
	}
	return bpf.BlixtEndReasonRECORD_EVICTED
}
