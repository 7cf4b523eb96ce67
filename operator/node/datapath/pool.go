// SPDX-License-Identifier: Apache-2.0

package datapath

import "time"

// reuseGrace is how long what was freed is left alone before it serves another: a
// packet on its way through the program may still hold what it read. That
// takes microseconds; a second leaves room for a stopped virtual machine.
const reuseGrace = time.Second

// pool gives out numbers, backend ids or frontend indexes. A copy of the
// struct is a plan's own pool.
type pool struct {
	resting []restingNumber // in the order of their freeing
	next    uint32          // this and all above were never used
	end     uint32
}

type restingNumber struct {
	n     uint32
	until time.Time
}

// ready returns how many numbers there are now, at most most, and if fewer,
// when the next one is ready; never: zero.
func (p *pool) available(most int, now time.Time) (n int, wait time.Time) {
	n = int(p.end - p.next)
	for i := 0; n < most && i < len(p.resting); i++ {
		if p.resting[i].until.After(now) {
			return n, p.resting[i].until
		}
		n++
	}
	return min(n, most), time.Time{}
}

// take returns a number, those that have rested first: low numbers stay in
// use and share cache lines. Only valid if ready says so.
func (p *pool) take(now time.Time) uint32 {
	if len(p.resting) > 0 && !p.resting[0].until.After(now) {
		n := p.resting[0].n
		p.resting = p.resting[1:]
		return n
	}
	p.next++
	return p.next - 1
}

func (p *pool) release(n uint32, now time.Time) {
	p.resting = append(p.resting, restingNumber{n, now.Add(reuseGrace)})
}
