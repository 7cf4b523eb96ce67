// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// A backend that keeps its id and generation keeps its flows. One that does
// not, loses them.
func TestWhoKeepsItsFlows(t *testing.T) {
	const before = `
address 192.0.2.1
tcp 192.0.2.1:80
  10.0.0.1:8080 1
  10.0.0.2:8080 1
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 1
`
	for name, c := range map[string]struct {
		after string
		gone  []string
	}{
		"nothing changes": {before, nil},
		"weights change": {`
address 192.0.2.1
tcp 192.0.2.1:80
  10.0.0.1:8080 7
  10.0.0.2:8080 0
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 2`, nil},
		"one does not serve": {`
address 192.0.2.1
tcp 192.0.2.1:80
  10.0.0.1:8080 1
  10.0.0.2:8080 0 not-serving
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 1`, nil},
		"one is gone": {`
address 192.0.2.1
tcp 192.0.2.1:80
  10.0.0.1:8080 1
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 1`, []string{"80 10.0.0.2:8080"}},
		"one moved to this node": {`
address 192.0.2.1
tcp 192.0.2.1:80
  10.0.0.1:8080 1
  10.0.0.2:8080 1 local
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 1`, []string{"80 10.0.0.2:8080"}},
		"a frontend is gone, its neighbour has the same backend": {`
address 192.0.2.1
tcp 192.0.2.1:81
  10.0.0.1:8080 1`, []string{"80 10.0.0.1:8080", "80 10.0.0.2:8080", "80 10.0.0.3:8080"}},
		"address and idle timeout change": {`
address 192.0.2.1 exclusive
tcp 192.0.2.1:80 idle 5s
  10.0.0.1:8080 1
  10.0.0.2:8080 1
  10.0.0.3:8080 1
tcp 192.0.2.1:81
  10.0.0.1:8080 1`, nil},
	} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, restart %v", name, restart), func(t *testing.T) {
				fake, c2 := NewFake(smallSizes), newClock()
				w := &writer{tables: fake, clock: c2}
				if _, err := w.apply(parseState(t, before), 5); err != nil {
					t.Fatal(err)
				}
				flows := identities(fake)
				if restart {
					w.image = nil
				}
				if _, err := w.apply(parseState(t, c.after), 5); err != nil {
					t.Fatal(err)
				}
				var gone []string
				now := identities(fake)
				for what, id := range flows {
					if now[what] != id {
						gone = append(gone, what)
					}
				}
				slices.Sort(gone)
				if diff := cmp.Diff(c.gone, gone); diff != "" {
					t.Errorf("backends whose flows end (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// identities returns id and generation of the backends in use, by frontend's
// port and backend.
func identities(f *Fake) map[string][2]uint32 {
	ports := map[uint32]uint16{}
	for key, e := range f.frontends {
		ports[e.Index] = key.Port
	}
	all := map[string][2]uint32{}
	for id, b := range f.backends {
		if inUse(b) {
			all[fmt.Sprintf("%d %s", ports[b.Frontend], fromBackend(b).Addr)] = [2]uint32{uint32(id), b.Generation}
		}
	}
	return all
}

// A backend that comes back is a new one: flows that the data plane remembers
// of it are not its own.
func TestReturningBackendIsNew(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	w := &writer{tables: fake, clock: c}
	with := parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1\n  10.0.0.2:80 1\n")
	without := parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1\n")
	seen := map[[2]uint32]bool{}
	for range 30 {
		for _, s := range []lb.State{with, without} {
			if _, err := w.apply(s, 5); err != nil {
				t.Fatal(err)
			}
			if id, ok := identities(fake)["80 10.0.0.2:80"]; ok {
				if seen[id] {
					t.Fatalf("id and generation %v twice", id)
				}
				seen[id] = true
				if n := fake.FlowsOf[id[0]]; n != 0 {
					t.Fatalf("starts with %d flows", n)
				}
				fake.FlowsOf[id[0]] = 7
			}
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d identities", len(seen))
	}
}

// An address is added last and removed first: an exclusive address rejects what
// it has no frontend for.
func TestAddressComesWithItsFrontends(t *testing.T) {
	s := parseState(t, "address 192.0.2.1 exclusive\ntcp 192.0.2.1:80\n  10.0.0.1:80 1\nudp 192.0.2.1:53\n  10.0.0.1:53 1\n")
	for _, c := range []struct {
		name     string
		from, to lb.State
	}{{"comes", lb.State{}, s}, {"goes", s, lb.State{}}} {
		fake, cl := NewFake(smallSizes), newClock()
		w := &writer{tables: fake, clock: cl}
		if _, err := w.apply(c.from, 5); err != nil {
			t.Fatal(err)
		}
		fake.After = func() {
			if len(fake.addresses) > 0 && len(fake.frontends) != 2 {
				t.Errorf("%s: address without all of its frontends", c.name)
			}
		}
		if _, err := w.apply(c.to, 5); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlanChangesNothing(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	w := &writer{tables: fake, clock: c}
	if _, err := w.apply(parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1 x5\ntcp 192.0.2.1:81\n  10.0.0.1:80 1\n"), 5); err != nil {
		t.Fatal(err)
	}
	next := parseState(t, "tcp 192.0.2.1:80\n  10.0.0.3:80 1 x8\ntcp 192.0.2.1:82\n  10.0.0.1:80 1\n")
	fake.Writes()
	var first string
	for range 3 {
		p, err := NewPlan(w.image, next, c.now)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(p.Ops); first == "" {
			first = text
		} else if text != first {
			t.Errorf("another plan from the same:\n%s\n%s", first, text)
		}
	}
	if n := fake.Writes(); n != 0 {
		t.Errorf("planning wrote %d times", n)
	}
}

func TestStatesThatMakeNoSense(t *testing.T) {
	contents, err := Read(NewFake(smallSizes), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	b := lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}
	f := lb.Frontend{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: 80}
	twice := f
	twice.Backends = []lb.Backend{b, b}
	for name, s := range map[string]lb.State{
		"frontend twice": {Frontends: []lb.Frontend{f, f}},
		"backend twice":  {Frontends: []lb.Frontend{twice}},
	} {
		if _, err := NewPlan(contents, s, time.Time{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// What no writer of Blixt leaves, but a broken one might: keys that share an
// index or a ring, rings outside the slab, duplicate backends. The next plan
// repairs it.
func TestSpoiltTablesAreMended(t *testing.T) {
	s := parseState(t, "address 192.0.2.1\ntcp 192.0.2.1:80\n  10.0.0.1:80 1\n  10.0.0.2:80 1\ntcp 192.0.2.1:81\n  10.0.0.1:80 1\n")
	clean := NewFake(smallSizes)
	if _, err := (&writer{tables: clean, clock: newClock()}).apply(s, 5); err != nil {
		t.Fatal(err)
	}
	want := dump(t, clean)
	for name, spoil := range map[string]func(f *Fake, a, b bpf.BlixtFrontend){
		"index shared":    func(f *Fake, a, b bpf.BlixtFrontend) { b.Index = a.Index; f.frontends[s.Frontends[1].Key()] = b },
		"index too large": func(f *Fake, _, b bpf.BlixtFrontend) { b.Index = 99; f.frontends[s.Frontends[1].Key()] = b },
		"ring shared":     func(f *Fake, a, b bpf.BlixtFrontend) { f.published[b.Index] = f.published[a.Index] },
		"ring outside":    func(f *Fake, _, b bpf.BlixtFrontend) { f.published[b.Index] = newRingRef(8190, 251, 5) },
		"slots of nobody": func(f *Fake, a, _ bpf.BlixtFrontend) { f.rings[f.published[a.Index].Offset()] = 12 },
		"key of nobody": func(f *Fake, _, _ bpf.BlixtFrontend) {
			f.frontends[lb.Key{Addr: s.Frontends[0].Addr}] = bpf.BlixtFrontend{Index: 99}
		},
		"orphan":            func(f *Fake, _, _ bpf.BlixtFrontend) { f.backends[20] = bpf.BlixtBackend{Frontend: 5, Generation: 7} },
		"reject in use":     func(f *Fake, _, _ bpf.BlixtFrontend) { f.backends[0].Generation = 1 },
		"address of nobody": func(f *Fake, _, _ bpf.BlixtFrontend) { f.addresses[netip.MustParseAddr("::2")] = bpf.BlixtAddress{} },
		"backend twice": func(f *Fake, a, _ bpf.BlixtFrontend) {
			twin := toBackend(a.Index, lb.Backend{Addr: s.Frontends[0].Backends[0].Addr}, 0, 0, 3)
			f.backends[20] = twin
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake, c := NewFake(smallSizes), newClock()
			if _, err := (&writer{tables: fake, clock: c}).apply(s, 5); err != nil {
				t.Fatal(err)
			}
			spoil(fake, fake.frontends[s.Frontends[0].Key()], fake.frontends[s.Frontends[1].Key()])
			if _, err := (&writer{tables: fake, clock: c}).apply(s, 9); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, dump(t, fake)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestFragmentedSlabIsNamed(t *testing.T) {
	fake, c := NewFake(Sizes{Addresses: 1, Frontends: 4, Backends: 64, RingSlots: 3100}), newClock()
	// Two small rings of another writer cut the slab into three.
	for i, offset := range []uint32{900, 2000} {
		key := lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Port: uint16(80 + i), Protocol: lb.TCP}
		fake.frontends[key] = bpf.BlixtFrontend{Index: uint32(i), IdleTicks: 7544}
		fake.backends[1+i] = toBackend(uint32(i), lb.Backend{Addr: netip.MustParseAddrPort("10.0.0.1:80")}, 0, 0, 1)
		for j := range 512 {
			fake.rings[offset+uint32(j)] = uint32(1 + i)
		}
		fake.published[i] = newRingRef(offset, 512, 1)
	}
	w := &writer{tables: fake, clock: c}
	if _, err := w.apply(parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1\ntcp 192.0.2.1:81\n  10.0.0.1:80 1\ntcp 192.0.2.1:82\n  10.0.0.1:80 1 x6\n"), 9); err != nil {
		t.Fatal(err)
	}
	third := w.image.Frontends[lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Port: 82, Protocol: lb.TCP}]
	if w.left == nil || w.left.Table != "rings" || w.left.Reduced != 1 || len(third.Slots) != 512 {
		t.Errorf("left out: %v, want a frontend with a ring of half the size", w.left)
	}
}

// As many frontends as the table holds fit the slab, each with a ring.
func TestAllFrontendsFitTheSlab(t *testing.T) {
	have, err := Read(NewFake(Sizes{
		Addresses: 1, Frontends: int(bpf.BlixtLimitMAX_FRONTENDS), Backends: int(bpf.BlixtLimitMAX_BACKENDS),
		RingSlots: int(bpf.BlixtLimitMAX_RING_SLOTS),
	}), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var want lb.State
	for i := range have.Sizes.Frontends {
		f := lb.Frontend{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: uint16(1 + i)}
		for j := range byte(3) {
			addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, j}), 80)
			f.Backends = append(f.Backends, lb.Backend{Addr: addr, Weight: lb.WeightUnit})
		}
		want.Frontends = append(want.Frontends, f)
	}
	if p, err := NewPlan(have, want, time.Time{}); err != nil || p.LeftOut != nil {
		t.Error(err, p.LeftOut)
	}
}

// Endpoints that are not ready keep their room: a ring keeps its size.
func TestReadinessKeepsTheSizeOfARing(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	w := &writer{tables: fake, clock: c}
	s := parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1 x10\n")
	for ready := 10; ready > 0; ready-- {
		if _, err := w.apply(s, 9); err != nil {
			t.Fatal(err)
		}
		if got := fake.published[0].Size(); got != 2048 {
			t.Fatalf("%d of 10 ready: %d slots", ready, got)
		}
		s = parseState(t, "tcp 192.0.2.1:80\n  10.0.0.1:80 1 x10\n")
		for i := range 11 - ready {
			s.Frontends[0].Backends[i].Weight = 0
		}
	}
}
