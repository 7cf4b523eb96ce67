// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
)

// What is written to a piece is in the kernel's array, whichever way it is read; pieces that
// nobody has written are not kept in memory.
func TestLargeArraysAreMappedByPieces(t *testing.T) {
	m := kernelMaps(t, smallSizes)
	inMemory := func() (n int) {
		for i := range m.rings.mapped {
			if m.rings.mapped[i].Load() {
				n++
			}
		}
		return n
	}
	if offset, n, err := m.ZeroSlots(); err != nil || offset != 0 || int(n) != m.Sizes().RingSlots || inMemory() != 0 {
		t.Errorf("zeros at %d, %d slots (%v) with %d pieces in memory, want all %d, with none", offset, n, err, inMemory(), m.Sizes().RingSlots)
	}
	// This ring is in two pieces, the last slot of the table in another.
	across, last := uint32(2*pieceWords-4), uint32(m.Sizes().RingSlots-2)
	if err := m.WriteRing(across, []uint32{1, 2, 3, 4, 5, 6, 7}); err != nil {
		t.Fatal(err)
	}
	if err := m.WriteRing(last, []uint32{8, 9}); err != nil {
		t.Fatal(err)
	}
	if inMemory() != 3 {
		t.Errorf("%d pieces are in memory, want 3", inMemory())
	}
	if ring, err := m.Ring(across, 7); err != nil || ring[0] != 1 || ring[6] != 7 {
		t.Errorf("read %v, %v", ring, err)
	}
	var element uint64
	if err := m.rings.of.Lookup(last/2, &element); err != nil || element != 9<<32|8 {
		t.Errorf("the kernel has %x in the last element, %v", element, err)
	}
	if same, err := m.HasRing(last, []uint32{8, 9}); err != nil || !same {
		t.Errorf("the last ring is as written: %v, %v", same, err)
	}
	begin := across + 8
	if offset, n, err := m.ZeroSlots(); err != nil || offset != begin || n != last-begin {
		t.Errorf("zeros at %d, %d slots, %v, want %d at %d", offset, n, err, last-begin, begin)
	}
	// What the program writes is seen, before and after the piece is mapped.
	if err := m.refStats.of.Put(uint32(3), RefCounters{Key: 42}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if keys, err := m.RefKeys(); err != nil || keys[3] != 42 {
			t.Errorf("keys %v, %v", keys, err)
		}
		if c, ok := m.RefCounters(3, 42); !ok || c.Key != 42 {
			t.Errorf("counters %+v, %v", c, ok)
		}
	}
	if _, ok := m.BackendHealth(uint32(m.sizes.Backends - 1)); !ok {
		t.Error("the last backend has no health")
	}
	if _, ok := m.BackendHealth(uint32(m.health.len())); ok {
		t.Error("a backend beyond the table has health")
	}
}
