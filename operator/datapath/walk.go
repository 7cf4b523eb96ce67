// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// walk is a member's way through the slots.
type walk struct {
	at, skip       uint32
	inverse        uint32 // of skip, modulo the ring's size; 0: not known yet
	quota, claimed uint32
}

// newWalk derives offset and skip from SHA-256 of the frontend's address, port
// and protocol and the member's address and port: it is the same on every
// machine and leaves no pattern between similar addresses.
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

// fewSlots is when searching the free slots becomes cheaper than walking on:
// half of all steps would go to the last 256 slots of a full-sized ring.
const fewSlots = 256

// freeSlots are the slots that nobody has claimed: a bit each, so that they
// stay in the nearest cache, and a list once there are few.
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
	return f
}

func (f *freeSlots) claim(at uint32) {
	f.bits[at>>6] &^= 1 << (at & 63)
	f.left--
	if f.left == fewSlots {
		for i := range f.size {
			if f.bits[i>>6]>>(i&63)&1 != 0 {
				f.few = append(f.few, i)
			}
		}
	}
	for i, slot := range f.few {
		if slot == at {
			f.few[i] = f.few[len(f.few)-1]
			f.few = f.few[:len(f.few)-1]
			break
		}
	}
}

// next returns the first free slot on a walk.
func (f *freeSlots) next(w *walk) uint32 {
	if len(f.few) > 0 {
		return f.search(w)
	}
	at, skip, size, bits := w.at, w.skip, f.size, f.bits
	for bits[at>>6]>>(at&63)&1 == 0 {
		// at = (at + skip) % size, without a branch that nobody can predict:
		// the sign of the difference, spread, is the mask.
		at += skip - size
		at += size & uint32(int32(at)>>31)
	}
	return at
}

// search finds the same slot as walking would: the number of steps to a slot
// is its distance divided by skip, modulo the ring's size.
func (f *freeSlots) search(w *walk) uint32 {
	if w.inverse == 0 {
		w.inverse = inverse(w.skip, f.size)
	}
	best, fewest := uint32(0), ^uint32(0)
	for _, slot := range f.few {
		distance := slot + f.size - w.at // both below 2^17
		steps := uint32(uint64(distance) * uint64(w.inverse) % uint64(f.size))
		if steps < fewest {
			best, fewest = slot, steps
		}
	}
	return best
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
