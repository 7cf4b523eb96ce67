// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// A bucket is what a limit of new flows promises, told in another way than the
// program does it: no more than burst + t / interval in any time t.
type bucket struct {
	interval time.Duration
	burst    int
}

// over returns how many more than the bucket allows any window holds of the flows that
// were admitted, in order of time: each at some moment of its span.
func (b bucket) over(admitted []span) (worst int) {
	for i := range admitted {
		end := admitted[i].ended
		for j := i; j < len(admitted); j++ {
			if admitted[j].ended.After(end) {
				end = admitted[j].ended
			}
			allowed := b.burst + int(end.Sub(admitted[i].began)/b.interval)
			worst = max(worst, j-i+1-allowed)
		}
	}
	return worst
}

// least returns how many of the flows that come, in order of time, have to be admitted: those
// that a meter holds which is emptied all the time.
func (b bucket) least(arrivals []span) (n int) {
	level, last := 0.0, time.Time{}
	for _, a := range arrivals {
		if !last.IsZero() {
			level = max(0, level-float64(a.began.Sub(last))/float64(b.interval))
		}
		last = a.ended
		if level+1 <= float64(b.burst) {
			level++
			n++
		}
	}
	return n
}

type span struct{ began, ended time.Time }

// TestLimitsAgainstModel sends flows at random times from all CPUs, and compares those that
// begin with what a model of each limit allows: never one more. Nor are they fewer than
// one limit alone admits, by more than one for each CPU: see take() in policy.h.
func TestLimitsAgainstModel(t *testing.T) {
	for round := range 9 {
		seed := uint64(time.Now().UnixNano())
		random := rand.New(rand.NewPCG(seed, uint64(round)))
		each := bucket{interval: time.Duration(20+random.IntN(2000)) * time.Microsecond, burst: 1 + random.IntN(50)}
		all := bucket{interval: time.Duration(10+random.IntN(500)) * time.Microsecond, burst: 1 + random.IntN(200)}
		sources, limitEach, limitAll := 1+random.IntN(8), round%3 != 0, round%3 != 1
		t.Run(fmt.Sprintf("seed %d, %d sources, each %v: %v, all %v: %v", seed, sources, limitEach, each, limitAll, all), func(t *testing.T) {
			l := newLB(t)
			l.both(unix.IPPROTO_UDP)
			var ids []uint64
			if limitAll {
				l.limits(1, BlixtPolicy{TotalInterval: uint64(all.interval), TotalBurst: uint32(all.burst)})
				ids = append(ids, 1)
			}
			if limitEach {
				l.limits(2, BlixtPolicy{SourceInterval: uint64(each.interval), SourceBurst: uint32(each.burst)})
				ids = append(ids, 2)
			}
			l.policies(0, ids...)
			admitted, arrivals := arrive(l, sources, seed)
			began, came := inOrder(admitted), inOrder(arrivals)
			if n := all.over(began); limitAll && n > 0 {
				t.Errorf("%d more than all sources may", n)
			}
			least := 0
			for i, spans := range admitted {
				if n := each.over(spans); limitEach && n > 0 {
					t.Errorf("%d more than source %d may", n, i)
				}
				least += each.least(arrivals[i])
			}
			if !limitEach {
				least = all.least(came)
			}
			if lost := least - len(began); !(limitAll && limitEach) && lost > runtime.NumCPU() {
				t.Errorf("%d of %d flows began, want at least %d", len(began), len(came), least)
			}
			if n := l.refused(1, BlixtRefusalREFUSED_TOTAL_RATE) + l.refused(2, BlixtRefusalREFUSED_SOURCE_RATE); int(n) != len(came)-len(began) {
				t.Errorf("policies have counted %d refused flows, want %d", n, len(came)-len(began))
			}
			t.Logf("%d of %d flows began, at least %d had to", len(began), len(came), least)
		})
	}
}

func inOrder(of [][]span) []span {
	all := slices.Concat(of...)
	slices.SortFunc(all, func(a, b span) int { return a.began.Compare(b.began) })
	return all
}

// arrive has a worker for each CPU begin flows of each source at random times, for a while. It
// returns by source when those were sent that began, and when all were.
func arrive(l *lb, sources int, seed uint64) (admitted, arrivals [][]span) {
	l.Helper()
	admitted, arrivals = make([][]span, sources), make([][]span, sources)
	var namespace *os.File
	l.lab.do(func() {
		var err error
		namespace, err = os.Open("/proc/thread-self/ns/net")
		l.must(err)
	})
	defer namespace.Close()
	end := time.Now().Add(150 * time.Millisecond)
	var all sync.WaitGroup
	var lock sync.Mutex
	for cpu := range runtime.NumCPU() {
		all.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends here
			if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
				l.Error(err)
				return
			}
			random := rand.New(rand.NewPCG(seed, uint64(cpu)))
			type sent struct {
				source int
				span
				passed bool
			}
			var log []sent
			ctx := l.context(hook{dev: outside})
			for port := 0; time.Now().Before(end) && port < 60000/runtime.NumCPU(); port++ { // each flow has a tuple of its own
				n := random.IntN(sources)
				p := opens(unix.IPPROTO_UDP, source(ipVersions[0], n+1))
				p.src = netip.AddrPortFrom(p.src.Addr(), uint16(1024+port*runtime.NumCPU()+cpu))
				o := &ebpf.RunOptions{Data: p.bytes(), DataOut: make([]byte, 256), Context: ctx}
				began := time.Now()
				verdict, err := l.Blixt.Run(o)
				log = append(log, sent{n, span{began, time.Now()}, verdict == tcxNext})
				if err != nil {
					l.Error(err)
					return
				}
				if random.IntN(8) == 0 {
					time.Sleep(time.Duration(random.IntN(2000)) * time.Microsecond)
				}
			}
			lock.Lock()
			defer lock.Unlock()
			for _, s := range log {
				arrivals[s.source] = append(arrivals[s.source], s.span)
				if s.passed {
					admitted[s.source] = append(admitted[s.source], s.span)
				}
			}
		})
	}
	all.Wait()
	for i := range sources {
		for _, spans := range [][]span{admitted[i], arrivals[i]} {
			slices.SortFunc(spans, func(a, b span) int { return a.began.Compare(b.began) })
		}
	}
	return admitted, arrivals
}
