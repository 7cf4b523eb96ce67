// SPDX-License-Identifier: Apache-2.0

package hostnet

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// at returns an address of an interface.
func at(index int, prefix string) Address {
	p := netip.MustParsePrefix(prefix)
	return Address{IP: p.Addr(), Network: p.Masked(), Index: index}
}

func ips(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// scene is a Memory with a clock and a network that a test changes.
type scene struct {
	*testing.T
	Memory
	Snapshot
	now  time.Time
	ours []string
}

func newScene(t *testing.T) *scene {
	s := &scene{T: t, Memory: Memory{Grace: 10 * time.Second}, now: time.Now()}
	for index, name := range []string{"lo", "eth0", "eth1"} {
		s.Interfaces = append(s.Interfaces, Interface{Index: index + 1, Name: name, Up: true})
	}
	return s
}

func (s *scene) see() *View {
	now := s.Snapshot
	return s.See(&now, s.now, func(a Address) bool { return slices.Contains(s.ours, a.IP.String()) })
}

// check fails the test unless these are the addresses of the host, and these the
// default ones.
func (s *scene) check(own, primary []netip.Addr) *View {
	s.Helper()
	v := s.see()
	if !slices.Equal(v.HostAddresses(), own) || !slices.Equal(v.DefaultAddresses(), primary) {
		s.Errorf("the host has %v, by default %v; want %v and %v", v.HostAddresses(), v.DefaultAddresses(), own, primary)
	}
	return v
}

const eth0, eth1 = 2, 3

func TestWhatIsLostForAMomentCountsStill(t *testing.T) {
	s := newScene(t)
	a, b := at(eth0, "192.0.2.1/24"), at(eth1, "198.51.100.1/24")
	s.Addresses, s.Defaults = []Address{a, b}, []int{eth0}
	both, first := ips("192.0.2.1", "198.51.100.1"), ips("192.0.2.1")
	if v := s.check(both, first); !v.Until.IsZero() {
		t.Errorf("nothing is away, until %v", v.Until)
	}

	// The default route goes, then the address, then both come back.
	s.Defaults = nil
	began := s.now
	s.check(both, first)
	s.now = s.now.Add(3 * time.Second)
	s.Addresses = []Address{b}
	v := s.check(both, first)
	if want := began.Add(s.Grace); !v.Until.Equal(want) {
		t.Errorf("until %v, want %v", v.Until, want)
	}
	if len(v.Gone) != 1 || v.Gone[0].Address != a || !v.Gone[0].Since.Equal(s.now) {
		t.Errorf("gone are %+v", v.Gone)
	}
	s.now = s.now.Add(6 * time.Second)
	s.Addresses, s.Defaults = []Address{a, b}, []int{eth0}
	if v := s.check(both, first); !v.Until.IsZero() || v.Gone != nil {
		t.Errorf("all is back, gone are %+v until %v", v.Gone, v.Until)
	}

	// The next loss has the whole grace.
	s.Addresses, s.Defaults = []Address{b}, nil
	s.check(both, first)
	s.now = s.now.Add(s.Grace - 1)
	s.check(both, first)
	s.now = s.now.Add(1)
	if v := s.check(ips("198.51.100.1"), nil); !v.Until.IsZero() || v.Gone != nil {
		t.Errorf("the grace is over, gone are %+v until %v", v.Gone, v.Until)
	}
}

func TestWhatIsAddedCountsAtOnce(t *testing.T) {
	s := newScene(t)
	s.Addresses, s.Defaults = []Address{at(eth0, "192.0.2.1/24")}, []int{eth0}
	s.check(ips("192.0.2.1"), ips("192.0.2.1"))
	// The host moves to another interface and address.
	s.Addresses, s.Defaults = []Address{at(eth1, "198.51.100.1/24")}, []int{eth1}
	both := ips("192.0.2.1", "198.51.100.1")
	s.check(both, both)
	s.now = s.now.Add(s.Grace)
	s.check(ips("198.51.100.1"), ips("198.51.100.1"))
}

func TestAddressMovesToABridgeWithoutALoss(t *testing.T) {
	s := newScene(t)
	only := ips("192.0.2.1")
	s.Addresses, s.Defaults = []Address{at(eth0, "192.0.2.1/24")}, []int{eth0}
	s.check(only, only)
	s.Addresses, s.Defaults = nil, nil
	s.check(only, only)
	s.Addresses = []Address{at(eth1, "192.0.2.1/24")}
	s.check(only, only)
	s.Defaults = []int{eth1}
	v := s.check(only, only)
	if len(v.Networks()) != 2 {
		t.Errorf("networks are %+v", v.Networks())
	}
	s.now = s.now.Add(s.Grace)
	if v := s.check(only, only); len(v.Networks()) != 1 || v.Networks()[0].Index != eth1 {
		t.Errorf("networks are %+v, want that of the bridge alone", v.Networks())
	}
}

func TestAddressesOfOursAreNotTheHosts(t *testing.T) {
	s := newScene(t)
	s.ours = []string{"192.0.2.100"}
	s.Addresses = []Address{at(eth0, "192.0.2.1/24"), at(eth0, "192.0.2.100/32")}
	s.check(ips("192.0.2.1"), nil)
	// We remove ours, and it is not missed.
	s.ours, s.Addresses = nil, s.Addresses[:1]
	if v := s.check(ips("192.0.2.1"), nil); v.Gone != nil {
		t.Errorf("gone are %+v", v.Gone)
	}
	// The host's own becomes ours, after it was away.
	s.Addresses = nil
	s.check(ips("192.0.2.1"), nil)
	s.ours, s.Addresses = []string{"192.0.2.1"}, []Address{at(eth0, "192.0.2.1/24")}
	s.check(nil, nil)
}

func TestNetworkOfAnInterfaceThatIsGoneIsNone(t *testing.T) {
	s := newScene(t)
	s.Addresses = []Address{at(eth1, "192.0.2.1/24"), at(eth0, "203.0.113.1/32")}
	if v := s.see(); len(v.Networks()) != 1 || v.Networks()[0].Name != "eth1" {
		t.Errorf("networks are %+v", v.Networks())
	}
	s.Addresses, s.Interfaces = s.Addresses[1:], s.Interfaces[:2]
	if v := s.check(ips("192.0.2.1", "203.0.113.1"), nil); len(v.Networks()) != 0 {
		t.Errorf("networks are %+v", v.Networks())
	}
}

func TestOnlyWhatConcernsAddressesMatters(t *testing.T) {
	s := newScene(t)
	s.Addresses, s.Defaults = []Address{at(eth0, "192.0.2.1/24")}, []int{eth0}
	before := s.see()
	if before.SameAddresses(nil) {
		t.Error("it is the same as nothing")
	}
	// A container comes.
	s.Interfaces = append(slices.Clone(s.Interfaces), Interface{Index: 9, Name: "veth9", Up: true})
	s.Addresses = append(slices.Clone(s.Addresses), at(9, "fe80::1/64"))
	if !s.see().SameAddresses(before) {
		t.Error("a container's interface makes a difference")
	}
	for what, change := range map[string]func(s *scene){
		"an address":         func(s *scene) { s.Addresses = append(s.Addresses, at(eth1, "192.0.2.2/32")) },
		"one of ours":        func(s *scene) { s.ours = []string{"192.0.2.1"} },
		"a lost address":     func(s *scene) { s.Addresses = nil },
		"a default route":    func(s *scene) { s.Addresses, s.Defaults = append(s.Addresses, at(eth1, "192.0.2.2/32")), []int{eth1} },
		"its interface down": func(s *scene) { s.Interfaces = slices.Clone(s.Interfaces); s.Interfaces[1].Up = false },
	} {
		s := newScene(t)
		s.Addresses, s.Defaults = []Address{at(eth0, "192.0.2.1/24")}, []int{eth0}
		before := s.see()
		change(s)
		if s.see().SameAddresses(before) {
			t.Errorf("%s makes no difference", what)
		}
	}
}

// TestStepOfTheWallClockDoesNotMatter: times without a monotonic reading would tell a
// year.
func TestStepOfTheWallClockDoesNotMatter(t *testing.T) {
	m := Memory{Grace: time.Hour}
	s := &Snapshot{Addresses: []Address{at(eth0, "192.0.2.1/24")}}
	none := func(Address) bool { return false }
	m.See(s, time.Now(), none)
	v := m.See(&Snapshot{}, time.Now(), none)
	if v.Gone[0].Since == v.Gone[0].Since.Round(0) {
		t.Error("the time of the loss has no monotonic reading")
	}
}
