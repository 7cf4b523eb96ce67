// SPDX-License-Identifier: Apache-2.0

package lb

import (
	"net/netip"
	"slices"
	"testing"
)

func TestSumIsOfTheSet(t *testing.T) {
	var a, b Sum
	elements := []string{"one", "two", "three", "three"}
	for _, e := range elements {
		a.Add(SumOf([]byte(e)))
	}
	for _, e := range slices.Backward(elements) {
		b.Add(SumOf([]byte(e)))
	}
	if a != b {
		t.Error("the order of elements matters")
	}
	for _, e := range elements {
		a.Remove(SumOf([]byte(e)))
	}
	if a != (Sum{}) {
		t.Errorf("without elements: %v", a)
	}
	if b.Remove(SumOf([]byte("four"))); b.Short() == (Sum{}).Short() || len(b.Bytes()) != 32 {
		t.Error("two sums look the same")
	}
	if (Sum{}).Short() == 0 {
		t.Error("the empty set looks as if nothing was ever written")
	}
}

// Whatever differs between two states, their hashes differ.
func TestHashSeesEveryField(t *testing.T) {
	state := func() State {
		ip := netip.MustParseAddr("192.0.2.1")
		return State{
			Addresses: []Address{{IP: ip}},
			Frontends: []Frontend{{Addr: ip, Protocol: TCP, Port: 80, Backends: []Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: 1}}}},
		}
	}
	seen := map[uint64]string{}
	for name, change := range map[string]func(*State){
		"nothing":     func(*State) {},
		"no address":  func(s *State) { s.Addresses = nil },
		"no frontend": func(s *State) { s.Frontends = nil },
		"exclusive":   func(s *State) { s.Addresses[0].Exclusive = true },
		"addr":        func(s *State) { s.Frontends[0].Addr = netip.MustParseAddr("192.0.2.2") },
		"protocol":    func(s *State) { s.Frontends[0].Protocol = UDP },
		"port":        func(s *State) { s.Frontends[0].Port++ },
		"gateway":     func(s *State) { s.Frontends[0].Gateway = "x" },
		"listener":    func(s *State) { s.Frontends[0].Listener = "x" },
		"route":       func(s *State) { s.Frontends[0].Route = "x" },
		"idle":        func(s *State) { s.Frontends[0].IdleTimeout++ },
		"reject":      func(s *State) { s.Frontends[0].Reject++ },
		"no backend":  func(s *State) { s.Frontends[0].Backends = nil },
		"backend":     func(s *State) { s.Frontends[0].Backends[0].Addr = netip.MustParseAddrPort("10.0.0.1:81") },
		"weight":      func(s *State) { s.Frontends[0].Backends[0].Weight++ },
		"local":       func(s *State) { s.Frontends[0].Backends[0].Local = true },
		"not serving": func(s *State) { s.Frontends[0].Backends[0].NotServing = true },
		"service":     func(s *State) { s.Frontends[0].Backends[0].Service = "x" },
		"twice":       func(s *State) { s.Frontends = append(s.Frontends, s.Frontends[0]) },
	} {
		s := state()
		change(&s)
		if other, ok := seen[s.Hash()]; ok {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		seen[s.Hash()] = name
	}
}
