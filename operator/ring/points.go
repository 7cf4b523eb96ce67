// SPDX-License-Identifier: Apache-2.0

package ring

import (
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// positionBits is the number of bits of a position. A slot's own position is
// that of its first client.
const positionBits = 32

type point struct {
	position, member uint32
}

// points are the points of all members, sorted by the block of slots in which
// they lie. Blocks have few points, and most slots need those of their own only.
type points struct {
	slotBits, blockBits int
	due, inverse        []float64 // of the members: how many slots each should have
	outside             float64   // the least distance to a point of another block
	within              float64   // how many times as far away as the nearest a candidate can be
	all                 []point
	start               []uint32 // of each block's points in all; one more at the end
	// levels are the weights of the heaviest members with a point among 2^level
	// blocks, by level and group of blocks; 0: there is none.
	levels [][]float64
}

// pointsOf returns how many points each member has: a power of two. With more
// than 8,192 members, no ring has enough slots anyway.
func pointsOf(members int) uint32 {
	n := uint32(128)
	for ; n > 16 && int(n)*members > 1<<20; n /= 2 {
	}
	return n
}

// pointsOfBlock is how many points a block has at least, on average: so many that
// next to all slots have the nearest one in their own.
const pointsOfBlock = 4

func (s *scratch) place(key lb.Key, members []Member, due []float64, size uint32) *points {
	n := pointsOf(len(members))
	total := int(n) * len(members)
	p := &s.points
	p.slotBits, p.blockBits = bits.Len32(size)-1, 0
	for p.blockBits < p.slotBits && total<<p.blockBits < pointsOfBlock*int(size) {
		p.blockBits++
	}
	p.due, p.outside = due, float64(uint64(1)<<(positionBits-p.slotBits+p.blockBits))/slices.Max(due)
	p.inverse = resize(p.inverse, len(due))
	for i, d := range due {
		p.inverse[i] = 1 / d
	}
	blocks := int(size) >> p.blockBits
	p.start = resize(p.start, blocks+1)
	clear(p.start)
	s.placed = resize(s.placed, total)
	part, at := uint32(1<<positionBits/uint64(n)), 0
	for i, m := range members {
		state := hash(key, m)
		// One point in each of n equal parts, so that all members are everywhere.
		shift := uint32(state >> 32)
		for j := range n {
			state += 0x9e3779b97f4a7c15
			position := uint32(mix(state))&(part-1) + j*part + shift
			s.placed[at] = point{position, uint32(i)}
			p.start[p.block(position)+1]++
			at++
		}
	}
	for b := range blocks {
		p.start[b+1] += p.start[b]
	}
	p.all = resize(p.all, total)
	s.next = append(s.next[:0], p.start...)
	if len(p.levels) == 0 {
		p.levels = make([][]float64, 1, 2*positionBits)
	}
	level := resize(p.levels[0], blocks)
	clear(level)
	for _, pt := range s.placed {
		b := p.block(pt.position)
		p.all[s.next[b]] = pt
		s.next[b]++
		level[b] = max(level[b], due[pt.member])
	}
	known := p.levels[:cap(p.levels)]
	p.levels = known[:0]
	for ; len(level) > 1; level = merged(level, known[len(p.levels)]) {
		p.levels = append(p.levels, level)
	}
	return p
}

// merged returns the maximum of each pair, in the memory of half.
func merged(level, half []float64) []float64 {
	half = resize(half, len(level)/2)
	for i := range half {
		half[i] = max(level[2*i], level[2*i+1])
	}
	return half
}

func (p *points) block(position uint32) uint32 {
	return uint32(uint64(position) >> (positionBits - p.slotBits + p.blockBits))
}

// of returns the points of a block.
func (p *points) of(block uint32) []point { return p.all[p.start[block]:p.start[block+1]] }

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

// candidate is a member that may own a slot: the distance of one of its points
// from the slot, not weighted and weighted.
type candidate struct {
	member, apart uint32
	distance      float64
}

// slack is far more than what a rounding changes.
const slack = 1 + 1e-12

// nearest returns the member that is the nearest to a position, and a bound: all
// others are at least so many times as far away. If it is 1, two may be as near.
// The loop has no branches, as nobody could predict them.
func (p *points) nearest(position uint32) (member uint32, bound float64) {
	// Of numbers that are not negative, the order is that of their bits.
	least, second := math.Float64bits(math.Inf(1)), math.Float64bits(p.outside)
	for _, pt := range p.of(p.block(position)) {
		d := math.Float64bits((float64(pt.position^position) + 1) * p.inverse[pt.member])
		if d < least {
			member = pt.member
		}
		second = min(second, max(least, d))
		least = min(least, d)
	}
	return member, max(math.Float64frombits(second)/(math.Float64frombits(least)*slack), 1)
}

// candidates appends the candidates of the slot at a position: the points that can
// be the nearest once distances are corrected.
func (p *points) candidates(to []candidate, position uint32) []candidate {
	from := len(to)
	s := search{points: p, position: position, of: p.block(position), limit: math.Inf(1), found: to}
	s.scan(s.of)
	outside := p.outside
	for level := range p.levels { // the neighbour of the block, of the pair, of both pairs...
		if outside > s.limit {
			break
		}
		s.blocks(level, s.of>>level^1)
		outside *= 2
	}
	to = s.found
	best := math.Inf(1)
	for i := from; i < len(to); i++ {
		c := &to[i]
		c.distance = (float64(c.apart) + 1) / p.due[c.member]
		best = min(best, c.distance)
	}
	n := from
	for _, c := range to[from:] {
		if c.distance <= best*p.within {
			to[n] = c
			n++
		}
	}
	return to[:n]
}

// search collects the candidates of a slot that are in several blocks.
type search struct {
	*points
	of       uint32 // the block of the slot
	position uint32
	limit    float64 // of the distance, so far
	found    []candidate
}

// blocks searches 2^level blocks, unless all of their points are too far away.
func (s *search) blocks(level int, group uint32) {
	least := float64(uint64(group^s.of>>level) << (positionBits - s.slotBits + s.blockBits + level))
	if heaviest := s.levels[level][group]; heaviest == 0 || least > s.limit*heaviest {
		return
	}
	if level == 0 {
		s.scan(group)
		return
	}
	nearer := group<<1 | s.of>>(level-1)&1
	s.blocks(level-1, nearer)
	s.blocks(level-1, nearer^1)
}

func (s *search) scan(block uint32) {
	for _, pt := range s.points.of(block) {
		apart := pt.position ^ s.position
		if distance := (float64(apart) + 1) * s.inverse[pt.member]; distance <= s.limit {
			s.limit = min(s.limit, distance*s.within*slack)
			s.found = append(s.found, candidate{member: pt.member, apart: apart})
		}
	}
}

// slots yields the slots of some pairs, and how many follow the owner of each: both of a
// pair that is not split. Pairs are split in the order of their reversed bits: all over
// the ring.
func (p *points) slots(split, from, to uint32) iter.Seq2[uint32, uint32] {
	return func(yield func(slot, slots uint32) bool) {
		for pair := from; pair < to; pair++ {
			if bits.Reverse32(pair)>>(32-(p.slotBits-1)) >= split {
				yield(2*pair, 2)
				continue
			}
			yield(2*pair, 1)
			yield(2*pair+1, 1)
		}
	}
}

func (p *points) position(slot uint32) uint32 { return slot << (positionBits - p.slotBits) }

// provide gives a slot to each member that has none: the first in which it has a
// point and whose owner can spare it, or else the next such slot.
func (p *points) provide(owners []uint32, held []int) {
	spare := len(owners)
	for _, n := range held {
		spare -= min(n, 1)
	}
	if !slices.Contains(held, 0) {
		return
	}
	poor := make(map[uint32][]uint32) // slots of the points of members without a slot
	for _, pt := range p.all {
		if held[pt.member] == 0 {
			poor[pt.member] = append(poor[pt.member], pt.position>>(positionBits-p.slotBits))
		}
	}
	for m := range uint32(len(held)) {
		if held[m] > 0 || spare == 0 {
			continue
		}
		slices.Sort(poor[m])
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
