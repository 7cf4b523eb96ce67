// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"sync/atomic"
	"unsafe"
)

// The elements of `ref_stats` and `client_rtt`, in words.
const (
	refWords     = int(unsafe.Sizeof(RefCounters{}) / 8)
	refKeyWord   = int(unsafe.Offsetof(RefCounters{}.Key) / 8)
	refEndWord   = int(unsafe.Offsetof(RefCounters{}.Unanswered) / 8)
	latencyWords = int(unsafe.Sizeof(Latency{}) / 8)
)

// RefKeys implements Tables.
func (m *Maps) RefKeys() ([]uint64, error) {
	keys := make([]uint64, m.sizes.Refs)
	err := m.refStats.each(func(at int, piece []uint64) {
		for i := range piece {
			if id, word := (at+i)/refWords, (at+i)%refWords; word == refKeyWord && id < len(keys) {
				keys[id] = atomic.LoadUint64(&piece[i])
			}
		}
	})
	return keys, err
}

// GiveRef implements Tables. While the element is cleared, it is nobody's.
func (m *Maps) GiveRef(id uint32, key uint64) error {
	m.givingRef.Lock()
	defer m.givingRef.Unlock()
	element, err := m.ref(id)
	if err != nil {
		return err
	}
	atomic.StoreUint64(&element[refKeyWord], 0)
	for i := range element {
		atomic.StoreUint64(&element[i], 0)
	}
	atomic.StoreUint64(&element[refKeyWord], key)
	return nil
}

// RefCounters implements Counts.
func (m *Maps) RefCounters(id uint32, key uint64) (c RefCounters, ok bool) {
	if int(id) >= m.sizes.Refs {
		return c, false
	}
	element, err := m.ref(id)
	if err != nil || atomic.LoadUint64(&element[refKeyWord]) != key {
		return c, false
	}
	load(unsafe.Slice((*uint64)(unsafe.Pointer(&c)), refWords), element)
	return c, atomic.LoadUint64(&element[refKeyWord]) == key
}

// SetUnanswered implements Flows.
func (m *Maps) SetUnanswered(id uint32, key, n uint64) {
	m.givingRef.Lock()
	defer m.givingRef.Unlock()
	if element, err := m.ref(id); err == nil && element[refKeyWord] == key {
		atomic.StoreUint64(&element[refEndWord], max(n, element[refEndWord]))
	}
}

// ClientRTT implements Counts.
func (m *Maps) ClientRTT(index uint32) (l Latency, ok bool) {
	at := int(index) * latencyWords
	if at >= m.clientRTT.len() {
		return l, false
	}
	element, err := m.clientRTT.at(at, latencyWords)
	if err != nil {
		return l, false
	}
	load(unsafe.Slice((*uint64)(unsafe.Pointer(&l)), latencyWords), element)
	return l, true
}

// load copies words to which the program may be adding.
func load(to, from []uint64) {
	for i := range to {
		to[i] = atomic.LoadUint64(&from[i])
	}
}

// ref returns an element of `ref_stats`.
func (m *Maps) ref(id uint32) ([]uint64, error) { return m.refStats.at(int(id)*refWords, refWords) }

// resetClientRTT sets to zero what was counted for a previous user of a frontend index.
func (m *Maps) resetClientRTT(index uint32) error {
	at := int(index) * latencyWords
	if at >= m.clientRTT.len() {
		return nil
	}
	element, err := m.clientRTT.at(at, latencyWords)
	if err != nil {
		return err
	}
	for i := range element {
		atomic.StoreUint64(&element[i], 0)
	}
	return nil
}
