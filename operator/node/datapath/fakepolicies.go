// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"slices"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// fakePolicies are the tables of policies.
type fakePolicies struct {
	words    []PolicyWord
	elements []bpf.BlixtPolicy
	sources  map[bpf.BlixtSourceKey]uint32
	reset    map[uint32]int // how often each id was
}

func newFakePolicies(s Sizes) fakePolicies {
	return fakePolicies{
		words: make([]PolicyWord, s.Frontends), elements: make([]bpf.BlixtPolicy, s.Policies),
		sources: map[bpf.BlixtSourceKey]uint32{}, reset: map[uint32]int{},
	}
}

// EnforcesPolicies implements Tables.
func (f *Fake) EnforcesPolicies() bool { return !f.Earlier && f.sizes.Policies > 0 }

// FrontendPolicies implements Tables.
func (f *Fake) FrontendPolicies() ([]PolicyWord, error) {
	return get(f, func() []PolicyWord { return slices.Clone(f.p.words) })
}

// SetFrontendPolicies implements Tables.
func (f *Fake) SetFrontendPolicies(index uint32, w PolicyWord) error {
	return f.write(func() { f.p.words[index] = w })
}

// Policies implements Tables.
func (f *Fake) Policies() ([]bpf.BlixtPolicy, error) {
	return get(f, func() []bpf.BlixtPolicy { return slices.Clone(f.p.elements) })
}

// PutPolicy implements Tables. Each of the stores that Maps does is a write.
func (f *Fake) PutPolicy(id uint32, p bpf.BlixtPolicy) error {
	words := policyWords(&p)
	have, err := get(f, func() bpf.BlixtPolicy { return f.p.elements[id] })
	if err != nil {
		return err
	}
	for _, i := range policyOrder(policyWords(&have), words) {
		if err := f.write(func() { policyWords(&f.p.elements[id])[i] = words[i] }); err != nil {
			return err
		}
	}
	return nil
}

// ResetPolicies implements Tables.
func (f *Fake) ResetPolicies(ids map[uint32]bool) error {
	return f.write(func() {
		for id := range ids {
			f.p.reset[id]++
		}
	})
}

// EachSource implements Tables.
func (f *Fake) EachSource(yield func([]SourceEntry) bool) error {
	all, err := get(f, func() (all []SourceEntry) {
		for k, v := range f.p.sources {
			all = append(all, SourceEntry{k, v})
		}
		return all
	})
	for _, e := range all {
		if !yield([]SourceEntry{e}) {
			break
		}
	}
	return err
}

// PutSources implements Tables.
func (f *Fake) PutSources(entries []SourceEntry) (int, error) {
	for i, e := range entries {
		full, err := get(f, func() bool { return len(f.p.sources) >= f.sizes.Sources })
		switch {
		case err != nil:
			return i, err
		case full || f.NoMemory != nil && f.NoMemory():
			return i, ErrNoRoom
		}
		if err := f.write(func() { f.p.sources[e.Key] = e.Verdict }); err != nil {
			return i, err
		}
	}
	return len(entries), nil
}

// DeleteSources implements Tables.
func (f *Fake) DeleteSources(entries []SourceEntry) error {
	for _, e := range entries {
		if err := f.write(func() { delete(f.p.sources, e.Key) }); err != nil {
			return err
		}
	}
	return nil
}

// PolicyCounts implements Counts.
func (f *Fake) PolicyCounts(id uint32) (PolicyCounts, error) {
	return get(f, func() PolicyCounts {
		c := f.PolicyCountsOf[id]
		c.Concurrent = uint32(f.ConcurrentNow[id])
		return c
	})
}

// Concurrent implements Flows.
func (f *Fake) Concurrent() []int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ConcurrentNow)
}

// AddConcurrent implements Flows.
func (f *Fake) AddConcurrent(id uint32, delta int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ConcurrentNow[id] += delta
}

// EachLimitedSource implements Flows.
func (f *Fake) EachLimitedSource(yield func([]LimitedSource) bool) error {
	all, err := get(f, func() (all []LimitedSource) {
		for k, v := range f.LimitedTable {
			all = append(all, LimitedSource{k, v})
		}
		return all
	})
	yield(all)
	return err
}

// AddLimitedSource implements Flows.
func (f *Fake) AddLimitedSource(key bpf.BlixtLimitedSourceKey, delta int32) error {
	return f.write(func() {
		v := f.LimitedTable[key]
		v.Concurrent = uint32(max(int32(v.Concurrent)+delta, 0))
		f.LimitedTable[key] = v
	})
}

// MarkGone implements Flows.
func (f *Fake) MarkGone(key bpf.BlixtFlowKey) error {
	return f.write(func() {
		if v, ok := f.FlowTable[key]; ok {
			v.Generation = uint32(bpf.BlixtNoFlowOfNO_GENERATION)
			f.FlowTable[key] = v
		}
	})
}

// EndRecord implements Flows.
func (f *Fake) EndRecord(forward bpf.BlixtFlowKey, why bpf.BlixtEndReason) error {
	return f.write(func() { f.EndedRecords[forward] = why })
}
