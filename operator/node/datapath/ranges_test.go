// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"net/netip"
	"testing"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// rangeState has n frontends of one address, each with ten more ports, and one that
// serves all others.
func rangeState(n int) lb.State {
	ip := netip.MustParseAddr("192.0.2.1")
	s := lb.State{Addresses: []lb.Address{{IP: ip, Exclusive: true}}}
	backend := []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: lb.WeightUnit}}
	add := func(port uint16, ports lb.Ports) {
		s.Frontends = append(s.Frontends, lb.Frontend{Addr: ip, Protocol: lb.UDP, Port: port, Backends: backend, Settings: lb.Settings{Ports: &ports}})
	}
	for i := range uint16(n) {
		add(1000+100*i, lb.Ports{Last: 1010 + 100*i})
	}
	add(53, lb.Ports{First: 1, Last: 65535})
	s.Normalize()
	return s
}

func TestMoreRangesThanAnAddressHasRoomFor(t *testing.T) {
	sizes := smallSizes
	sizes.Frontends, sizes.RingSlots = 64, 1<<17
	fake, c := NewFake(sizes), newClock()
	watch(t, fake, c)
	w := &writer{tables: fake, clock: c}
	ranges := func() (found []bpf.BlixtPortRange) {
		for _, r := range fake.affinity.ranges[lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.UDP}].Of {
			if r.Last > 0 {
				found = append(found, r)
			}
		}
		return found
	}
	if _, err := w.apply(rangeState(MaxPortRanges), 10); err != nil {
		t.Fatal(err)
	}
	if n := len(ranges()); n != MaxPortRanges {
		t.Errorf("%d ranges, want %d", n, MaxPortRanges)
	}
	for _, r := range ranges() {
		if r.Last == 65535 {
			t.Error("the range of all ports has taken the place of another")
		}
	}
	if w.left == nil || w.left.Table != "port_ranges" || w.left.Size != MaxPortRanges || w.left.Needed != MaxPortRanges+1 || w.left.Reduced != 1 {
		t.Errorf("left out: %+v, want one range of %d", w.left, MaxPortRanges+1)
	}
	if len(fake.frontends) != MaxPortRanges+1 {
		t.Errorf("%d frontends: the one without a range should serve its own port", len(fake.frontends))
	}
	for key, e := range fake.frontends {
		if keeps := e.Flags&FrontendKeepPort != 0; keeps == (key.Port == 53) {
			t.Errorf("%s keeps ports: %v", key, keeps)
		}
	}

	if _, err := w.apply(rangeState(MaxPortRanges-1), 10); err != nil {
		t.Fatal(err)
	}
	if got := ranges(); w.left != nil || len(got) != MaxPortRanges || got[MaxPortRanges-1].Last != 65535 {
		t.Errorf("with room for all: ranges %v, left out %v", got, w.left)
	}
	// A smaller one takes the place of the largest again.
	if _, err := w.apply(rangeState(MaxPortRanges), 10); err != nil {
		t.Fatal(err)
	}
	if got := ranges(); w.left == nil || got[MaxPortRanges-1].Last == 65535 {
		t.Errorf("without room for all: ranges %v, left out %v", got, w.left)
	}
}

// 16,384 ports of RTP cost one frontend.
func TestARangeCostsOneFrontend(t *testing.T) {
	fake, c := NewFake(smallSizes), newClock()
	w := &writer{tables: fake, clock: c}
	ip := netip.MustParseAddr("192.0.2.1")
	s := lb.State{Addresses: []lb.Address{{IP: ip}}, Frontends: []lb.Frontend{{
		Addr: ip, Protocol: lb.UDP, Port: 16384, Settings: lb.Settings{Ports: &lb.Ports{Last: 32767}},
		Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:16384"), Weight: lb.WeightUnit}},
	}}}
	written, err := w.apply(s, 10)
	if err != nil {
		t.Fatal(err)
	}
	if want := (Written{Addresses: 1, Frontends: 1, Backends: 1, Words: 1, Slots: 512, Ranges: 1}); written != want {
		t.Errorf("written %+v, want %+v", written, want)
	}
	target := NewTarget()
	if err := target.Replace(s); err != nil {
		t.Fatal(err)
	}
	hashes := map[int]bool{}
	for port := range target.SharedUDPPorts() {
		hashes[bpf.PortHash(port)] = true
	}
	if len(hashes) != 256 {
		t.Errorf("the ports have %d hashes, want all 256", len(hashes))
	}
}
