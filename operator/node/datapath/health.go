// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Health is an element of `backend_health`: how flows of a backend begin.
type Health = bpf.BlixtHealth

// HealthTables are the tables of backends that are judged.
type HealthTables interface {
	// Judge sets what is counted of a backend id to zero, if clear is true, and how long a
	// SYN may be unanswered, in units of 1 / LatencyUnitsPerSecond seconds.
	Judge(id, answerWithin uint32, clear bool) error
	// BackendHealth returns what is counted of a backend id. ok is false if the program does
	// not count it.
	BackendHealth(id uint32) (h Health, ok bool)
}

const (
	backendJudged = uint16(bpf.BlixtBackendFlagBACKEND_JUDGED)
	backendTrial  = uint16(bpf.BlixtBackendFlagBACKEND_TRIAL)

	healthWords = 4 // of an element
)

// judge begins to judge a backend, or changes how. No packet counts for it yet, or they go on to.
type judge struct {
	id, answerWithin uint32
	clear            bool
}

func (o judge) write(t Tables) error        { return t.Judge(o.id, o.answerWithin, o.clear) }
func (o judge) record(*Contents, time.Time) {}
func (o judge) count(*Written)              {}
func (o judge) String() string {
	return fmt.Sprintf("judge backend %d by answers within %d", o.id, o.answerWithin)
}

// answerWithin returns how long a SYN may be unanswered, and whether backends of the frontend are judged.
func answerWithin(f *lb.Frontend) (units uint32, judged bool) {
	if f == nil || f.Health == nil || f.Health.Passive == nil {
		return 0, false
	}
	return uint32(min(f.Health.Passive.AnswerWithin.Seconds()*LatencyUnitsPerSecond, 1<<31)), true
}

// healthFlags returns the flags of a backend by which its health is judged.
func healthFlags(f *lb.Frontend, b *lb.Backend) (flags uint16) {
	if _, judged := answerWithin(f); judged {
		flags |= backendJudged
		if b.Ejected.OnTrial() {
			flags |= backendTrial
		}
	}
	return flags
}

// judge plans how a backend of f is judged, before its flags say so. old is the frontend as it was; nil: it is
// new, or not known. have are the backend's flags; 0: the id was not its own so far.
func (p *planner) judge(step int, id uint32, f, old *lb.Frontend, have uint16, isNew bool) {
	units, judged := answerWithin(f)
	before, was := answerWithin(old)
	if judged && (isNew || !was || before != units) {
		p.add(step, judge{id, units, isNew || have&backendJudged == 0})
	}
}

// Judge implements HealthTables.
func (m *Maps) Judge(id, answerWithin uint32, clear bool) error {
	if m.health == nil {
		return nil
	}
	if int(id+1)*healthWords > m.health.len() {
		return fmt.Errorf("backend %d: table backend_health has %d elements", id, m.health.len()/healthWords)
	}
	words, err := m.health.at(int(id)*healthWords, healthWords)
	if err != nil {
		return err
	}
	if clear {
		for i := range words[:healthWords-1] {
			atomic.StoreUint64(&words[i], 0)
		}
		atomic.StoreUint64(&words[healthWords-1], uint64(answerWithin)<<32)
		return nil
	}
	for {
		was := atomic.LoadUint64(&words[healthWords-1])
		if atomic.CompareAndSwapUint64(&words[healthWords-1], was, uint64(answerWithin)<<32|was&(1<<32-1)) {
			return nil
		}
	}
}

// BackendHealth implements HealthTables. It takes no system call, but for the first of its piece.
func (m *Maps) BackendHealth(id uint32) (h Health, ok bool) {
	if int(id+1)*healthWords > m.health.len() {
		return h, false
	}
	words, err := m.health.at(int(id)*healthWords, healthWords)
	if err != nil {
		return h, false
	}
	var w [healthWords]uint64
	load(w[:], words)
	return Health{
		Consecutive: uint32(w[0]), Failures: uint32(w[0] >> 32), Answers: uint32(w[1]), Prefix: uint32(w[1] >> 32),
		Others: uint32(w[2]), Trial: uint32(w[2] >> 32), Unanswered: uint32(w[3]), AnswerWithin: uint32(w[3] >> 32),
	}, true
}

// Judge implements HealthTables.
func (f *Fake) Judge(id, answerWithin uint32, clear bool) error {
	return f.write(func() {
		if f.HealthOf == nil {
			f.HealthOf = map[uint32]Health{}
		}
		h := f.HealthOf[id]
		if clear {
			h = Health{}
		}
		h.AnswerWithin = answerWithin
		f.HealthOf[id] = h
	})
}

// CountHealth does what the data plane would.
func (f *Fake) CountHealth(id uint32, count func(*Health)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.HealthOf[id]
	count(&h)
	f.HealthOf[id] = h
}

// BackendHealth implements HealthTables.
func (f *Fake) BackendHealth(id uint32) (h Health, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.HealthOf[id], !f.Earlier
}
