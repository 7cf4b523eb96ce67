// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"container/heap"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Pauses between probes.
const (
	// goodEvery is for what is answered: after so long, and a retry, nobody is told
	// any more in a form that does not arrive.
	goodEvery = 30 * time.Second
	// retryAfter is for what was not answered once: a lost packet means nothing.
	retryAfter = time.Second
	// badFirst and badLast are for what is not answered, first and at last: nobody
	// tells when the other node begins to undo, or a firewall lets messages pass.
	badFirst = 5 * time.Second
	badLast  = 30 * time.Second
	// keepUnused is how long it is remembered what a node has answered that has no
	// backends: it may have the next one soon.
	keepUnused = 10 * time.Minute
)

// missesUntilBad is how many probes in a row must stay without an answer.
const missesUntilBad = 2

// pair is a form of messages to another node.
type pair struct {
	node string
	form lb.Forms // one
}

// state is what is known of a pair.
type state int

const (
	unknown state = iota
	good
	bad
)

// item is a pair that is probed, or was.
type item struct {
	pair
	endpoints []netip.AddrPort // nil: it is not to be probed
	next      int              // of them, to probe
	unused    time.Time        // since when it is not to be probed

	state    state
	misses   int // in a row
	pause    time.Duration
	due      time.Time
	running  bool
	soon     bool // it became due again while a probe was on its way
	position int  // in the queue; -1: it is not there

	answered, lost uint64
	last           time.Time // of the last answer
	roundTrip      time.Duration
}

// schedule decides when to probe which pair, and what follows from the answers. It
// does no I/O, and knows no clock.
type schedule struct {
	items map[pair]*item
	queue queue
	// jitter returns a random part of d.
	jitter func(d time.Duration) time.Duration
}

func newSchedule() schedule {
	return schedule{items: map[pair]*item{}, jitter: func(d time.Duration) time.Duration { return rand.N(d) }}
}

// state returns what is known of a pair.
func (s *schedule) state(p pair) state {
	if i := s.items[p]; i != nil {
		return i.state
	}
	return unknown
}

// want replaces the pairs to probe, with endpoints of each.
func (s *schedule) want(wanted map[pair][]netip.AddrPort, now time.Time) {
	for p, endpoints := range wanted {
		i := s.items[p]
		if i == nil {
			i = &item{pair: p, position: -1, due: now}
			s.items[p] = i
		} else if i.endpoints == nil && now.Sub(i.last) > goodEvery {
			i.due = now
		}
		i.endpoints, i.next = endpoints, i.next%len(endpoints)
		s.enqueue(i)
	}
	for p, i := range s.items {
		if wanted[p] != nil {
			continue
		}
		if i.endpoints != nil {
			i.endpoints, i.unused = nil, now
			s.dequeue(i)
		}
		if now.Sub(i.unused) > keepUnused {
			delete(s.items, p)
		}
	}
}

// probeSoon has all pairs with a node probed, as the node has changed.
func (s *schedule) probeSoon(node string, now time.Time) {
	for _, i := range s.items {
		if i.node != node {
			continue
		}
		i.pause, i.due, i.soon = 0, now, i.running
		if i.position >= 0 {
			heap.Fix(&s.queue, i.position)
		}
	}
}

// take returns an item that is due, and where to send its probe; nil: none is
// before the time that it returns, zero: never.
func (s *schedule) take(now time.Time) (i *item, to netip.AddrPort, next time.Time) {
	if len(s.queue) == 0 {
		return nil, to, time.Time{}
	}
	if i = s.queue[0]; i.due.After(now) {
		return nil, to, i.due
	}
	s.dequeue(i)
	i.running, i.soon = true, false
	return i, i.endpoints[i.next], next
}

// result records what has become of a probe. It reports whether the state of the pair
// has changed. err is that no probe could be sent, which tells nothing of the pair.
func (s *schedule) result(i *item, now time.Time, answered bool, roundTrip time.Duration, err error) (changed bool) {
	before := i.state
	i.running = false
	switch {
	case err != nil:
		i.wait(now, badFirst, s.jitter)
	case answered:
		i.state, i.misses, i.pause = good, 0, 0
		i.answered++
		i.last, i.roundTrip = now, roundTrip
		i.wait(now, goodEvery, s.jitter)
	default:
		i.lost++
		i.misses++
		if i.next++; i.next >= len(i.endpoints) {
			i.next = 0
		}
		if i.misses < missesUntilBad {
			i.wait(now, retryAfter, s.jitter)
			break
		}
		i.state = bad
		i.pause = min(max(2*i.pause, badFirst), badLast)
		i.wait(now, i.pause, s.jitter)
	}
	if i.soon {
		i.due = now
	}
	s.enqueue(i)
	return i.state != before
}

// wait makes the item due after a pause, and up to a quarter more: nodes that have
// begun together do not go on together.
func (i *item) wait(now time.Time, pause time.Duration, jitter func(time.Duration) time.Duration) {
	i.due = now.Add(pause + jitter(pause/4))
}

func (s *schedule) enqueue(i *item) {
	switch {
	case i.endpoints == nil || i.running:
	case i.position < 0:
		heap.Push(&s.queue, i)
	default:
		heap.Fix(&s.queue, i.position)
	}
}

func (s *schedule) dequeue(i *item) {
	if i.position >= 0 {
		heap.Remove(&s.queue, i.position)
	}
}

// queue is a heap of items by due.
type queue []*item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].position, q[j].position = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	i := x.(*item)
	i.position = len(*q)
	*q = append(*q, i)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	i := (*q)[last]
	i.position = -1
	(*q)[last] = nil
	*q = (*q)[:last]
	return i
}
