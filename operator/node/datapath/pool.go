// SPDX-License-Identifier: Apache-2.0

package datapath

import "time"

// reuseGrace is how long an id or slot rests between two uses: a packet on its
// way through the program may still use what it has read. That takes
// microseconds; a second leaves room for a virtual machine that was stopped.
const reuseGrace = time.Second

// pool allocates numbers: backend ids or frontend indexes. A copy of the struct
// is independent, for a plan.
type pool struct {
	resting []restingNumber // in the order in which they were freed
	next    uint32          // this and all above it were never used
	end     uint32
}

type restingNumber struct {
	n     uint32
	until time.Time
}

// available returns how many numbers can be taken now, at most `most`. If there
// are fewer, wait is when the next one can be taken; zero: never.
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

// take returns a number. It prefers those that have rested: low numbers stay in
// use and share cache lines. It may only be called if available says so.
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
