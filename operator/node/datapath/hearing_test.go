// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// hearingState has a frontend with PreserveClient and one without, each with a
// backend on node b, one on node c, one on this node, and one beyond the stack.
func hearingState() lb.State {
	s := lb.State{Addresses: []lb.Address{{IP: netip.MustParseAddr("192.0.2.1"), Exclusive: true}}}
	for port, preserve := range map[uint16]bool{80: true, 81: false} {
		f := lb.Frontend{Addr: s.Addresses[0].IP, Protocol: lb.TCP, Port: port, PreserveClient: preserve}
		for addr, b := range map[string]lb.Backend{
			"10.0.0.1:80": {Node: "b"}, "10.0.0.2:80": {Node: "c"}, "10.0.0.3:80": {Local: true}, "10.0.0.4:80": {Node: "b", ThroughStack: true},
		} {
			b.Addr, b.Weight = netip.MustParseAddrPort(addr), lb.WeightUnit
			f.Backends = append(f.Backends, b)
		}
		s.Frontends = append(s.Frontends, f)
	}
	s.Normalize()
	return s
}

// hearing returns which backends of a port hear, as the tables have it: their last
// byte, and W, A or both.
func hearing(t *testing.T, tables Tables, port uint16) string {
	t.Helper()
	all, err := Read(tables, newClock().now)
	if err != nil {
		t.Fatal(err)
	}
	served := all.Frontends[lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: port}]
	var text []string
	for _, b := range hearingState().Frontends[0].Backends {
		flags := all.Backend(served.IDs[keyOf(b)]).Flags
		one := b.Addr.Addr().String()[len("10.0.0."):]
		if h := HearingOf(flags); h.Within || h.Alone {
			text = append(text, one+map[bool]string{true: "W"}[h.Within]+map[bool]string{true: "A"}[h.Alone])
		}
	}
	return strings.Join(text, " ")
}

// A change of what reaches a node changes flags of its backends, and nothing else.
func TestHearingChangesFlagsOnly(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	now := map[string]Hearing{"b": {Within: true, Alone: true}}
	target := NewTarget()
	target.SetHears(func(p lb.Protocol, b lb.Backend) (Hearing, bool) {
		h, known := now[b.Node]
		return h, known && p == lb.TCP
	})
	if err := target.Replace(hearingState()); err != nil {
		t.Fatal(err)
	}
	contents, err := Read(fake, c.now)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(ops int) {
		t.Helper()
		p := target.Plan(contents, c.now)
		if ops >= 0 && len(p.Ops) != ops {
			t.Errorf("%d writes, want %d: %v", len(p.Ops), ops, p.Ops)
		}
		for _, op := range p.Ops {
			if _, is := op.(changeBackend); !is && ops >= 0 {
				t.Errorf("%s: want flags only", op)
			}
		}
		if _, err := Apply(fake, contents, p, c.Now); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string) {
		t.Helper()
		if got := hearing(t, fake, 80); got != want {
			t.Errorf("backends that hear: %q, want %q", got, want)
		}
		if got := hearing(t, fake, 81); got != "" {
			t.Errorf("backends of a frontend that does not preserve clients hear: %q", got)
		}
	}
	apply(-1)
	expect("1WA")
	apply(0)
	now["c"] = Hearing{Within: true}
	apply(0) // nobody has told yet
	target.HearsChanged()
	apply(1)
	expect("1WA 2W")
	now["b"] = Hearing{}
	target.HearsChanged()
	apply(1)
	expect("2W")

	// What is not known stays as it is, also when the tables are read again.
	delete(now, "c")
	target.HearsChanged()
	apply(0)
	expect("2W")
	if contents, err = Read(fake, c.now); err != nil {
		t.Fatal(err)
	}
	apply(-1)
	expect("2W")

	// A backend that moves to another node, and a frontend that wants clients no more.
	s := hearingState()
	for i := range s.Frontends[0].Backends {
		if s.Frontends[0].Backends[i].Node == "c" {
			s.Frontends[0].Backends[i].Node = "b"
		}
	}
	if err := target.Replace(s); err != nil {
		t.Fatal(err)
	}
	apply(1)
	expect("")
	now["b"] = Hearing{Alone: true}
	target.HearsChanged()
	apply(2)
	expect("1A 2A")
	s = hearingState()
	s.Frontends[0].PreserveClient = false
	if err := target.Replace(s); err != nil {
		t.Fatal(err)
	}
	apply(2)
	expect("")
}
