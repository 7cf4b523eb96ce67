// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// part is a part of the memory. A flood of packets from forged sources fills parts of
// its own: it makes nobody forget the flows of clients that exist.
type part int

const (
	partFlows    part = iota
	partAttempts      // flows whose client has not proven to be there
	partPackets       // rejected and dropped ones
	parts
)

var (
	partNames = [parts]string{"flows", "attempts", "packets"}
	// partSizes are those of the parts: 15 MB, 2 MB and 1 MB, as far as they are in use.
	partSizes = [parts]int{65536, 8192, 4096}
)

// dropsOfReason is how many packets of each reason are remembered by reason.
const dropsOfReason = 16

// entry is a record in memory. It is as small as can be: names are those of the time
// when it came, nil if they were not known.
type entry struct {
	r      bpf.BlixtFlowRecord
	packet string
	time   int64 // wall clock in ns, of r.Ended
	seq    uint64
	names  *lb.Frontend
	was    *lb.Frontend // what names was before: it may know the backend
}

// partOf returns the part of the memory that a record belongs to.
func partOf(r *bpf.BlixtFlowRecord) part {
	switch {
	case bpf.BlixtRecordEvent(r.Event) != bpf.BlixtRecordEventRECORD_END:
		return partPackets
	case lb.Protocol(r.Protocol) == lb.TCP && (r.Rtt != 0 || bpf.BlixtEndReason(r.Reason) == bpf.BlixtEndReasonRECORD_FIN),
		lb.Protocol(r.Protocol) != lb.TCP && r.Packets[1] > 0:
		return partFlows
	}
	return partAttempts
}

// memory is the newest records.
type memory struct {
	mu    sync.RWMutex // of all below; held for moments only
	began time.Time
	seq   uint64
	parts [parts]circle
	drops [bpf.BlixtCounterCOUNTERS]dropped
	// changed is closed, and replaced, when something comes.
	changed chan struct{}
}

// circle is one part: the entries from next-len(all) to next. Number n is at n%size.
type circle struct {
	size int
	all  []entry
	next uint64
}

func (c *circle) first() uint64 { return c.next - uint64(len(c.all)) }

func (c *circle) at(n uint64) *entry { return &c.all[n%uint64(c.size)] }

// dropped are the last packets of one reason, and how many before the newest were left
// out since the one before it.
type dropped struct {
	all [dropsOfReason]entry
	n   uint64
}

func (m *memory) init(sizes [parts]int, now time.Time) {
	m.began, m.changed = now, make(chan struct{})
	for p := range m.parts {
		m.parts[p].size = sizes[p]
	}
}

// add adds entries, and numbers them.
func (m *memory) add(batch []entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range batch {
		e := &batch[i]
		m.seq++
		e.seq = m.seq
		p := partOf(&e.r)
		c := &m.parts[p]
		if len(c.all) < c.size {
			c.all = append(c.all, *e)
		} else {
			*c.at(c.next) = *e
		}
		c.next++
		if p == partPackets && int(e.r.Reason) < len(m.drops) {
			d := &m.drops[e.r.Reason]
			d.all[d.n%dropsOfReason] = *e
			d.n++
		}
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// place is how far somebody has read, by part.
type place [parts]uint64

// end returns the place behind the newest entries.
func (m *memory) end() (at place) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for p := range m.parts {
		at[p] = m.parts[p].next
	}
	return at
}

// first returns the number of the oldest entry of a part.
func (m *memory) first(p part) uint64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.parts[p].first()
}

// counts returns how many entries there ever were, by part.
func (m *memory) counts() [parts]uint64 { return m.end() }

// chunk is how many entries are copied at a time.
const chunk = 128

// next copies entries of a part from a place on, up to an end, and moves the place. It
// returns how many were forgotten before they could be read.
func (m *memory) next(p part, at *place, end uint64, to []entry) (n int, missed uint64) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &m.parts[p]
	if first := min(c.first(), end); at[p] < first {
		missed = first - at[p]
		at[p] = first
	}
	for n < len(to) && at[p] < min(end, c.next) {
		to[n] = *c.at(at[p])
		n++
		at[p]++
	}
	return n, missed
}

// wait returns a channel that is closed when there is something behind a place.
func (m *memory) wait(at place) <-chan struct{} {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for p := range m.parts {
		if at[p] < m.parts[p].next {
			ready := make(chan struct{})
			close(ready)
			return ready
		}
	}
	return m.changed
}

// lastDrops returns the last packets of a reason, oldest first.
func (m *memory) lastDrops(reason int) (all []entry) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	d := &m.drops[reason]
	for n := d.n - min(d.n, dropsOfReason); n < d.n; n++ {
		all = append(all, d.all[n%dropsOfReason])
	}
	return all
}

// held returns how many entries a part has, and the time of the oldest if older ones
// were forgotten.
func (m *memory) held(p part) (n int, oldest int64, forgot bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	c := &m.parts[p]
	if n = len(c.all); c.first() > 0 {
		return n, c.at(c.first()).time, true
	}
	return n, 0, false
}
