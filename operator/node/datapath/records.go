// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Records are the records of flows, and what they are of.
type Records interface {
	Counts
	Flows
	Frontends() (map[lb.Key]bpf.BlixtFrontend, error)
	Backends() ([]bpf.BlixtBackend, error)
	// FlowLogs returns the ring buffers, which have one reader. None: the program is of
	// an earlier version, and the methods below must not be called.
	FlowLogs() []*ebpf.Map
	// RecordedFlows returns how many flows have a record that has not ended.
	RecordedFlows() uint32
	// AddRecordedFlows adds to it, atomically.
	AddRecordedFlows(delta int32)
	// EachRecorded is for these records as EachFlow is for flows.
	EachRecorded(yield func([]RecordedFlow) bool) error
	// Recorded returns one of them.
	Recorded(bpf.BlixtFlowKey) (r bpf.BlixtFlowRecord, found bool, err error)
	// TakeRecorded removes one of them: whoever does so writes it out.
	TakeRecorded(bpf.BlixtFlowKey) (r bpf.BlixtFlowRecord, found bool, err error)
	// ReturnRecorded undoes that. It reports false if there is a newer one by now.
	ReturnRecorded(bpf.BlixtFlowKey, bpf.BlixtFlowRecord) (bool, error)
	// NewFlow is Flow for `new_flows`.
	NewFlow(bpf.BlixtFlowKey) (value bpf.BlixtFlow, found bool, err error)
	// Uncounted returns what packets of one direction have counted that the record of
	// their flow does not have yet, by the key of the direction.
	Uncounted(bpf.BlixtFlowKey) (packets, bytes uint64, err error)
}

var _ Records = (*Maps)(nil)

// RecordedFlow is an entry of `recorded`.
type RecordedFlow struct {
	Key   bpf.BlixtFlowKey
	Value bpf.BlixtFlowRecord
}

// recordMaps are the maps of records; nil: see bpf.IsOptional.
type recordMaps struct {
	logs                 []*ebpf.Map
	recorded, slotCounts *ebpf.Map
	number               []uint64 // recorded_number, mapped into memory
}

// newRecordMaps leaves out all of them if one is missing.
func (m *Maps) newRecordMaps(maps map[string]*ebpf.Map) (r recordMaps, err error) {
	var logs []*ebpf.Map
	for _, name := range []string{bpf.BlixtMapFlowLog0, bpf.BlixtMapFlowLog1, bpf.BlixtMapFlowLog2, bpf.BlixtMapFlowLog3} {
		logs = append(logs, maps[name])
	}
	number := maps[bpf.BlixtMapRecordedNumber]
	for _, it := range append([]*ebpf.Map{maps[bpf.BlixtMapRecorded], maps[bpf.BlixtMapSlotCounts], number}, logs...) {
		if it == nil {
			return r, nil
		}
	}
	r = recordMaps{logs: logs, recorded: maps[bpf.BlixtMapRecorded], slotCounts: maps[bpf.BlixtMapSlotCounts]}
	r.number, err = mmap[uint64](m, number)
	return r, err
}

// FlowLogs implements Records.
func (m *Maps) FlowLogs() []*ebpf.Map { return m.records.logs }

// RecordedFlows implements Records. A program and an agent that were killed may have left
// less than 0.
func (m *Maps) RecordedFlows() uint32 {
	return uint32(max(int32(atomic.LoadUint32(m.recordedNumber())), 0))
}

// AddRecordedFlows implements Records.
func (m *Maps) AddRecordedFlows(delta int32) { atomic.AddUint32(m.recordedNumber(), uint32(delta)) }

// recordedNumber returns the first half of the element: the data plane is little-endian.
func (m *Maps) recordedNumber() *uint32 { return (*uint32)(unsafe.Pointer(&m.records.number[0])) }

// recordBatch is how many records EachRecorded yields at a time: 200 KB.
const recordBatch = 1024

// EachRecorded implements Records.
func (m *Maps) EachRecorded(yield func([]RecordedFlow) bool) error {
	record := func(k bpf.BlixtFlowKey, r bpf.BlixtFlowRecord) RecordedFlow { return RecordedFlow{k, r} }
	return eachBatch(recordBatch, record, yield, m.records.recorded)
}

// Recorded implements Records.
func (m *Maps) Recorded(key bpf.BlixtFlowKey) (r bpf.BlixtFlowRecord, found bool, err error) {
	return lookUp[bpf.BlixtFlowRecord](m.records.recorded, key)
}

// TakeRecorded implements Records.
func (m *Maps) TakeRecorded(key bpf.BlixtFlowKey) (r bpf.BlixtFlowRecord, found bool, err error) {
	err = m.records.recorded.LookupAndDelete(key, &r)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return r, false, nil
	}
	if err == nil {
		m.AddRecordedFlows(-1)
	}
	return r, err == nil, err
}

// ReturnRecorded implements Records.
func (m *Maps) ReturnRecorded(key bpf.BlixtFlowKey, r bpf.BlixtFlowRecord) (bool, error) {
	err := m.records.recorded.Update(key, r, ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return false, nil
	}
	if err == nil {
		m.AddRecordedFlows(1)
	}
	return err == nil, err
}

// NewFlow implements Records.
func (m *Maps) NewFlow(key bpf.BlixtFlowKey) (bpf.BlixtFlow, bool, error) {
	return lookUp[bpf.BlixtFlow](m.newFlows, key)
}

func lookUp[T any](m *ebpf.Map, key bpf.BlixtFlowKey) (value T, found bool, err error) {
	err = m.Lookup(key, &value)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return value, false, nil
	}
	return value, err == nil, err
}

// Uncounted implements Records.
func (m *Maps) Uncounted(key bpf.BlixtFlowKey) (packets, bytes uint64, err error) {
	if m.flowCache == nil {
		return 0, 0, nil
	}
	c, err := m.Config()
	if err != nil {
		return 0, 0, fmt.Errorf("read config: %w", err)
	}
	index := bpf.CacheSet(key, c.Seed)
	var set bpf.BlixtCacheSet
	if err := m.flowCache.Lookup(index, &set); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", m.flowCache, err)
	}
	var counts bpf.BlixtSlotCount
	for i, slot := range set.Ways {
		has := bpf.BlixtFlowKey{Src: slot.Src, Dst: slot.Dst, Sport: slot.Sport, Dport: slot.Dport, Protocol: slot.Protocol}
		if has.Protocol == 0 { // emptied, while its flow goes on
			has.Protocol = uint8(lb.TCP)
		}
		if has != key {
			continue
		}
		if err := m.records.slotCounts.Lookup(index, &counts); err != nil {
			return 0, 0, fmt.Errorf("read %s: %w", m.records.slotCounts, err)
		}
		const shift = int(bpf.BlixtLimitSLOT_PACKETS_SHIFT)
		packets += counts.Ways[i] >> shift
		bytes += counts.Ways[i] & (1<<shift - 1)
	}
	return packets, bytes, nil
}

// AnyFlow returns the entry of a flow, wherever it is.
func AnyFlow(r Records, key bpf.BlixtFlowKey) (value bpf.BlixtFlow, found bool, err error) {
	value, found, err = r.Flow(key)
	if err != nil || found || lb.Protocol(key.Protocol) == lb.UDP {
		return value, found, err
	}
	return r.NewFlow(key)
}
