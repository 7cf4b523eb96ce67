// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Policies are asked when a flow begins. What they say of flows that have begun is up to
// the writer: a source that is newly denied loses its flows, a flow that has lasted as long as
// it may ends, and the numbers of concurrent flows are corrected.
const (
	// enforceSoon is how long after policies have changed their flows are looked at:
	// changes come in bursts.
	enforceSoon = 100 * time.Millisecond
	// enforceAgain is when they are looked at once more: a flow that was half open is
	// established by then.
	enforceAgain = 1500 * time.Millisecond
	// enforceEvery is how often the numbers of concurrent flows are corrected, but for
	// tables so large that it would take more than enforceShare of one core.
	enforceEvery = time.Second
	enforceShare = 0.1
)

// inForce is what policies say of flows, by the index of their frontend.
type inForce struct {
	policies map[uint32][]*datapath.PolicyInForce
	lists    map[uint32]*sourceList // by set
	maxAge   map[uint32]uint32      // ticks
	// limits is true if a policy limits how many flows there are.
	limits, limitsSources bool
}

// policiesInForce returns what the maps hold.
func (w *Writer) policiesInForce() (*inForce, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.contents == nil {
		var err error
		if w.contents, err = datapath.Read(w.tables, w.o.Clock()); err != nil {
			return nil, fmt.Errorf("read maps: %w", err)
		}
	}
	in := &inForce{policies: w.contents.PoliciesInForce(), lists: map[uint32]*sourceList{}, maxAge: map[uint32]uint32{}}
	for _, policies := range in.policies {
		for _, p := range policies {
			in.limitsSources = in.limitsSources || p.LimitsSources
			in.limits = in.limits || p.LimitsSources || p.LimitsAll
			if in.lists[p.Set] != nil {
				continue
			}
			if in.lists[p.Set] = w.lists[p.Set]; in.lists[p.Set] == nil {
				in.lists[p.Set] = &sourceList{entries: w.contents.SetSources(p.Set)}
			}
		}
	}
	for key, s := range w.contents.Frontends {
		if f := w.target.Frontend(key); f != nil && f.MaxAge > 0 {
			in.maxAge[s.Entry.Index] = datapath.Ticks(f.MaxAge)
		}
	}
	w.lists = in.lists // those of sets that are gone are forgotten
	return in, nil
}

// ends returns why policies end the flow of a forward entry; lives: they do not.
func (in *inForce) ends(e *datapath.FlowEntry, now uint32) end {
	const other = datapath.FlowReply | datapath.FlowUndone | datapath.FlowPlain | datapath.FlowClosed | datapath.FlowGone
	f := &e.Value
	if f.Flags&other != 0 || f.Generation == uint32(bpf.BlixtNoFlowOfNO_GENERATION) {
		return lives
	}
	for _, p := range in.policies[f.Frontend] {
		if !p.DryRun && (p.Set != 0 || p.OnlyAllowed) && in.lists[p.Set].refuses(&e.Key.Src.Bytes, p.OnlyAllowed) {
			return denied
		}
	}
	if age := in.maxAge[f.Frontend]; age > 0 && f.Born != 0 && int32(now-f.Born) > 0 && now-f.Born > spread(age, f.Tag) {
		return tooOld
	}
	return lives
}

// spread returns an age that is up to a tenth less, by the hash of a flow: those that began
// together do not end together.
func spread(age, hash uint32) uint32 {
	return age - uint32(uint64(age)*uint64(hash%1024)/10240)
}

// EnforceResult is the result of Enforce.
type EnforceResult struct {
	Entries       int
	Denied        int
	Corrected     int // numbers of concurrent flows
	LimitsFlows   bool
	Duration      time.Duration
	HasRestricted bool // frontends with policies
}

// Enforce visits all flows at once and without a pause: it ends those that policies deny, and
// corrects the numbers of concurrent flows.
func (w *Writer) Enforce() (r EnforceResult, err error) {
	w.enforcing.Lock()
	defer w.enforcing.Unlock()
	start := w.o.Clock()
	in, err := w.policiesInForce()
	if err != nil || len(in.policies) == 0 {
		return r, err
	}
	r.HasRestricted, r.LimitsFlows = true, in.limits
	backends, err := w.tables.Backends()
	if err != nil {
		return r, fmt.Errorf("read backends: %w", err)
	}
	s := sweeper{flows: w.tables, ticks: w.o.Ticks, backends: backends, established: newEstablished(w.tables), reset: w.o.Reset}
	counted, err := newConcurrent(w.tables, in)
	if err != nil {
		return r, err
	}
	now := w.o.Ticks()
	var failed error
	err = w.tables.EachFlow(func(entries []datapath.FlowEntry) bool {
		r.Entries += len(entries)
		for i := range entries {
			e := &entries[i]
			if _, restricted := in.policies[e.Value.Frontend]; !restricted {
				continue
			}
			if in.ends(e, now) == denied {
				if failed = s.endFlow(*e, denied); failed != nil {
					return false
				}
				continue
			}
			counted.has(e)
		}
		return true
	})
	if err == nil {
		err = failed
	}
	r.Denied = s.result.Denied
	if err == nil {
		r.Corrected, err = counted.correct()
	}
	if r.Denied > 0 && err == nil {
		err = w.forgetSlots()
	}
	r.Duration = w.o.Clock().Sub(start)
	return r, err
}

// forgetSlots has the program forget `flow_cache`: a slot would serve a flow that has ended
// until the end of its tick.
func (w *Writer) forgetSlots() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.tables.Config()
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	c.CacheEpoch++
	if err := w.tables.SetConfig(c); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// endFlow ends the flow of a forward entry that lives as far as the program is concerned.
func (s *sweeper) endFlow(e datapath.FlowEntry, why end) error {
	f, found, err := s.both(e)
	if err != nil || !found {
		return err
	}
	if err := s.remove(e, f, why); err != nil {
		return fmt.Errorf("end flow: %w", err)
	}
	s.result.add(why)
	if e.Value.Flags&uint32(bpf.BlixtFlowFlagFLOW_RECORDED) == 0 {
		return nil
	}
	reason := bpf.BlixtEndReasonRECORD_DENIED
	if why == tooOld {
		reason = bpf.BlixtEndReasonRECORD_MAX_AGE
	}
	return s.flows.EndRecord(f.forward, reason)
}

// concurrent counts the flows that policies limit. It corrects numbers as established does: only
// where what it has found lies outside of all that the program has said meanwhile. So
// numbers are wrong for no longer than until the next time: by flows that were there
// before their policy, and by those whose entry, or whose source's entry, an LRU table has evicted.
type concurrent struct {
	flows  datapath.LimitedFlows
	in     *inForce
	before []int32
	found  map[uint32]int32 // by policy id
	// The same of sources.
	sources      map[bpf.BlixtLimitedSourceKey]int32
	foundSources map[bpf.BlixtLimitedSourceKey]int32
}

func newConcurrent(flows datapath.LimitedFlows, in *inForce) (c *concurrent, err error) {
	c = &concurrent{flows: flows, in: in, found: map[uint32]int32{}, foundSources: map[bpf.BlixtLimitedSourceKey]int32{}}
	if in.limits {
		c.before = flows.Concurrent()
		c.sources, err = c.read()
	}
	return c, err
}

// read returns the numbers of all sources.
func (c *concurrent) read() (map[bpf.BlixtLimitedSourceKey]int32, error) {
	all := map[bpf.BlixtLimitedSourceKey]int32{}
	if !c.in.limitsSources {
		return all, nil
	}
	err := c.flows.EachLimitedSource(func(some []datapath.LimitedSource) bool {
		for _, s := range some {
			all[s.Key] = int32(s.Value.Concurrent)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("read limited_sources: %w", err)
	}
	return all, nil
}

// has counts an entry. A UDP flow counts once it was answered, which its reply entry knows.
func (c *concurrent) has(e *datapath.FlowEntry) {
	const other = datapath.FlowUndone | datapath.FlowPlain
	f, client := &e.Value, e.Key.Src
	if !c.in.limits || f.Flags&other != 0 {
		return
	}
	if lb.Protocol(e.Key.Protocol) == lb.UDP {
		if f.Flags&(datapath.FlowReply|datapath.FlowAnswered) != datapath.FlowReply|datapath.FlowAnswered {
			return
		}
		client = f.Dst
	} else if f.Flags&datapath.FlowReply != 0 {
		return
	}
	for _, p := range c.in.policies[f.Frontend] {
		if p.LimitsAll {
			c.found[p.ID]++
		}
		if p.LimitsSources {
			c.foundSources[datapath.LimitedSourceKey(p.ID, client, p.Bits4, p.Bits6)]++
		}
	}
}

// correct returns how many numbers were wrong.
func (c *concurrent) correct() (wrong int, err error) {
	if !c.in.limits {
		return 0, nil
	}
	after := c.flows.Concurrent()
	limited := map[uint32]bool{}
	for _, policies := range c.in.policies {
		for _, p := range policies {
			if p.LimitsAll && !limited[p.ID] {
				limited[p.ID] = true
				if d := drift(c.found[p.ID], c.before[p.ID], after[p.ID]); d != 0 {
					c.flows.AddConcurrent(p.ID, d)
					wrong++
				}
			}
			limited[p.ID] = true
		}
	}
	now, err := c.read()
	if err != nil {
		return wrong, err
	}
	for key := range now {
		c.foundSources[key] += 0
	}
	for key, found := range c.foundSources {
		if d := drift(found, c.sources[key], now[key]); d != 0 && limited[key.Policy] {
			if err := c.flows.AddLimitedSource(key, d); err != nil {
				return wrong, err
			}
			wrong++
		}
	}
	return wrong, nil
}

// drift returns what has to be added to a number that was before, and is after what was found.
func drift(found, before, after int32) int32 {
	switch {
	case found < min(before, after):
		return found - min(before, after)
	case found > max(before, after):
		return found - max(before, after)
	}
	return 0
}

// enforceForever enforces policies soon after they have changed, and at intervals where one
// limits the number of flows.
func (w *Writer) enforceForever(ctx context.Context) {
	due := time.NewTimer(enforceSoon) // what was in force before this process
	defer due.Stop()
	again := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.policiesChanged:
			again = true
			due.Reset(enforceSoon)
			continue
		case <-due.C:
		}
		r, err := w.Enforce()
		switch {
		case err != nil:
			w.o.Log.Error("enforce policies on flows", "error", err)
			due.Reset(enforceAgain)
			continue
		case r.Denied > 0:
			w.o.Log.Info("ended flows of sources that policies do not admit any more", "flows", r.Denied, "took", r.Duration)
		}
		switch every := max(enforceEvery, time.Duration(float64(r.Duration)/enforceShare)); {
		case again:
			again = false
			due.Reset(enforceAgain)
		case r.LimitsFlows:
			due.Reset(every)
		}
	}
}

// enforceAfterChange has policies enforced soon.
func (w *Writer) enforceAfterChange() {
	select {
	case w.policiesChanged <- struct{}{}:
	default:
	}
}
