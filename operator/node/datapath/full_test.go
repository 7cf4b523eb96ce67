// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// frontendOf returns a frontend with the backends from to from+n-1.
func frontendOf(port uint16, from, n int) lb.Frontend {
	f := lb.Frontend{Addr: manyKey.Addr, Protocol: lb.TCP, Port: port, Gateway: fmt.Sprint("default/", port)}
	for i := from; i < from+n; i++ {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		f.Backends = append(f.Backends, lb.Backend{Addr: netip.AddrPortFrom(addr, 80), Weight: lb.WeightUnit})
	}
	return f
}

// A frontend that wants everything gets what others leave. Ids that others free, as
// their pods are replaced, are there for their next pods.
func TestNobodyTakesWhatOthersNeed(t *testing.T) {
	sizes := Sizes{Addresses: 1, Frontends: 16, Backends: 101, RingSlots: 1 << 20}
	fake, c := NewFake(sizes), newClock()
	w := &writer{tables: fake, clock: c}
	greedy, small := 1, 20
	state := func(pods int, first int) (s lb.State) {
		s.Frontends = append(s.Frontends, frontendOf(1, 1000, greedy))
		for i := range small {
			if i < 10 {
				s.Frontends = append(s.Frontends, frontendOf(uint16(2+i), first, pods))
			}
		}
		return s
	}
	served := func(port uint16) int {
		return len(w.image.Frontends[lb.Key{Addr: manyKey.Addr, Protocol: lb.TCP, Port: port}].IDs)
	}
	apply := func(s lb.State) {
		t.Helper()
		if _, err := w.apply(s, 20); err != nil {
			t.Fatal(err)
		}
	}
	apply(state(3, 0))
	greedy = 200
	apply(state(3, 0))
	if n := served(1); n != 100-100/8-30 || w.left == nil || w.left.Reduced != 1 || w.left.Frontends != 0 {
		t.Fatalf("the greedy one has %d backends, want 58: %v", n, w.left)
	}
	for round := range 5 {
		apply(state(2, 10*round)) // a pod is gone
		if n := served(1); n > 80 {
			t.Fatalf("the greedy one has %d backends", n)
		}
		apply(state(3, 10*(round+1))) // the next ones are there
		c.sleepUntil(c.now.Add(2 * reuseGrace))
		apply(state(3, 10*(round+1)))
		for port := range uint16(10) {
			if n := served(2 + port); n != 3 {
				t.Errorf("round %d: a small one has %d backends, want 3", round, n)
			}
		}
	}
	// A new one that wants less than its share comes only if it fits as a whole.
	s := state(3, 50)
	s.Frontends = append(s.Frontends, frontendOf(12, 0, 40))
	apply(s)
	if w.left.Frontends != 1 || w.left.Gateways[0] != "default/12" {
		t.Errorf("left out: %+v, want the last one", w.left)
	}
}

// Large rings make room for those that come later: nobody is left out for the sake
// of exact shares.
func TestLargeRingsMakeRoom(t *testing.T) {
	sizes := Sizes{Addresses: 1, Frontends: 64, Backends: 4096, RingSlots: 9 * ring.MaxSize}
	fake, c := NewFake(sizes), newClock()
	look := watch(t, fake, c)
	w := &writer{tables: fake, clock: c}
	var s lb.State
	for i := range uint16(8) { // 8 of the largest rings, and room for one
		s.Frontends = append(s.Frontends, frontendOf(1+i, 0, 230))
	}
	if _, err := w.apply(s, 20); err != nil || w.left != nil || w.image.Use().RingSlots != 8*ring.MaxSize {
		t.Fatalf("%d slots are used: %v, %v", w.image.Use().RingSlots, w.left, err)
	}
	for i := range uint16(40) {
		s.Frontends = append(s.Frontends, frontendOf(100+i, 0, 3))
		if _, err := w.apply(s, 100); err != nil || w.left != nil {
			t.Fatalf("frontend %d: %v, %v", i, w.left, err)
		}
		look()
	}
	if n := len(w.image.Frontends); n != 48 {
		t.Errorf("%d frontends are served, want 48", n)
	}
	// All tables as full as they can be.
	s = lb.State{}
	sizes = Sizes{Addresses: 1, Frontends: int(bpf.BlixtLimitMAX_FRONTENDS), Backends: 16 * int(bpf.BlixtLimitMAX_FRONTENDS), RingSlots: int(bpf.BlixtLimitMAX_RING_SLOTS)}
	for i := range sizes.Frontends {
		s.Frontends = append(s.Frontends, frontendOf(uint16(1+i), 0, 12+i%4))
	}
	target := NewTarget()
	if err := target.Replace(s); err != nil {
		t.Fatal(err)
	}
	if limit := target.rings.limit(sizes.RingSlots); limit != 512 {
		t.Errorf("rings may have %d slots, want 512", limit)
	}
}
