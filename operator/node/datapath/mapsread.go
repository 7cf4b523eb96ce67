// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var (
	_ Counts = (*Maps)(nil)
	_ Flows  = (*Maps)(nil)
)

// CounterNames returns the names of the counters, by index, from the embedded
// object: in lower case, without COUNTER_.
func CounterNames() ([]string, error) { return counterNames() }

// counterNames parses the object once: that takes milliseconds.
var counterNames = sync.OnceValues(func() ([]string, error) {
	spec, err := bpf.LoadBlixt()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName("counter", &enum); err != nil {
		return nil, fmt.Errorf("find enum counter: %w", err)
	}
	names := make([]string, spec.Maps[bpf.BlixtMapCounters].MaxEntries)
	for _, v := range enum.Values {
		if name, ok := strings.CutPrefix(v.Name, "COUNTER_"); ok && v.Value < uint64(len(names)) {
			names[v.Value] = strings.ToLower(name)
		}
	}
	return names, nil
})

// Counters implements Counts.
func (m *Maps) Counters() ([]uint64, error) {
	all, err := readPerCPU(m.counters)
	if missing := int(bpf.BlixtCounterCOUNTERS) - len(all); err == nil && missing > 0 {
		all = append(all, make([]uint64, missing)...) // of an earlier program
	}
	return all, err
}

// LinkPackets implements Counts.
func (m *Maps) LinkPackets() ([]uint64, error) {
	return readPerCPU(m.linkPackets)
}

// HostListens implements Counts. It reads the table at once: the program may evict
// any key meanwhile, from which an iteration would have to go on.
func (m *Maps) HostListens() (map[lb.Key]uint32, error) {
	keys := make([]bpf.BlixtFrontendKey, m.hostListens.MaxEntries())
	ticks := make([]uint32, len(keys))
	var cursor ebpf.MapBatchCursor
	n, err := m.hostListens.BatchLookup(&cursor, keys, ticks, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read %s: %w", m.hostListens, err)
	}
	all := map[lb.Key]uint32{}
	for i, key := range keys[:n] {
		all[fromKey(key)] = ticks[i]
	}
	return all, nil
}

// FrontendCounters implements Counts.
func (m *Maps) FrontendCounters(index uint32) (sum bpf.BlixtFrontendCounters, err error) {
	var perCPU []bpf.BlixtFrontendCounters
	if err := m.frontendStats.Lookup(index, &perCPU); err != nil {
		return sum, fmt.Errorf("read counters of frontend %d: %w", index, err)
	}
	return sumCounters(perCPU), nil
}

func sumCounters(perCPU []bpf.BlixtFrontendCounters) (sum bpf.BlixtFrontendCounters) {
	for _, c := range perCPU {
		sum.NewFlows += c.NewFlows
		sum.Rejected += c.Rejected
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
		sum.ReplyPackets += c.ReplyPackets
		sum.ReplyBytes += c.ReplyBytes
	}
	return sum
}

// countersBatch is how many frontends' counters are read at once: 0.8 MB with 64 CPUs.
const countersBatch = 256

// FirstFrontendCounters implements Counts.
func (m *Maps) FirstFrontendCounters(n int) ([]bpf.BlixtFrontendCounters, error) {
	sums := make([]bpf.BlixtFrontendCounters, 0, n)
	cpus := ebpf.MustPossibleCPU()
	keys, values := make([]uint32, countersBatch), make([]bpf.BlixtFrontendCounters, countersBatch*cpus)
	var cursor ebpf.MapBatchCursor
	for len(sums) < n {
		// The kernel returns elements of an array in order.
		got, err := m.frontendStats.BatchLookup(&cursor, keys, values, nil)
		end := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !end {
			return nil, fmt.Errorf("read %s: %w", m.frontendStats, err)
		}
		for i := range min(got, n-len(sums)) {
			sums = append(sums, sumCounters(values[i*cpus:(i+1)*cpus]))
		}
		if end {
			break
		}
	}
	return sums, nil
}

// BackendFlows implements Counts.
func (m *Maps) BackendFlows(id uint32) (n uint64, err error) {
	return n, m.backendFlows.Lookup(id, &n)
}

// FirstBackendFlows implements Counts.
func (m *Maps) FirstBackendFlows(n int) ([]uint64, error) {
	n = min(n, int(m.backendFlows.MaxEntries()))
	flows := make([]uint64, n)
	var cursor ebpf.MapBatchCursor
	// The kernel returns elements of an array in order.
	if _, err := m.backendFlows.BatchLookup(&cursor, make([]uint32, n), flows, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read %s: %w", m.backendFlows, err)
	}
	return flows, nil
}

// readPerCPU returns each element of a per-CPU array, summed over all CPUs.
func readPerCPU(m *ebpf.Map) ([]uint64, error) {
	cpus := ebpf.MustPossibleCPU()
	sums := make([]uint64, m.MaxEntries())
	values := make([]uint64, len(sums)*cpus)
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, make([]uint32, len(sums)), values, nil)
	if (err == nil || errors.Is(err, ebpf.ErrKeyNotExist)) && n == len(sums) {
		i := 0
		for element := range slices.Chunk(values, cpus) {
			for _, v := range element {
				sums[i] += v
			}
			i++
		}
		return sums, nil
	}
	for i := range sums {
		element := values[:cpus]
		if err := m.Lookup(uint32(i), &element); err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		for _, v := range element {
			sums[i] += v
		}
	}
	return sums, nil
}

// flowBatch is how many entries EachFlow yields at a time: 100 KB.
const flowBatch = 1024

// EachFlow implements Flows.
func (m *Maps) EachFlow(yield func([]FlowEntry) bool) error {
	return eachFlow(yield, m.flows, m.udpFlows)
}

// EachNewFlow implements Flows.
func (m *Maps) EachNewFlow(yield func([]FlowEntry) bool) error { return eachFlow(yield, m.newFlows) }

func eachFlow(yield func([]FlowEntry) bool, tables ...*ebpf.Map) error {
	return eachBatch(flowBatch, func(k bpf.BlixtFlowKey, f bpf.BlixtFlow) FlowEntry { return FlowEntry{k, f} }, yield, tables...)
}

// eachBatch yields the entries of tables, at most `size` at a time, until yield
// returns false. The slice is used again.
func eachBatch[K, V, E any](size int, entry func(K, V) E, yield func([]E) bool, tables ...*ebpf.Map) error {
	keys := make([]K, size)
	values := make([]V, size)
	entries := make([]E, 0, size)
	for _, table := range tables {
		var cursor ebpf.MapBatchCursor
		for end := false; !end; {
			n, err := table.BatchLookup(&cursor, keys, values, nil)
			end = errors.Is(err, ebpf.ErrKeyNotExist)
			if err != nil && !end {
				return fmt.Errorf("read %s: %w", table, err)
			}
			entries = entries[:0]
			for i := range n {
				entries = append(entries, entry(keys[i], values[i]))
			}
			if n > 0 && !yield(entries) {
				return nil
			}
		}
	}
	return nil
}

// flowTable returns the table that has flows of the key's protocol.
func (m *Maps) flowTable(key bpf.BlixtFlowKey) *ebpf.Map {
	if lb.Protocol(key.Protocol) == lb.UDP {
		return m.udpFlows
	}
	return m.flows
}

// Flow implements Flows.
func (m *Maps) Flow(key bpf.BlixtFlowKey) (value bpf.BlixtFlow, found bool, err error) {
	err = m.flowTable(key).Lookup(key, &value)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return value, false, nil
	}
	return value, err == nil, err
}

// LatestNumbers implements Flows. It is settle in bpf/flow.h.
func (m *Maps) LatestNumbers(e FlowEntry) (next, ack uint32, err error) {
	next, ack = e.Value.Next, e.Value.Ack
	if m.flowCache == nil || e.Value.Flags&uint32(bpf.BlixtFlowFlagFLOW_CACHED) == 0 {
		return next, ack, nil
	}
	c, err := m.Config()
	if err != nil {
		return next, ack, fmt.Errorf("read config: %w", err)
	}
	index := bpf.CacheSet(e.Key, c.Seed)
	var set, after bpf.BlixtCacheSet
	for range slotTries {
		if err := m.flowCache.Lookup(index, &set); err != nil {
			return next, ack, fmt.Errorf("read %s: %w", m.flowCache, err)
		}
		slot := set.Slot(e.Key)
		if slot == nil || slot.Generation != e.Value.Generation {
			break
		}
		// The copy is that of one moment if the version is even, and the same afterwards.
		if err := m.flowCache.Lookup(index, &after); err != nil {
			return next, ack, fmt.Errorf("read %s: %w", m.flowCache, err)
		}
		if again := after.Slot(e.Key); slot.Version%2 == 0 && again != nil && again.Version == slot.Version {
			return later(next, uint32(slot.Numbers)), later(ack, uint32(slot.Numbers>>32)), nil
		}
	}
	return next, ack, nil
}

// slotTries is how often to read a slot that the program is writing.
const slotTries = 4

// later returns the number of a slot if it is ahead of the entry's, by no more
// than SEQUENCE_WINDOW: then it is not that of an earlier connection.
func later(entry, slot uint32) uint32 {
	if slot-entry <= 1<<20 {
		return slot
	}
	return entry
}

// DeleteFlow implements Flows.
func (m *Maps) DeleteFlow(key bpf.BlixtFlowKey) (found bool, err error) {
	err = m.flowTable(key).Delete(key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Bury implements Flows.
func (m *Maps) Bury(reply bpf.BlixtFlowKey, flags bpf.BlixtFlowFlag, tick uint32) error {
	tomb := bpf.Tombstone(reply, flags, tick)
	if err := m.AddInterest(bpf.EntryInterest(reply, tomb)); err != nil {
		return err
	}
	err := m.newFlows.Update(reply, tomb, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) { // a new flow has the tuple by now
		return nil
	}
	return err
}

// SettleInterest implements Flows. It replaces whole words of four bytes: if the
// program has added to one of them meanwhile, it looks again.
func (m *Maps) SettleInterest(needed []uint8, clear bool) error {
	for i := range m.interest {
		for {
			have := atomic.LoadUint32(&m.interest[i])
			if have == 0 && binary.NativeEndian.Uint32(needed[4*i:]) == 0 {
				break // as nearly all are
			}
			want := uint32(0)
			for shift := 0; shift < 32; shift += 8 {
				want |= uint32(settled(uint8(have>>shift), needed[4*i+shift/8], clear)) << shift
			}
			if have == want || atomic.CompareAndSwapUint32(&m.interest[i], have, want) {
				break
			}
		}
	}
	return nil
}

// Established implements Flows.
func (m *Maps) Established() []uint32 {
	all := make([]uint32, 1+m.sizes.Frontends)
	for i := range all {
		all[i] = atomic.LoadUint32(m.establishedAt(i))
	}
	return all
}

// AddEstablished implements Flows.
func (m *Maps) AddEstablished(element int, delta int32) {
	atomic.AddUint32(m.establishedAt(element), uint32(delta))
}

// establishedAt returns the number, which is the first half of an element: the
// data plane is little-endian.
func (m *Maps) establishedAt(i int) *uint32 { return (*uint32)(unsafe.Pointer(&m.established[i])) }
