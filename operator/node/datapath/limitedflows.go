// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// LimitedFlows are the numbers of flows that policies limit. A program without policies has
// none.
type LimitedFlows interface {
	// Concurrent returns how many flows each policy has, by id.
	Concurrent() []int32
	// AddConcurrent adds to one of them, atomically.
	AddConcurrent(id uint32, delta int32)
	// EachLimitedSource calls yield with some entries of `limited_sources` at a time, until all
	// were seen or yield returns false.
	EachLimitedSource(yield func([]LimitedSource) bool) error
	// AddLimitedSource adds to the number of flows of a source, which may have been
	// forgotten. What the program counts in this moment is lost.
	AddLimitedSource(key bpf.BlixtLimitedSourceKey, delta int32) error
}

// PolicyCounts is what was counted of a policy.
type PolicyCounts struct {
	// Refused are flows that were refused, or would be, by bpf.BlixtRefusal.
	Refused [bpf.BlixtRefusalREFUSALS]uint64
	// Concurrent is how many flows it has, if it limits them.
	Concurrent uint32
	// Forgotten is how many sources began anew.
	Forgotten uint64
}

// LimitedSource is an entry of `limited_sources`.
type LimitedSource struct {
	Key   bpf.BlixtLimitedSourceKey
	Value bpf.BlixtLimitedSource
}

// LimitedSourceKey returns the key of a source: limited_source_key in bpf/concurrent.h.
func LimitedSourceKey(id uint32, source bpf.BlixtAddr, bits4, bits6 uint8) bpf.BlixtLimitedSourceKey {
	bits := int(bits6)
	addr := netip.AddrFrom16(source.Bytes)
	if addr.Is4In6() {
		bits = int(bits4)
	}
	for i := range source.Bytes {
		if keep := bits - 8*i; keep <= 0 {
			source.Bytes[i] = 0
		} else if keep < 8 {
			source.Bytes[i] &= 0xff << (8 - keep)
		}
	}
	return bpf.BlixtLimitedSourceKey{Policy: id, Addr: source}
}

// EachLimitedSource implements Flows.
func (m *Maps) EachLimitedSource(yield func([]LimitedSource) bool) error {
	return eachBatch(sourceBatch, func(k bpf.BlixtLimitedSourceKey, v bpf.BlixtLimitedSource) LimitedSource { return LimitedSource{k, v} }, yield, m.policies.limited)
}

// AddLimitedSource implements Flows.
func (m *Maps) AddLimitedSource(key bpf.BlixtLimitedSourceKey, delta int32) error {
	var value bpf.BlixtLimitedSource
	err := m.policies.limited.Lookup(key, &value)
	flags := ebpf.UpdateExist
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		flags, err = ebpf.UpdateNoExist, nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", m.policies.limited, err)
	}
	value.Concurrent = uint32(max(int32(value.Concurrent)+delta, 0))
	err = m.policies.limited.Update(key, value, flags)
	if errors.Is(err, ebpf.ErrKeyExist) || errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil // the next sweep
	}
	return err
}

// Concurrent implements Flows.
func (m *Maps) Concurrent() []int32 {
	all := make([]int32, m.sizes.Policies)
	for id := range all {
		all[id] = int32(atomic.LoadUint32(m.concurrent(uint32(id))))
	}
	return all
}

// AddConcurrent implements Flows.
func (m *Maps) AddConcurrent(id uint32, delta int32) {
	atomic.AddUint32(m.concurrent(id), uint32(delta))
}

// concurrent returns the number of flows of a policy: the first half of a word, as the data
// plane is little-endian.
func (m *Maps) concurrent(id uint32) *uint32 {
	const word = int(unsafe.Offsetof(bpf.BlixtPolicyState{}.Concurrent) / 8)
	return (*uint32)(unsafe.Pointer(&m.policies.states[int(id)*stateWords+word]))
}

// PolicyCounts implements Counts.
func (m *Maps) PolicyCounts(id uint32) (c PolicyCounts, err error) {
	var perCPU []bpf.BlixtPolicyCounters
	if err := m.policies.stats.Lookup(id, &perCPU); err != nil {
		return c, fmt.Errorf("read counters of policy %d: %w", id, err)
	}
	for _, cpu := range perCPU {
		for i := range c.Refused {
			c.Refused[i] += cpu.Refused[i]
		}
	}
	var state bpf.BlixtPolicyState
	load(unsafe.Slice((*uint64)(unsafe.Pointer(&state)), stateWords), m.policies.states[int(id)*stateWords:])
	c.Concurrent, c.Forgotten = uint32(max(int32(state.Concurrent), 0)), state.Evicted
	return c, nil
}

// MarkGone implements Flows.
func (m *Maps) MarkGone(key bpf.BlixtFlowKey) error {
	value, found, err := m.Flow(key)
	if err != nil || !found {
		return err
	}
	value.Generation = uint32(bpf.BlixtNoFlowOfNO_GENERATION)
	if err = m.flowTable(key).Update(key, value, ebpf.UpdateExist); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// EndRecord implements Flows. What the record has counted in this moment is lost.
func (m *Maps) EndRecord(forward bpf.BlixtFlowKey, why bpf.BlixtEndReason) error {
	if m.records.recorded == nil {
		return nil
	}
	r, found, err := m.Recorded(forward)
	if err != nil || !found {
		return err
	}
	r.Reason = uint8(why)
	if err = m.records.recorded.Update(forward, r, ebpf.UpdateExist); errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// PolicyInForce is a policy that frontends have in the tables.
type PolicyInForce struct {
	ID  uint32
	Key uint64 // PolicyKey of whose it is
	// Set is the id of its set of sources; 0: none is asked.
	Set                 uint32
	OnlyAllowed, DryRun bool
	// LimitsSources and LimitsAll are whether flows are counted, by the first bits of a source.
	LimitsSources, LimitsAll bool
	Bits4, Bits6             uint8
}

// PolicyKey returns the key of the restriction's id: see bpf.BlixtPolicy.
func PolicyKey(r *lb.Restriction) uint64 { return policyKey(r) }

// PoliciesInForce returns the policies of frontends that have any, by index.
func (c *Contents) PoliciesInForce() map[uint32][]*PolicyInForce {
	all, byID := map[uint32][]*PolicyInForce{}, map[uint32]*PolicyInForce{}
	if !c.policies.enforces {
		return all
	}
	for _, s := range c.Frontends {
		for _, id := range c.policies.words[s.Entry.Index].IDs() {
			p := byID[id]
			if p == nil {
				e := c.policies.elements[id]
				flags := bpf.BlixtPolicyFlag(e.Sources >> setBits)
				p = &PolicyInForce{
					ID: id, Key: e.Key, Set: setOfPolicy(e), OnlyAllowed: flags&bpf.BlixtPolicyFlagPOLICY_ONLY_ALLOWED != 0,
					DryRun:        flags&bpf.BlixtPolicyFlagPOLICY_DRY_RUN != 0,
					LimitsSources: e.SourceConcurrent > 0, LimitsAll: e.TotalConcurrent > 0, Bits4: e.SourceBits4, Bits6: e.SourceBits6,
				}
				byID[id] = p
			}
			all[s.Entry.Index] = append(all[s.Entry.Index], p)
		}
	}
	return all
}

// PolicyID returns the id of a restriction in the tables, and how many prefixes its set has.
// ok is false if it is not in force.
func (c *Contents) PolicyID(r *lb.Restriction) (id uint32, sources int, ok bool) {
	id, ok = c.policies.byKey[policyKey(r)]
	if ok {
		if set := c.policies.sets.byID[setOfPolicy(c.policies.elements[id])]; set != nil {
			sources = set.size
		}
	}
	return id, sources, ok
}

// SetSources returns what makes the entries of a set in the tables, in order of their addresses
// and with the shorter prefix first. It does not look at the contents any more.
func (c *Contents) SetSources(id uint32) func() []SourceEntry {
	set := c.policies.sets.byID[id]
	if set == nil {
		return func() []SourceEntry { return nil }
	}
	return set.entries
}
