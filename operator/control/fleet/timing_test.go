// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// timed is a server with a clock that the test moves, and agents that the test plays.
type timed struct {
	*Server
	t         *testing.T
	now       time.Time
	metrics   *prometheus.Registry
	endpoints int
}

// newTimed leads in epoch 7, and has published a first version.
func newTimed(t *testing.T) *timed {
	s := &timed{t: t, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), metrics: prometheus.NewRegistry()}
	s.Server = NewServer(ServerOptions{Clock: func() time.Time { return s.now }, Registerer: s.metrics})
	s.SetNodes([]Node{testNode(1), testNode(2), testNode(3)})
	s.SetSettings("blue", Settings{})
	s.Lead(7)
	s.publish(Cause{Seen: s.now})
	return s
}

func (s *timed) pass(d time.Duration) { s.now = s.now.Add(d) }

// publish publishes another snapshot, and returns its version.
func (s *timed) publish(c Cause) lb.Version {
	s.endpoints++
	s.CausedBy(c)
	return s.Publish(web(1 + s.endpoints%5))
}

// changed is a cause that was seen now, and asked for a while ago.
func (s *timed) changed(ago ...time.Duration) Cause {
	c := Cause{Seen: s.now}
	for _, d := range ago {
		c.Changes = append(c.Changes, EndpointChange{At: s.now.Add(-d)})
	}
	return c
}

// tryJoin connects an agent whose maps hold a version.
func (s *timed) tryJoin(application, node, pod string, holds lb.Version) (*session, error) {
	c := &session{end: func(error) {}, wake: make(chan struct{}, 1)}
	v := wire.EncodeVersion(&holds)
	return c, s.Server.join(c, Identity{Node: node, Pod: pod}, &wire.Hello{Node: node, Application: application, Got: v, Status: &wire.Status{Holds: v}})
}

func (s *timed) join(node string, holds lb.Version) *session {
	s.t.Helper()
	c, err := s.tryJoin("blue", node, "blixt/"+node, holds)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// ack has an agent confirm a version, which it is sent if it was not yet.
func (s *timed) ack(c *session, v lb.Version) {
	s.report(c, &wire.Status{Holds: wire.EncodeVersion(&v)})
}

func (s *timed) report(c *session, st *wire.Status) {
	s.t.Helper()
	s.next(c)
	st.Got = st.Holds
	if _, err := s.receiveStatus(c, st); err != nil {
		s.t.Fatal(err)
	}
}

// measured checks how often something was observed, and the sum.
func (s *timed) measured(name string, count uint64, sum float64) {
	s.t.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.t.Fatal(err)
	}
	var h dto.Histogram
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == name {
				h.SampleCount = new(h.GetSampleCount() + m.Histogram.GetSampleCount())
				h.SampleSum = new(h.GetSampleSum() + m.Histogram.GetSampleSum())
			}
		}
	}
	if h.GetSampleCount() != count || math.Abs(h.GetSampleSum()-sum) > 1e-6 {
		s.t.Errorf("%s: %d observations of %v s in all, want %d of %v s", name, h.GetSampleCount(), h.GetSampleSum(), count, sum)
	}
}

const (
	programming = "blixt_network_programming_duration_seconds"
	propagation = "blixt_propagation_duration_seconds"
)

// Each node that has the version before counts once, at its acknowledgement, however
// often it says so. An EndpointSlice without annotation is measured from the event alone.
func TestTimingOfAcks(t *testing.T) {
	s := newTimed(t)
	first := lb.Version{Epoch: 7, Sequence: 1}
	n1, n2 := s.join("n1", first), s.join("n2", first)
	s.measured(propagation, 0, 0)

	v := s.publish(s.changed(3 * time.Second))
	s.pass(time.Second)
	s.ack(n1, v)
	s.ack(n1, v)
	s.measured(propagation, 1, 1)
	s.measured(programming, 1, 4)
	s.pass(time.Second)
	s.ack(n2, v)
	s.measured(propagation, 2, 3)
	s.measured(programming, 2, 9)

	v = s.publish(s.changed())
	s.pass(time.Second)
	s.ack(n1, v)
	s.measured(propagation, 3, 4)
	s.measured(programming, 2, 9)

	// What changes nothing makes no version, and leaves no cause to the next one.
	s.CausedBy(s.changed(time.Hour))
	if again := s.Publish(web(1 + s.endpoints%5)); again != v {
		t.Fatalf("version %v, want %v", again, v)
	}
	s.pass(time.Second)
	s.endpoints++
	v = s.Publish(web(1 + s.endpoints%5)) // a version whose cause is unknown
	s.pass(2 * time.Second)
	s.ack(n1, v)
	s.measured(propagation, 4, 6)
	s.measured(programming, 2, 9)
}

// Several changes in one version are one observation each, and a node that has missed
// versions confirms all of them at once.
func TestTimingOfSeveralChanges(t *testing.T) {
	s := newTimed(t)
	n1 := s.join("n1", lb.Version{Epoch: 7, Sequence: 1})
	s.publish(s.changed(time.Second, 2*time.Second))
	s.pass(time.Second)
	v := s.publish(Cause{Seen: s.now, Changes: []EndpointChange{{At: s.now.Add(-5 * time.Second), V6: true}}})
	s.pass(time.Second)
	s.ack(n1, v)
	s.measured(propagation, 2, 3)
	s.measured(programming, 3, 4+3+6)
	if n := testutil.CollectAndCount(s.timing.programming); n != 2 {
		t.Errorf("%d families of addresses, want 2", n)
	}

	// Those that it has not confirmed yet are none.
	v = s.publish(s.changed())
	w := s.publish(s.changed())
	s.pass(time.Second)
	s.ack(n1, v)
	s.measured(propagation, 3, 4)
	s.pass(time.Second)
	s.ack(n1, w)
	s.measured(propagation, 4, 6)

	// Thousands of changes in a version cost no more than some.
	c := Cause{Seen: s.now}
	for range 100 * maxChanges {
		c.Changes = append(c.Changes, EndpointChange{At: s.now})
	}
	v = s.publish(c)
	s.ack(n1, v)
	s.measured(programming, 3+maxChanges, 13)
}

// What a new leader finds is no change, though all agents confirm it. Nor is what was
// published before an agent came, or while its maps could not be written.
func TestTimingOfNewcomers(t *testing.T) {
	s := newTimed(t)
	n1 := s.join("n1", lb.Version{Epoch: 6, Sequence: 99}) // of the last leader
	s.pass(time.Minute)
	s.ack(n1, lb.Version{Epoch: 7, Sequence: 1})
	s.measured(propagation, 0, 0)

	s.publish(s.changed(time.Second))
	s.pass(time.Minute)
	n2 := s.join("n2", lb.Version{}) // its maps are empty
	v := s.publish(s.changed(time.Second))
	s.pass(time.Second)
	s.ack(n2, v)
	s.measured(propagation, 0, 0)
	s.ack(n1, v)
	s.measured(propagation, 2, 62)

	s.report(n1, &wire.Status{Holds: wire.EncodeVersion(&v), Error: "no space"})
	v = s.publish(s.changed(time.Second))
	s.pass(time.Hour)
	s.ack(n1, v)
	s.measured(propagation, 2, 62)

	// While a node is upgraded, the agent counts that serves new connections.
	s.SetSettings("azure", Settings{Drain: map[string]bool{"n1": true}})
	old, err := s.tryJoin("azure", "n1", "blixt/old", v)
	if err != nil {
		t.Fatal(err)
	}
	v = s.publish(s.changed(time.Second))
	s.ack(old, v)
	s.measured(propagation, 2, 62)
	s.pass(time.Second)
	s.ack(n1, v)
	s.measured(propagation, 3, 63)
	s.SetSettings("azure", Settings{}) // both do
	v = s.publish(s.changed(time.Second))
	s.ack(old, v)
	s.ack(n1, v)
	s.measured(propagation, 4, 63)
}

// A new leader measures nothing that another one, or it itself in another epoch, has
// published.
func TestTimingOfLeaders(t *testing.T) {
	s := newTimed(t)
	n1 := s.join("n1", lb.Version{Epoch: 7, Sequence: 1})
	v := s.publish(s.changed(time.Second))
	s.pass(time.Second)
	s.Lead(8)
	s.leave(n1)
	again := s.join("n1", v)
	s.publish(s.changed(time.Second))
	s.ack(again, lb.Version{Epoch: 8, Sequence: 1})
	s.measured(propagation, 0, 0)
	w := s.publish(s.changed(time.Second))
	s.ack(again, v) // late, and of the other epoch
	s.measured(propagation, 0, 0)
	s.pass(time.Second)
	s.ack(again, w)
	s.measured(propagation, 1, 1)
	s.measured(programming, 1, 2)
}

// An agent that connects again confirms what it had to confirm, once: whether its last
// stream has ended already or not, and if it lost the answer, too. One that stays away
// is dead, and one with another name is new.
func TestTimingOfReconnects(t *testing.T) {
	s := newTimed(t)
	first := lb.Version{Epoch: 7, Sequence: 1}
	n1 := s.join("n1", first)
	v := s.publish(s.changed(0))
	s.next(n1)
	s.pass(time.Second)
	s.leave(n1)
	s.publish(s.changed(0)) // nobody is connected
	n1 = s.join("n1", first)
	s.pass(time.Second)
	s.ack(n1, v)
	s.measured(propagation, 1, 2)
	s.pass(time.Second)
	w := s.publish(s.changed(0))
	s.next(n1)
	late := n1
	n1 = s.join("n1", w) // its stream is replaced, and it has applied w meanwhile
	s.measured(propagation, 2, 2)
	s.ack(late, w)
	s.ack(n1, w)
	s.measured(propagation, 2, 2)
	s.leave(late)

	v = s.publish(s.changed(0))
	s.leave(n1)
	s.pass(handoverTime + time.Second)
	n1 = s.join("n1", w)
	s.ack(n1, v)
	s.measured(propagation, 2, 2)

	v = s.publish(s.changed(0))
	s.leave(n1)
	other, err := s.tryJoin("blue", "n1", "blixt/another", w)
	if err != nil {
		t.Fatal(err)
	}
	s.ack(other, v)
	s.measured(propagation, 2, 2)
	if n := len(s.timing.left); n != 0 {
		t.Errorf("%d agents are remembered", n)
	}

	// A dead node is no observation, and neither is one that is not selected any more.
	s.publish(s.changed(0))
	s.leave(other)
	s.SetNodes([]Node{testNode(2), testNode(3)})
	s.SetNodes([]Node{testNode(1), testNode(2), testNode(3)})
	s.measured(propagation, 2, 2)
	if n := len(s.timing.left); n != 0 {
		t.Errorf("%d agents are remembered", n)
	}
}

// Nothing is negative, however wrong the clock is of whoever has written the annotation,
// and if the operator's own is set back.
func TestTimingOfWrongClocks(t *testing.T) {
	s := newTimed(t)
	n1 := s.join("n1", lb.Version{Epoch: 7, Sequence: 1})
	v := s.publish(s.changed(-time.Hour))
	s.pass(-time.Minute)
	s.ack(n1, v)
	s.measured(propagation, 1, 0)
	s.measured(programming, 1, 0)
	if age := s.oldestUnconfirmed(); age != 0 {
		t.Errorf("age %v", age)
	}
}

// An agent that is far behind costs no more than what is remembered.
func TestTimingOfLaggards(t *testing.T) {
	s := newTimed(t)
	first := lb.Version{Epoch: 7, Sequence: 1}
	n1, n2 := s.join("n1", first), s.join("n2", first)
	var v lb.Version
	for range 3 * historyLimit {
		v = s.publish(s.changed(0))
		s.report(n2, &wire.Status{Holds: wire.EncodeVersion(&first), HeartbeatLost: v.Sequence%2 == 0}) // every other version is not to be confirmed
	}
	if len(n2.expected) != maxSpans || len(n1.expected) != 1 || len(s.timing.versions) > historyLimit {
		t.Errorf("%d and %d gaps, %d versions", len(n1.expected), len(n2.expected), len(s.timing.versions))
	}
	s.ack(n1, v)
	s.measured(propagation, uint64(len(s.timing.versions)), 0)
	s.ack(n2, lb.Version{Epoch: 7, Sequence: 2}) // which it was sent first, and is too old to be measured
	s.ack(n2, v)
	s.measured(propagation, uint64(len(s.timing.versions))+maxSpans, 0)
}

// The oldest version that a connected agent has not confirmed. One that is not
// connected cannot confirm, and one that has just connected has had no time yet.
func TestOldestUnconfirmed(t *testing.T) {
	s := newTimed(t)
	is := func(want time.Duration) {
		t.Helper()
		expected := fmt.Sprintf("# HELP blixt_fleet_oldest_unconfirmed_seconds Age of the oldest version that a connected agent has not confirmed, counted from when it connected if that was later; 0: there is none.\n"+
			"# TYPE blixt_fleet_oldest_unconfirmed_seconds gauge\nblixt_fleet_oldest_unconfirmed_seconds %v\n", want.Seconds())
		if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(expected), "blixt_fleet_oldest_unconfirmed_seconds"); err != nil {
			t.Error(err)
		}
	}
	is(0)
	s.pass(time.Hour)
	n1 := s.join("n1", lb.Version{Epoch: 6, Sequence: 5})
	is(0)
	s.pass(time.Second)
	is(time.Second)
	s.ack(n1, lb.Version{Epoch: 7, Sequence: 1})
	is(0)
	n2 := s.join("n2", lb.Version{Epoch: 7, Sequence: 1})
	v := s.publish(s.changed(0))
	s.pass(2 * time.Second)
	w := s.publish(s.changed(0))
	s.pass(time.Second)
	is(3 * time.Second)
	s.ack(n1, w)
	is(3 * time.Second)
	s.ack(n2, v)
	is(time.Second)
	s.leave(n2)
	is(0)
	s.Lead(8)
	is(0)
}

// The true agents and sockets.
func TestTimingOfAgents(t *testing.T) {
	o := newOperator(t, "", nil)
	newNode(t, o, "n1", nil)
	newNode(t, o, "n2", nil)
	first := o.Publish(web(1))
	for _, n := range []string{"n1", "n2"} {
		o.serves(t, n, first, web(1))
	}
	o.CausedBy(Cause{Seen: time.Now(), Changes: []EndpointChange{{At: time.Now().Add(-time.Second)}}})
	second := o.Publish(web(2))
	for _, n := range []string{"n1", "n2"} {
		o.serves(t, n, second, web(2))
	}
	s := &timed{Server: o.Server, t: t, metrics: o.metrics}
	families, err := s.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != propagation && f.GetName() != programming {
			continue
		}
		h := f.Metric[0].Histogram // of IPv4, the first
		if h.GetSampleCount() != 2 || f.GetName() == programming && h.GetSampleSum() < 2 {
			t.Errorf("%s: %d observations of %v s", f.GetName(), h.GetSampleCount(), h.GetSampleSum())
		}
	}
}
