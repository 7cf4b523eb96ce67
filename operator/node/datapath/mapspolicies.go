// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// policyMaps are those of policies: see bpf.IsOptional. All are there, or none.
type policyMaps struct {
	// Mapped into memory, by words.
	words, elements, states []uint64
	stats, sources, limited *ebpf.Map
}

// The elements of `policies` and `policy_states`, in words.
const (
	elementWords = int(unsafe.Sizeof(bpf.BlixtPolicy{}) / 8)
	stateWords   = int(unsafe.Sizeof(bpf.BlixtPolicyState{}) / 8)
)

// newPolicyMaps returns the maps of policies, if the program has all of them.
func (m *Maps) newPolicyMaps(maps map[string]*ebpf.Map) (p policyMaps, err error) {
	p.stats, p.sources, p.limited = maps[bpf.BlixtMapPolicyStats], maps[bpf.BlixtMapSources], maps[bpf.BlixtMapLimitedSources]
	arrays := map[string]*[]uint64{
		bpf.BlixtMapFrontendPolicies: &p.words, bpf.BlixtMapPolicies: &p.elements, bpf.BlixtMapPolicyStates: &p.states,
	}
	for name := range arrays {
		if maps[name] == nil || p.stats == nil || p.sources == nil || p.limited == nil {
			return policyMaps{}, nil
		}
	}
	for name, memory := range arrays {
		if *memory, err = mmap[uint64](m, maps[name]); err != nil {
			return policyMaps{}, err
		}
	}
	return p, nil
}

// sizes returns how many policies and sources there can be.
func (p *policyMaps) sizes() (policies, sources int) {
	if p.words == nil {
		return 0, 0
	}
	return min(len(p.elements)/elementWords, len(p.states)/stateWords, int(p.stats.MaxEntries()), 1<<policyIDBits), int(p.sources.MaxEntries())
}

// EnforcesPolicies implements Tables.
func (m *Maps) EnforcesPolicies() bool { return m.policies.words != nil }

// FrontendPolicies implements Tables.
func (m *Maps) FrontendPolicies() ([]PolicyWord, error) {
	words := make([]PolicyWord, m.sizes.Frontends)
	for i := range words {
		words[i] = PolicyWord(atomic.LoadUint64(&m.policies.words[i]))
	}
	return words, nil
}

// SetFrontendPolicies implements Tables.
func (m *Maps) SetFrontendPolicies(index uint32, w PolicyWord) error {
	if int(index) >= m.sizes.Frontends {
		return fmt.Errorf("frontend index %d: table frontend_policies has %d", index, m.sizes.Frontends)
	}
	atomic.StoreUint64(&m.policies.words[index], uint64(w))
	return nil
}

// Policies implements Tables.
func (m *Maps) Policies() ([]bpf.BlixtPolicy, error) {
	all := make([]bpf.BlixtPolicy, m.sizes.Policies)
	for id := range all {
		load(policyWords(&all[id]), m.policies.elements[id*elementWords:])
	}
	return all, nil
}

// policyWords returns the words of an element.
func policyWords(p *bpf.BlixtPolicy) []uint64 {
	return unsafe.Slice((*uint64)(unsafe.Pointer(p)), elementWords)
}

// The words of an element that are written in an order, by offset.
const (
	wordSources        = int(unsafe.Offsetof(bpf.BlixtPolicy{}.Sources) / 8)
	wordSourceInterval = int(unsafe.Offsetof(bpf.BlixtPolicy{}.SourceInterval) / 8)
	wordTotalInterval  = int(unsafe.Offsetof(bpf.BlixtPolicy{}.TotalInterval) / 8)
	wordBursts         = int(unsafe.Offsetof(bpf.BlixtPolicy{}.SourceBurst) / 8)
	wordConcurrent     = int(unsafe.Offsetof(bpf.BlixtPolicy{}.SourceConcurrent) / 8)
	wordBits           = int(unsafe.Offsetof(bpf.BlixtPolicy{}.SourceBits4) / 8)
	wordKey            = int(unsafe.Offsetof(bpf.BlixtPolicy{}.Key) / 8)
)

// policyOrder returns in which order the words of an element are stored that differ. What
// belongs to a limit is there while the limit is: a limit that ends is cleared first, and one
// that begins is set behind what it needs. Whose the element is comes last: until then
// it is nobody's.
func policyOrder(have, want []uint64) (order []int) {
	add := func(i int) {
		if have[i] != want[i] {
			order = append(order, i)
		}
	}
	for _, limit := range []int{wordSourceInterval, wordTotalInterval} {
		if want[limit] == 0 {
			add(limit)
		}
	}
	add(wordBits)
	add(wordBursts)
	add(wordConcurrent)
	for _, limit := range []int{wordSourceInterval, wordTotalInterval} {
		if want[limit] != 0 {
			add(limit)
		}
	}
	add(wordSources)
	add(wordKey)
	return order
}

// PutPolicy implements Tables.
func (m *Maps) PutPolicy(id uint32, p bpf.BlixtPolicy) error {
	if int(id) >= m.sizes.Policies {
		return fmt.Errorf("policy id %d: table policies has %d", id, m.sizes.Policies)
	}
	element, words := m.policies.elements[int(id)*elementWords:][:elementWords], policyWords(&p)
	for _, i := range policyOrder(element, words) {
		atomic.StoreUint64(&element[i], words[i])
	}
	return nil
}

// ResetPolicies implements Tables.
func (m *Maps) ResetPolicies(ids map[uint32]bool) error {
	zero := make([]bpf.BlixtPolicyCounters, ebpf.MustPossibleCPU())
	for id := range ids {
		for i := range stateWords {
			atomic.StoreUint64(&m.policies.states[int(id)*stateWords+i], 0)
		}
		if err := m.policies.stats.Put(id, zero); err != nil {
			return fmt.Errorf("reset counters of policy %d: %w", id, err)
		}
	}
	var gone []bpf.BlixtLimitedSourceKey
	err := m.EachLimitedSource(func(all []LimitedSource) bool {
		for _, s := range all {
			if ids[s.Key.Policy] {
				gone = append(gone, s.Key)
			}
		}
		return true
	})
	for _, key := range gone {
		if err == nil {
			err = remove(m.policies.limited, key)
		}
	}
	return err
}

// EachSource implements Tables.
func (m *Maps) EachSource(yield func([]SourceEntry) bool) error {
	return eachBatch(sourceBatch, func(k bpf.BlixtSourceKey, v uint32) SourceEntry { return SourceEntry{k, v} }, yield, m.policies.sources)
}

// sourceBatch is how many entries are read or written in one call.
const sourceBatch = 4096

// A batch may fail for want of memory although there is some: the kernel refills what it
// has at hand when it gets the time. So smaller batches are tried, after pauses of up to
// a tenth of a second.
const (
	batchTries = 8
	firstWait  = time.Millisecond
)

// PutSources implements Tables.
func (m *Maps) PutSources(entries []SourceEntry) (written int, err error) {
	keys, verdicts := make([]bpf.BlixtSourceKey, len(entries)), make([]uint32, len(entries))
	for i := range entries {
		keys[i], verdicts[i] = entries[i].Key, entries[i].Verdict
	}
	size, tries, wait := sourceBatch, 0, firstWait
	for written < len(keys) {
		end := min(written+size, len(keys))
		n, err := m.policies.sources.BatchUpdate(keys[written:end], verdicts[written:end], nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			n, err = 1, m.policies.sources.Put(keys[written], verdicts[written])
			if err != nil {
				n = 0
			}
		}
		if n > 0 {
			written, tries, wait = written+n, 0, firstWait
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOSPC):
			return written, fmt.Errorf("table sources: %w", ErrNoRoom)
		case !passes(err):
			return written, fmt.Errorf("write %s: %w", m.policies.sources, err)
		case tries == batchTries:
			return written, fmt.Errorf("table sources: %w: %w", ErrNoRoom, err)
		default:
			size = max(size/4, 1)
			tries++
			time.Sleep(wait)
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
	return written, nil
}

// passes reports whether the kernel may do what it has refused a moment later.
func passes(err error) bool {
	return errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EBUSY) || errors.Is(err, unix.E2BIG) ||
		errors.Is(err, unix.EDEADLK) || errors.Is(err, unix.ETIMEDOUT)
}

// DeleteSources implements Tables.
func (m *Maps) DeleteSources(entries []SourceEntry) error {
	keys := make([]bpf.BlixtSourceKey, len(entries))
	for i := range entries {
		keys[i] = entries[i].Key
	}
	for tries, wait := 0, firstWait; len(keys) > 0; {
		n, err := m.policies.sources.BatchDelete(keys[:min(sourceBatch, len(keys))], nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			n, err = 0, m.policies.sources.Delete(keys[0])
			if err == nil {
				n = 1
			}
		}
		keys = keys[n:]
		if n > 0 {
			tries, wait = 0, firstWait
		}
		switch {
		case err == nil:
		case errors.Is(err, ebpf.ErrKeyNotExist):
			keys = keys[min(1, len(keys)):]
		case !passes(err) || tries == batchTries:
			return fmt.Errorf("delete from %s: %w", m.policies.sources, err)
		default:
			tries++
			time.Sleep(wait)
			wait = min(2*wait, 100*time.Millisecond)
		}
	}
	return nil
}
