// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// sharedState has TCP frontends at ports of an address that the host shares.
func sharedState(ports ...uint16) (s lb.State) {
	ip := netip.MustParseAddr("192.0.2.1")
	s.Addresses = []lb.Address{{IP: ip}}
	for _, p := range ports {
		s.Frontends = append(s.Frontends, lb.Frontend{Addr: ip, Protocol: lb.TCP, Port: p})
	}
	return s
}

// Frontends at which the host listens are in the summary and in the status while
// they are served, and for a while after the last connection.
func TestHostListens(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	now := uint32(7) // ticks wrap
	a := New(fake, Options{Ticks: func() uint32 { return now }})
	s := sharedState(80, 443, 22, 9100)
	mustApply(t, a, s)
	lasts := datapath.Ticks(lb.HostListensFor)
	key := func(port uint16) lb.Key { return lb.Key{Addr: s.Addresses[0].IP, Protocol: lb.TCP, Port: port} }
	fake.SetHostListens(map[lb.Key]uint32{
		key(443):  now - lasts,
		key(22):   now + 1, // another CPU's clock
		key(9100): now - lasts - 1,
		key(8472): now, // not served any more
		{Addr: key(80).Addr, Protocol: lb.UDP, Port: 80}: now,
	})
	want := func(want ...lb.Key) {
		t.Helper()
		sum, err := a.Summary()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, sum.HostListens, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the host listens at (-want +got):\n%s", diff)
		}
		status, err := a.Status()
		if err != nil {
			t.Fatal(err)
		}
		listens := 0
		for _, f := range status.Frontends {
			if f.HostListens {
				listens++
			}
		}
		if listens != len(want) {
			t.Errorf("status says that the host listens at %d frontends, want %d", listens, len(want))
		}
	}
	want(key(22), key(443))
	now++
	want(key(22))
	now += lasts + 1
	want()
}

// However many there are, a report stays small.
func TestHostListensIsBounded(t *testing.T) {
	contents := &datapath.Contents{Frontends: map[lb.Key]*datapath.Served{}}
	fake, seen := datapath.NewFake(testSizes), map[lb.Key]uint32{}
	for p := range uint16(1000) {
		key := lb.Key{Addr: netip.MustParseAddr("192.0.2.1"), Protocol: lb.TCP, Port: p}
		contents.Frontends[key] = &datapath.Served{}
		seen[key] = 5
	}
	fake.SetHostListens(seen)
	keys, err := hostListens(fake, contents, 6)
	if err != nil || len(keys) != lb.MaxHostListens || keys[0].Port != 0 || keys[len(keys)-1].Port != lb.MaxHostListens-1 {
		t.Errorf("%d keys (%v)", len(keys), err)
	}
}

// The config tells which ports have no UDP frontend on an address that the host
// shares, by their hashes.
func TestPortsWithoutUDPFrontend(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	served := func() (hashes []int) {
		c, err := fake.Config()
		if err != nil {
			t.Fatal(err)
		}
		for hash := range 256 {
			if c.UnservedUdp[hash/64]>>(hash%64)&1 == 0 {
				hashes = append(hashes, hash)
			}
		}
		return hashes
	}
	s := sharedState(53, 80)
	mustApply(t, a, s)
	if got := served(); got != nil {
		t.Errorf("served %v, want none", got)
	}
	s.Frontends[0].Protocol = lb.UDP
	vip := netip.MustParseAddr("203.0.113.1")
	s.Addresses = append(s.Addresses, lb.Address{IP: vip, Exclusive: true})
	s.Frontends = append(s.Frontends, lb.Frontend{Addr: vip, Protocol: lb.UDP, Port: 5060})
	mustApply(t, a, s)
	if diff := cmp.Diff([]int{bpf.PortHash(53)}, served()); diff != "" {
		t.Errorf("served (-want +got):\n%s", diff)
	}
	if same, err := a.unchanged(); !same || err != nil {
		t.Errorf("the writer does not know its own config (%v)", err)
	}
	s.Frontends = s.Frontends[1:]
	mustApply(t, a, s)
	if got := served(); got != nil {
		t.Errorf("served %v, want none", got)
	}
}
