// SPDX-License-Identifier: Apache-2.0

package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

var (
	tcp4     = lb.FormOf(false, false, false)
	endpoint = netip.MustParseAddrPort("10.0.0.1:80")
)

// scheduling is a schedule whose time passes only when it says so.
type scheduling struct {
	*testing.T
	schedule
	now time.Time
}

func newScheduling(t *testing.T, jitter float64) *scheduling {
	s := &scheduling{t, newSchedule(), time.Unix(1e9, 0)}
	s.jitter = func(d time.Duration) time.Duration { return time.Duration(jitter * float64(d)) }
	return s
}

// next waits until a probe is due, and returns for how long that was, and where it
// goes.
func (s *scheduling) next() (*item, time.Duration, netip.AddrPort) {
	s.Helper()
	before := s.now
	for range 2 {
		i, to, next := s.take(s.now)
		if i != nil {
			return i, s.now.Sub(before), to
		}
		if next.IsZero() {
			break
		}
		s.now = next
	}
	s.Fatal("no probe is ever due")
	return nil, 0, netip.AddrPort{}
}

func (s *scheduling) wantOne(endpoints ...netip.AddrPort) {
	s.want(map[pair][]netip.AddrPort{{"b", tcp4}: endpoints}, s.now)
}

// One lost packet changes nothing, two in a row do, and one answer makes it good again.
func TestOneLostProbeChangesNothing(t *testing.T) {
	s := newScheduling(t, 0)
	s.wantOne(endpoint)
	for n, step := range []struct {
		after    time.Duration
		answered bool
		state    state
	}{
		{0, false, unknown},
		{retryAfter, true, good},
		{goodEvery, true, good},
		{goodEvery, false, good},
		{retryAfter, true, good},
		{goodEvery, false, good},
		{retryAfter, false, bad},
		{badFirst, false, bad},
		{2 * badFirst, false, bad},
		{4 * badFirst, true, good},
		{goodEvery, false, good},
		{retryAfter, false, bad},
		{badFirst, true, good},
	} {
		i, waited, _ := s.next()
		if waited != step.after {
			t.Errorf("step %d: probed after %v, want %v", n, waited, step.after)
		}
		before := s.state(pair{"b", tcp4})
		changed := s.result(i, s.now, step.answered, time.Millisecond, nil)
		if got := s.state(pair{"b", tcp4}); got != step.state || changed != (got != before) {
			t.Errorf("step %d: state %d, changed %v; want %d", n, got, changed, step.state)
		}
	}
}

// What does not answer is probed less and less often, but for ever; with jitter.
func TestPausesGrowToALimit(t *testing.T) {
	for _, jitter := range []float64{0, 1} {
		s := newScheduling(t, jitter)
		s.wantOne(endpoint)
		var last time.Duration
		for range 100 {
			i, waited, _ := s.next()
			s.result(i, s.now, false, 0, nil)
			last = waited
		}
		if want := badLast + time.Duration(jitter*float64(badLast/4)); last != want {
			t.Errorf("jitter %v: the last pause is %v, want %v", jitter, last, want)
		}
	}
}

// A probe that could not be sent tells nothing of the other node.
func TestFailureToProbeIsNoAnswer(t *testing.T) {
	s := newScheduling(t, 0)
	s.wantOne(endpoint)
	i, _, _ := s.next()
	s.result(i, s.now, true, 0, nil)
	for range 5 {
		i, _, _ := s.next()
		if s.result(i, s.now, false, 0, errors.New("the map is full")) || s.state(i.pair) != good || i.lost != 0 {
			t.Errorf("state %d, lost %d", s.state(i.pair), i.lost)
		}
	}
}

// An endpoint that does not answer may be gone, or its route may be: the next one is tried.
func TestEndpointsInTurns(t *testing.T) {
	s := newScheduling(t, 0)
	var all []netip.AddrPort
	for n := range 3 {
		all = append(all, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 80))
	}
	s.wantOne(all...)
	var got []netip.AddrPort
	for n := range 4 {
		i, _, to := s.next()
		got = append(got, to)
		s.result(i, s.now, n == 3, 0, nil)
	}
	i, _, to := s.next()
	if want := append(slices.Clone(all), all[0]); !slices.Equal(got, want) || to != all[0] {
		t.Errorf("probed %v, then %s; want %v, and what has answered again", got, to, want)
	}
	s.wantOne(all[2]) // while the probe is on its way
	s.result(i, s.now, false, 0, nil)
	if _, _, to := s.next(); to != all[2] {
		t.Errorf("probed %s, want the one that is left", to)
	}
}

// A node whose last backend goes and whose next one comes is known meanwhile; and not
// for ever.
func TestPairsWithoutBackendsAreRememberedForAWhile(t *testing.T) {
	s := newScheduling(t, 0)
	s.wantOne(endpoint)
	i, _, _ := s.next()
	s.result(i, s.now, true, 0, nil)
	s.want(nil, s.now)
	if i, _, next := s.take(s.now.Add(time.Hour)); i != nil || !next.IsZero() {
		t.Error("what is not wanted is probed")
	}
	s.now = s.now.Add(time.Second)
	s.wantOne(endpoint)
	if i, _, _ := s.take(s.now); i != nil || s.state(pair{"b", tcp4}) != good {
		t.Errorf("state %d, due at once: %v", s.state(pair{"b", tcp4}), i != nil)
	}
	s.want(nil, s.now)
	s.now = s.now.Add(goodEvery + time.Second)
	s.wantOne(endpoint)
	if i, _, _ = s.take(s.now); i == nil || s.state(pair{"b", tcp4}) != good {
		t.Fatal("what was not probed for long is not due")
	}
	s.want(nil, s.now) // while the probe is on its way
	s.result(i, s.now, true, 0, nil)
	s.now = s.now.Add(keepUnused + time.Second)
	s.want(nil, s.now)
	if len(s.items) != 0 || len(s.queue) != 0 {
		t.Errorf("%d pairs, %d due, of nothing", len(s.items), len(s.queue))
	}
}

// A node that has changed is probed at once, also if a probe is on its way.
func TestChangedNodeIsProbedAtOnce(t *testing.T) {
	s := newScheduling(t, 0)
	s.wantOne(endpoint)
	i, _, _ := s.next()
	s.result(i, s.now, true, 0, nil)
	s.probeSoon("c", s.now)
	if i, _, _ := s.take(s.now); i != nil {
		t.Error("another node is probed")
	}
	s.probeSoon("b", s.now)
	if i, _, _ = s.take(s.now); i == nil {
		t.Fatal("not probed at once")
	}
	s.probeSoon("b", s.now)
	s.result(i, s.now, true, 0, nil)
	if i, _, _ = s.take(s.now); i == nil {
		t.Fatal("not probed again after what was on its way")
	}
	s.result(i, s.now, true, 0, nil)
	if i, _, _ = s.take(s.now); i != nil {
		t.Error("probed for ever")
	}
}

// The queue keeps its order whatever happens.
func TestScheduleTakesWhatIsDueFirst(t *testing.T) {
	s := newScheduling(t, 0.5)
	wanted := map[pair][]netip.AddrPort{}
	for n := range 200 {
		wanted[pair{fmt.Sprint("node", n), tcp4}] = []netip.AddrPort{endpoint}
	}
	s.want(wanted, s.now)
	var last time.Time
	for n := range 5000 {
		i, _, _ := s.next()
		if i.due.Before(last) {
			t.Fatalf("probe %d was due before the one before", n)
		}
		last = i.due
		s.result(i, s.now, (n*7919)%3 > 0, 0, nil)
		if i.due.Before(last) {
			t.Fatal("due in the past")
		}
		if n%100 == 0 {
			delete(wanted, pair{fmt.Sprint("node", n/100), tcp4})
			s.want(wanted, s.now)
		}
	}
	if len(s.queue) != len(wanted) {
		t.Errorf("%d pairs are queued, want %d", len(s.queue), len(wanted))
	}
}
