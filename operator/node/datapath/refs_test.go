// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// refsState returns a state of one frontend, of which each Service has one endpoint.
func refsState(services ...string) lb.State {
	f := lb.Frontend{Addr: netip.MustParseAddr("192.0.2.1"), Port: 80, Protocol: lb.TCP, Gateway: "ns/edge", Route: "TCPRoute/ns/web"}
	for i, service := range services {
		f.Backends = append(f.Backends, lb.Backend{
			Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 80), Weight: lb.WeightUnit, Service: service, ServicePort: 80,
		})
	}
	return lb.State{Frontends: []lb.Frontend{f}}
}

// idOf returns the id of a Service of refsState, by what the tables say; 0: it has none.
func idOf(t *testing.T, tables Tables, s lb.State, service string) uint32 {
	t.Helper()
	f := &s.Frontends[0]
	i := slices.IndexFunc(f.Backends, func(b lb.Backend) bool { return b.Service == service })
	entries, err := tables.Backends()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if inUse(e) && e.Addr == ToAddr(f.Backends[i].Addr.Addr()) {
			return e.Ref
		}
	}
	t.Fatalf("%s has no backend", service)
	return 0
}

func mustApply(t *testing.T, w *writer, s lb.State) {
	t.Helper()
	s.Normalize()
	if _, err := w.apply(s, 20); err != nil {
		t.Fatal(err)
	}
}

// An id whose endpoints are gone stays with its backendRef, until somebody else needs
// it and it has rested. Then the one that has been without for longest loses it.
func TestRefIsReused(t *testing.T) {
	sizes := smallSizes
	sizes.Refs = 4
	fake, c := NewFake(sizes), newClock()
	look := watch(t, fake, c)
	w := &writer{tables: fake, clock: c}
	mustApply(t, w, refsState("a", "b", "c"))
	id := idOf(t, fake, refsState("a"), "a")
	fake.RefsOf[id].Answered = 7

	mustApply(t, w, refsState("z", "b")) // at the address of a
	if got := idOf(t, fake, refsState("z"), "z"); got != 0 {
		t.Errorf("z has got id %d at once, want none", got)
	}
	c.now = c.now.Add(reuseGrace)
	mustApply(t, w, refsState("z", "b"))
	if got := idOf(t, fake, refsState("z"), "z"); got != id {
		t.Errorf("z has got id %d, want %d: a was the first to lose its endpoints", got, id)
	}
	if got := fake.RefsOf[id].Answered; got != 0 {
		t.Errorf("z begins with %d, want 0", got)
	}
	mustApply(t, w, refsState("z", "b", "c"))
	if got := idOf(t, fake, refsState("z", "b", "c"), "c"); got == 0 {
		t.Error("c has lost its id, though nobody has needed it")
	}
	look()
}

// A backendRef finds its counters again after a restart, whatever has changed while
// nobody wrote: not those of the Service whose endpoints it has now.
func TestRefAfterRestart(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	look := watch(t, fake, c)
	mustApply(t, &writer{tables: fake, clock: c}, refsState("a", "b"))
	a, b := idOf(t, fake, refsState("a", "b"), "a"), idOf(t, fake, refsState("a", "b"), "b")
	mustApply(t, &writer{tables: fake, clock: c}, refsState("b", "a"))
	if got := [2]uint32{idOf(t, fake, refsState("b", "a"), "a"), idOf(t, fake, refsState("b", "a"), "b")}; got != [2]uint32{a, b} {
		t.Errorf("a and b have ids %d, want %d %d", got, a, b)
	}
	look()
}

// An operator of an earlier version does not tell the port. When it does, the
// backendRef is another one: as if the route had been edited.
func TestRefWithoutPort(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	look := watch(t, fake, c)
	w := &writer{tables: fake, clock: c}
	before := refsState("a", "b")
	for i := range before.Frontends[0].Backends {
		before.Frontends[0].Backends[i].ServicePort = 0
	}
	mustApply(t, w, before)
	if a, b := idOf(t, fake, before, "a"), idOf(t, fake, before, "b"); a == 0 || b == 0 || a == b {
		t.Errorf("ids %d and %d, want two", a, b)
	}
	mustApply(t, w, refsState("a", "b"))
	if a, b := idOf(t, fake, refsState("a", "b"), "a"), idOf(t, fake, refsState("a", "b"), "b"); a == 0 || b == 0 || a == b {
		t.Errorf("ids %d and %d, want two", a, b)
	}
	look()
}

// An earlier program has no `ref_stats`, and its backends no ref.
func TestRefsOfEarlierProgram(t *testing.T) {
	sizes := smallSizes
	sizes.Refs = 0
	fake, c := NewFake(sizes), newClock()
	w := &writer{tables: fake, clock: c}
	mustApply(t, w, refsState("a", "b"))
	if got := idOf(t, fake, refsState("a"), "a"); got != 0 {
		t.Errorf("id %d, want 0", got)
	}
	if p, err := NewPlan(w.image, refsState("a", "b"), c.now); err != nil || !p.Empty() {
		t.Errorf("plan %v, error %v: not at rest", p.Ops, err)
	}
}

// States of random names follow each other, with faults, and with restarts. Whatever is
// counted is counted once, for the right one: see watcher.counts.
func TestRefsAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 1))
		fake, c := NewFake(smallSizes), newClock()
		fake.Rand = r
		watch(t, fake, c)
		w := &writer{tables: fake, clock: c}
		for range 40 {
			var services []string
			for range 1 + r.IntN(4) {
				services = append(services, fmt.Sprint("s", r.IntN(9)))
			}
			s := refsState(services...)
			if r.IntN(4) == 0 {
				w.image = nil
			}
			fake.Faults = 0.05
			s.Normalize()
			_, err := w.apply(s, 1000)
			fake.Faults = 0
			if err != nil {
				t.Fatal(err)
			}
			for i := range s.Frontends[0].Backends {
				b := &s.Frontends[0].Backends[i]
				if id := idOf(t, fake, s, b.Service); id != 0 && fake.RefsOf[id].Key != s.Frontends[0].RefOf(b).Hash() {
					t.Fatalf("seed %d: %s has id %d of somebody else", seed, b.Service, id)
				}
			}
			c.now = c.now.Add(time.Duration(r.IntN(4)) * reuseGrace / 2)
		}
	}
}

// What is remembered of ids does not grow with the number of changes.
func TestRefsForget(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	w := &writer{tables: fake, clock: c}
	for range 1000 {
		mustApply(t, w, refsState("a", "b"))
		mustApply(t, w, refsState("a"))
	}
	if n := len(w.image.refIDs.gone); n > 2*smallSizes.Refs {
		t.Errorf("%d ids are remembered to be gone", n)
	}
}

func TestRefCountersOfKernel(t *testing.T) {
	m := kernelMaps(t, smallSizes)
	if err := m.GiveRef(3, 7); err != nil {
		t.Fatal(err)
	}
	ref := func(id uint32) []uint64 {
		element, err := m.ref(id)
		if err != nil {
			t.Fatal(err)
		}
		return element
	}
	ref(3)[0], ref(3)[4], ref(3)[5] = 9, 100, 1
	ref(4)[0] = 11
	c, ok := m.RefCounters(3, 7)
	if !ok || c.Flows != 9 || c.Connect.Sum != 100 || c.Connect.Counts[0] != 1 {
		t.Errorf("got %+v, %v", c, ok)
	}
	for _, of := range [][2]uint64{{3, 8}, {2, 7}, {uint64(m.Sizes().Refs), 7}} {
		if c, ok := m.RefCounters(uint32(of[0]), of[1]); ok {
			t.Errorf("id %d, hash %d: got %+v of somebody else", of[0], of[1], c)
		}
	}
	if err := m.GiveRef(3, 8); err != nil {
		t.Fatal(err)
	}
	if c, ok := m.RefCounters(3, 8); !ok || c.Flows != 0 || c.Connect.Counts[0] != 0 {
		t.Errorf("a new one begins with %+v, %v", c, ok)
	}
	if ref(4)[0] != 11 {
		t.Error("its neighbour was cleared")
	}
	latencies, err := m.clientRTT.at(0, 4*latencyWords)
	if err != nil {
		t.Fatal(err)
	}
	latencies[2*latencyWords], latencies[3*latencyWords] = 5, 6
	if err := m.ResetFrontendCounters(2); err != nil {
		t.Fatal(err)
	}
	two, _ := m.ClientRTT(2)
	three, _ := m.ClientRTT(3)
	if two.Sum != 0 || three.Sum != 6 {
		t.Errorf("sums %d and %d, want 0 and 6", two.Sum, three.Sum)
	}
}
