// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// positionBits is the number of bits of a position. A slot's own position is
// that of its first client.
const positionBits = 32

type point struct {
	position, member uint32
}

// points are the points of all members, by the slot in which they lie.
type points struct {
	slotBits int
	weights  []float64 // of the members
	all      []point
	start    []uint32 // of each slot's points in all; one more at the end
	// heaviest is the weight of the heaviest member with a point among 2^level
	// slots, by level and block of slots; 0: there is none.
	heaviest [][]float64
}

// pointsOf returns how many points each member has. With more than 8,192
// members, no ring has enough slots anyway.
func pointsOf(members int) uint32 {
	n := uint32(128)
	for ; n > 16 && int(n)*members > 1<<20; n /= 2 {
	}
	return n
}

func place(key lb.Key, members []Member, weights []float64, size uint32) *points {
	p := &points{slotBits: bits.Len32(size) - 1, weights: weights, start: make([]uint32, size+1)}
	n := pointsOf(len(members))
	placed := make([]point, 0, int(n)*len(members))
	for i, m := range members {
		state := hash(key, m)
		// One point in each of n equal parts, so that all members are everywhere.
		part, shift := uint32(1<<positionBits/uint64(n)), uint32(state>>32)
		for j := range n {
			state += 0x9e3779b97f4a7c15
			position := uint32(mix(state))%part + j*part + shift
			placed = append(placed, point{position, uint32(i)})
			p.start[p.slot(position)+1]++
		}
	}
	for slot := range size {
		p.start[slot+1] += p.start[slot]
	}
	p.all = make([]point, len(placed))
	next := append([]uint32(nil), p.start...)
	level := make([]float64, size)
	for _, pt := range placed {
		slot := p.slot(pt.position)
		p.all[next[slot]] = pt
		next[slot]++
		level[slot] = max(level[slot], weights[pt.member])
	}
	for ; len(level) > 1; level = merged(level) {
		p.heaviest = append(p.heaviest, level)
	}
	return p
}

// merged returns the maximum of each pair.
func merged(level []float64) []float64 {
	half := make([]float64, len(level)/2)
	for i := range half {
		half[i] = max(level[2*i], level[2*i+1])
	}
	return half
}

func (p *points) slot(position uint32) uint32 { return position >> (positionBits - p.slotBits) }

// hash returns 64 bits of the SHA-256 of the frontend's address, port and
// protocol and the member's address and port: the same on every machine, and
// without a pattern between similar addresses.
func hash(key lb.Key, m Member) uint64 {
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
	return binary.BigEndian.Uint64(sum[:8])
}

// mix is the finalizer of MurmurHash3: with the steps of place, SplitMix64
// (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

// candidate is a member that may own a slot, and its weighted distance.
type candidate struct {
	member   uint32
	distance float64
}

// candidates returns the candidates of each slot: the members that can be the
// nearest once distances are corrected. An odd slot that is not split has none.
// Pairs are split in the order of their reversed bits: all over the ring.
func (p *points) candidates(split uint32) [][]candidate {
	all := make([][]candidate, 1<<p.slotBits)
	s := search{points: p}
	var found []candidate
	for slot := range uint32(len(all)) {
		if pair := slot >> 1; slot&1 == 1 && bits.Reverse32(pair)>>(32-(p.slotBits-1)) >= split {
			continue
		}
		s.run(slot)
		from := len(found)
		for _, c := range s.found {
			if c.distance <= s.best*reach {
				found = append(found, c)
			}
		}
		all[slot] = found[from:len(found):len(found)]
	}
	return all
}

// search collects the candidates of one slot.
type search struct {
	*points
	of       uint32 // the slot
	position uint32
	best     float64 // the least distance so far
	found    []candidate
}

func (s *search) run(slot uint32) {
	s.of, s.position = slot, slot<<(positionBits-s.slotBits)
	s.best, s.found = math.Inf(1), s.found[:0]
	s.scan(slot)
	for level := range s.heaviest { // the neighbour of the slot, of the pair, of both pairs...
		s.block(level, slot>>level^1)
	}
}

// block searches 2^level slots, unless all of their points are too far away.
func (s *search) block(level int, block uint32) {
	least := float64((block ^ s.of>>level) << (positionBits - s.slotBits + level))
	if heaviest := s.heaviest[level][block]; heaviest == 0 || least > s.best*reach*heaviest {
		return
	}
	if level == 0 {
		s.scan(block)
		return
	}
	nearer := block<<1 | s.of>>(level-1)&1
	s.block(level-1, nearer)
	s.block(level-1, nearer^1)
}

func (s *search) scan(slot uint32) {
	for _, p := range s.all[s.start[slot]:s.start[slot+1]] {
		distance := (float64(p.position^s.position) + 1) / s.weights[p.member]
		if distance <= s.best*reach {
			s.best = min(s.best, distance)
			s.found = append(s.found, candidate{p.member, distance})
		}
	}
}

// provide gives a slot to each member that has none: the first in which it has a
// point and whose owner can spare it, or else the next such slot.
func (p *points) provide(owners []uint32, members int) {
	held := make([]int, members)
	for _, o := range owners {
		held[o]++
	}
	spare := len(owners)
	for _, n := range held {
		spare -= min(n, 1)
	}
	poor := make(map[uint32][]uint32) // slots of the points of members without a slot
	for _, pt := range p.all {
		if held[pt.member] == 0 {
			poor[pt.member] = append(poor[pt.member], p.slot(pt.position))
		}
	}
	for m := range uint32(members) {
		if held[m] > 0 || spare == 0 {
			continue
		}
		slot := poor[m][0]
		for _, s := range poor[m] {
			if slot = s; held[owners[s]] > 1 {
				break
			}
		}
		for held[owners[slot]] <= 1 {
			slot = (slot + 1) % uint32(len(owners))
		}
		held[owners[slot]]--
		owners[slot] = m
		held[m]++
		spare--
	}
}
