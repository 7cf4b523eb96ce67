// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var _ Tables = (*Maps)(nil)

// Sizes implements Tables.
func (m *Maps) Sizes() Sizes { return m.sizes }

// Config implements Tables.
func (m *Maps) Config() (c bpf.BlixtConfig, err error) {
	return c, m.config.Lookup(uint32(0), &c)
}

// SetConfig implements Tables.
func (m *Maps) SetConfig(c bpf.BlixtConfig) error { return m.config.Put(uint32(0), c) }

// AddInterest implements Tables. It is set_interest in bpf/interest.h.
func (m *Maps) AddInterest(a bpf.BlixtAddr, bits bpf.BlixtInterestFlag) error {
	if m.interest == nil {
		return nil
	}
	at := bpf.InterestHash(a)
	word, set := &m.interest[at/4], uint32(bits|InterestFresh)<<(at%4*8)
	if atomic.LoadUint32(word)&set != set { // an unchanged cache line stays shared between CPUs
		atomic.OrUint32(word, set)
	}
	return nil
}

// Addresses implements Tables.
func (m *Maps) Addresses() (map[netip.Addr]bpf.BlixtAddress, error) {
	return readHash[bpf.BlixtAddress](m.addresses, FromAddr)
}

// PutAddress implements Tables.
func (m *Maps) PutAddress(ip netip.Addr, a bpf.BlixtAddress) error {
	return m.addresses.Put(ToAddr(ip), a)
}

// DeleteAddress implements Tables.
func (m *Maps) DeleteAddress(ip netip.Addr) error { return remove(m.addresses, ToAddr(ip)) }

// Frontends implements Tables.
func (m *Maps) Frontends() (map[lb.Key]bpf.BlixtFrontend, error) {
	return readHash[bpf.BlixtFrontend](m.frontends, fromKey)
}

// PutFrontend implements Tables.
func (m *Maps) PutFrontend(k lb.Key, f bpf.BlixtFrontend) error { return m.frontends.Put(toKey(k), f) }

// DeleteFrontend implements Tables.
func (m *Maps) DeleteFrontend(k lb.Key) error { return remove(m.frontends, toKey(k)) }

func remove(m *ebpf.Map, key any) error {
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return err
	}
	return nil
}

// Published implements Tables.
func (m *Maps) Published() ([]RingRef, error) {
	words := make([]RingRef, m.sizes.Frontends)
	for i := range words {
		words[i] = RingRef(atomic.LoadUint64(&m.published[i]))
	}
	return words, nil
}

// Publish implements Tables. The store is atomic, and ordered after the stores
// of WriteRing: a program that reads the reference reads the slots.
func (m *Maps) Publish(index uint32, w RingRef) error {
	if int(index) >= m.sizes.Frontends {
		return fmt.Errorf("frontend index %d: table published has %d", index, m.sizes.Frontends)
	}
	atomic.StoreUint64(&m.published[index], uint64(w))
	return nil
}

// Ring implements Tables.
func (m *Maps) Ring(offset, n uint32) ([]uint32, error) {
	if err := m.inSlab(offset, n); err != nil {
		return nil, err
	}
	elements, err := m.rings.at(int(offset/2), int(even(n)/2))
	if err != nil {
		return nil, err
	}
	slots := make([]uint32, n)
	for i := range slots {
		slots[i] = uint32(elements[i/2] >> (32 * (i % 2)))
	}
	return slots, nil
}

// HasRing implements Tables.
func (m *Maps) HasRing(offset uint32, slots []uint32) (bool, error) {
	if err := m.inSlab(offset, uint32(len(slots))); err != nil {
		return false, err
	}
	elements, err := m.rings.at(int(offset/2), int(even(uint32(len(slots)))/2))
	if err != nil {
		return false, err
	}
	for i, slot := range slots {
		if uint32(elements[i/2]>>(32*(i%2))) != slot {
			return false, nil
		}
	}
	return true, nil
}

// WriteRing implements Tables.
func (m *Maps) WriteRing(offset uint32, slots []uint32) error {
	if err := m.inSlab(offset, uint32(len(slots))); err != nil {
		return err
	}
	elements, err := m.rings.at(int(offset/2), int(even(uint32(len(slots)))/2))
	if err != nil {
		return err
	}
	for len(slots) > 1 {
		elements[0] = uint64(slots[0]) | uint64(slots[1])<<32
		elements, slots = elements[1:], slots[2:]
	}
	if len(slots) > 0 {
		elements[0] = uint64(slots[0])
	}
	return nil
}

func (m *Maps) inSlab(offset, n uint32) error {
	if offset%2 != 0 || uint64(offset)+uint64(even(n)) > uint64(m.sizes.RingSlots) {
		return fmt.Errorf("ring of %d slots at %d: table rings has %d", n, offset, m.sizes.RingSlots)
	}
	return nil
}

// ZeroSlots implements Tables, by whole elements.
func (m *Maps) ZeroSlots() (offset, n uint32, err error) {
	start, end := 0, m.sizes.RingSlots/2
	longest := func(i int) { // the run of zeros ends before element i
		if run := uint32(2 * (i - start)); run > n {
			offset, n = uint32(2*start), run
		}
		start = i + 1
	}
	err = m.rings.each(func(at int, piece []uint64) {
		for i, element := range piece[:min(len(piece), max(end-at, 0))] {
			if element != 0 {
				longest(at + i)
			}
		}
	})
	longest(end)
	return offset, n, err
}

// backendsBatch is how many entries of `backends` are read at once: 32 KB.
const backendsBatch = 1024

// Backends implements Tables.
func (m *Maps) Backends() (all []bpf.BlixtBackend, err error) {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]uint32, backendsBatch), make([]bpf.BlixtBackend, backendsBatch)
	for from, end := 0, false; !end && from < m.sizes.Backends; from += backendsBatch {
		// The kernel returns elements of an array in order.
		n, err := m.backends.BatchLookup(&cursor, keys, values, nil)
		if end = errors.Is(err, ebpf.ErrKeyNotExist); err != nil && !end {
			return nil, fmt.Errorf("read %s: %w", m.backends, err)
		}
		for n = min(n, m.sizes.Backends-from); n > 0 && values[n-1] == (bpf.BlixtBackend{}); {
			n--
		}
		if n > 0 {
			all = append(slices.Grow(all, from-len(all)+n)[:from], values[:n]...)
		}
	}
	return all, nil
}

// PutBackend implements Tables.
func (m *Maps) PutBackend(id uint32, b bpf.BlixtBackend) error { return m.backends.Put(id, b) }

// ResetBackendFlows implements Tables.
func (m *Maps) ResetBackendFlows(id uint32) error { return m.backendFlows.Put(id, uint64(0)) }

// ResetFrontendCounters implements Tables.
func (m *Maps) ResetFrontendCounters(index uint32) error {
	if err := m.resetClientRTT(index); err != nil {
		return err
	}
	return m.frontendStats.Put(index, make([]bpf.BlixtFrontendCounters, ebpf.MustPossibleCPU()))
}

// fewEntries is how many entries of a hash are read without room for all that it can have.
const fewEntries = 256

// readHash reads all entries of a hash: in one call if the kernel can, otherwise
// one by one. from converts a key.
func readHash[V, K any, N comparable](m *ebpf.Map, from func(K) N) (map[N]V, error) {
	all := map[N]V{}
	for _, room := range []uint32{min(fewEntries, m.MaxEntries()), m.MaxEntries()} {
		var cursor ebpf.MapBatchCursor
		keys, values := make([]K, room), make([]V, room)
		if n, err := m.BatchLookup(&cursor, keys, values, nil); errors.Is(err, ebpf.ErrKeyNotExist) { // that was the end
			for i := range n {
				all[from(keys[i])] = values[i]
			}
			return all, nil
		}
	}
	var key K
	var value V
	it := m.Iterate()
	for it.Next(&key, &value) {
		all[from(key)] = value
	}
	return all, it.Err()
}

// readArray reads the first elements of an array: in one call if the kernel
// can, otherwise one by one.
func readArray[V any](m *ebpf.Map, values []V) error {
	var cursor ebpf.MapBatchCursor
	keys := make([]uint32, len(values))
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if (err == nil || errors.Is(err, ebpf.ErrKeyNotExist)) && n == len(values) {
		return nil
	}
	for i := range values {
		if err := m.Lookup(uint32(i), &values[i]); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}
