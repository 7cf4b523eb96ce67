// SPDX-License-Identifier: Apache-2.0

package maglev

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// walk is the order in which a member visits the slots.
type walk struct {
	at, skip       uint32
	inverse        uint32 // of skip, modulo the ring's size; 0: not known yet
	quota, claimed uint32
}

// newWalk derives the first slot and the step from the SHA-256 of the
// frontend's address, port and protocol and the member's address and port: the
// same on every machine, and without a pattern between similar addresses.
func newWalk(key lb.Key, m Member, size, quota uint32) walk {
	var text [16 + 2 + 1 + 16 + 2]byte
	addr := key.Addr.As16()
	copy(text[:], addr[:])
	binary.BigEndian.PutUint16(text[16:], key.Port)
	text[18] = byte(key.Protocol)
	if m.Addr.IsValid() {
		addr = m.Addr.Addr().As16()
		copy(text[19:], addr[:])
		binary.BigEndian.PutUint16(text[35:], m.Addr.Port())
	}
	sum := sha256.Sum256(text[:])
	return walk{
		at:    uint32(binary.BigEndian.Uint64(sum[:8]) % uint64(size)),
		skip:  uint32(binary.BigEndian.Uint64(sum[8:16])%uint64(size-1)) + 1,
		quota: quota,
	}
}

// fewSlots is the number of free slots at which searching them becomes cheaper
// than walking on: half of all steps would be for the last 256 slots of a
// full-sized ring.
const fewSlots = 256

// freeSlots are the unclaimed slots: a bit each, so that they stay in the
// nearest cache, and a list once there are few.
type freeSlots struct {
	size, left uint32
	bits       []uint64
	few        []uint32
}

func newFreeSlots(size uint32) *freeSlots {
	f := &freeSlots{size: size, left: size, bits: make([]uint64, (size+63)/64)}
	for i := range f.bits {
		f.bits[i] = ^uint64(0)
	}
	f.bits[len(f.bits)-1] = 1<<(size%64) - 1 // sizes are primes, so never a whole word
	return f
}

// claim claims the first free slot of a walk, and returns it.
func (f *freeSlots) claim(w *walk) uint32 {
	if f.left <= fewSlots {
		return f.search(w)
	}
	// Two steps at a time, so that the processor can test one slot while it
	// computes the next.
	size, free := f.size, f.bits
	at, next := w.at, advance(w.at, w.skip, size)
	double := advance(w.skip, w.skip, size)
	for {
		if free[at>>6]>>(at&63)&1 != 0 {
			break
		}
		if free[next>>6]>>(next&63)&1 != 0 {
			at = next
			break
		}
		at, next = advance(at, double, size), advance(next, double, size)
	}
	free[at>>6] &^= 1 << (at & 63)
	f.left--
	w.at = at
	return at
}

// advance returns (at + by) % size; both are less than size. It has no branch,
// as no processor could predict it: the sign of the difference, extended, is a
// mask.
func advance(at, by, size uint32) uint32 {
	at += by - size
	return at + size&uint32(int32(at)>>31)
}

// search is claim without the walk: the number of steps to a slot is its
// distance divided by skip, modulo the ring's size.
func (f *freeSlots) search(w *walk) uint32 {
	if f.few == nil {
		f.list()
	}
	if w.inverse == 0 {
		w.inverse = inverse(w.skip, f.size)
	}
	best, fewest := 0, ^uint32(0)
	reciprocal := ^uint64(0)/uint64(f.size) + 1
	for i, slot := range f.few {
		distance := slot - w.at
		if slot < w.at {
			distance += f.size
		}
		// distance * inverse % size by two multiplications, exact since the
		// product fits 32 bits (Lemire, Kaser, Kurz: Faster Remainder by Direct
		// Computation, 2019): sizes are below 2^16.
		steps, _ := bits.Mul64(reciprocal*uint64(distance*w.inverse), uint64(f.size))
		if uint32(steps) < fewest {
			best, fewest = i, uint32(steps)
		}
	}
	w.at = f.few[best]
	f.few[best] = f.few[f.left-1]
	f.few = f.few[:f.left-1]
	f.left--
	return w.at
}

func (f *freeSlots) list() {
	f.few = make([]uint32, 0, f.left)
	for i, word := range f.bits {
		for ; word != 0; word &= word - 1 {
			f.few = append(f.few, uint32(64*i+bits.TrailingZeros64(word)))
		}
	}
}

// inverse returns 1/a modulo the prime p, by Fermat: a^(p-2).
func inverse(a, p uint32) uint32 {
	result, power := uint64(1), uint64(a)
	for e := p - 2; e > 0; e >>= 1 {
		if e&1 != 0 {
			result = result * power % uint64(p)
		}
		power = power * power % uint64(p)
	}
	return uint32(result)
}
