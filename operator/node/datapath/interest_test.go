// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
)

// interestMaps returns maps, and what their bytes for addresses are. The
// addresses are different, and their bytes are in one word.
func interestMaps(t *testing.T) (m *Maps, a, b bpf.BlixtAddr, read func(bpf.BlixtAddr) bpf.BlixtInterestFlag) {
	t.Helper()
	all := specMaps(t, func(*ebpf.CollectionSpec) {})
	m, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	a = ToAddr(netip.MustParseAddr("192.0.2.1"))
	for ip := netip.MustParseAddr("10.0.0.0"); b == (bpf.BlixtAddr{}); ip = ip.Next() {
		if x := ToAddr(ip); bpf.InterestHash(x)/4 == bpf.InterestHash(a)/4 && bpf.InterestHash(x) != bpf.InterestHash(a) {
			b = x
		}
	}
	return m, a, b, func(x bpf.BlixtAddr) bpf.BlixtInterestFlag {
		t.Helper()
		var bytes bpf.BlixtInterestBytes
		if err := all[bpf.BlixtMapInterest].Lookup(uint32(0), &bytes); err != nil {
			t.Fatal(err)
		}
		return bpf.BlixtInterestFlag(bytes.Of[bpf.InterestHash(x)])
	}
}

func TestInterestOfKernelMap(t *testing.T) {
	m, a, b, read := interestMaps(t)
	needed := make([]uint8, bpf.BlixtLimitINTEREST_SIZE)
	want := func(what string, ofA, ofB bpf.BlixtInterestFlag) {
		t.Helper()
		if gotA, gotB := read(a), read(b); gotA != ofA || gotB != ofB {
			t.Errorf("%s: bits %b and %b, want %b and %b", what, gotA, gotB, ofA, ofB)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(m.AddInterest(a, InterestVIP))
	must(m.AddInterest(a, InterestShared))
	want("added", InterestVIP|InterestShared|InterestFresh, 0)
	needed[bpf.InterestHash(b)] = uint8(InterestHost)
	must(m.SettleInterest(needed, false))
	want("nothing is cleared at first", InterestVIP|InterestShared, InterestHost)
	must(m.AddInterest(b, InterestVIP))
	needed[bpf.InterestHash(a)], needed[bpf.InterestHash(b)] = uint8(InterestVIP), 0
	must(m.SettleInterest(needed, true))
	want("what was added since then stays", InterestVIP, InterestVIP|InterestHost)
	must(m.SettleInterest(needed, true))
	want("until the next time", InterestVIP, InterestHost)
	clear(needed)
	must(m.SettleInterest(needed, true))
	want("but for the host's", 0, InterestHost)
}

// What is added to other bytes of a word while it is settled is not lost.
func TestInterestIsSettledByWords(t *testing.T) {
	m, a, b, read := interestMaps(t)
	needed := make([]uint8, bpf.BlixtLimitINTEREST_SIZE)
	var added sync.WaitGroup
	added.Go(func() {
		for range 200 {
			if err := m.AddInterest(b, InterestVIP); err != nil {
				t.Error(err)
			}
			if have := read(b); have&InterestVIP == 0 {
				t.Errorf("byte has bits %b after VIP was added", have)
			}
			if err := m.AddInterest(a, InterestHost); err != nil {
				t.Error(err)
			}
		}
	})
	for range 20 {
		if err := m.SettleInterest(needed, false); err != nil {
			t.Error(err)
		}
	}
	added.Wait()
	if have := read(a); have&InterestHost == 0 {
		t.Errorf("byte has bits %b after HOST was added", have)
	}
}

// A tombstone is an entry as well: packets to it must be looked at.
func TestTombstoneAnnouncesItself(t *testing.T) {
	m, vip, client, read := interestMaps(t)
	local, remote := bpf.BlixtFlowKey{Src: vip, Dst: client, Protocol: 6}, bpf.BlixtFlowKey{Src: client, Dst: vip, Sport: 1, Protocol: 6}
	if err := m.Bury(local, bpf.BlixtFlowFlagFLOW_STACK, 1); err != nil {
		t.Fatal(err)
	}
	if have := read(vip); have&bpf.BlixtInterestFlagINTEREST_FROM == 0 {
		t.Errorf("source of a local backend's packets has bits %b, want FROM", have)
	}
	if err := m.Bury(remote, bpf.BlixtFlowFlagFLOW_SNAT, 1); err != nil {
		t.Fatal(err)
	}
	if have := read(vip); have&InterestHost == 0 {
		t.Errorf("destination of another backend's packets has bits %b, want HOST", have)
	}
}

// The numbers of a slot count if it is one of the entry's own flow, and ahead of
// the entry.
func TestLatestNumbers(t *testing.T) {
	all := specMaps(t, func(*ebpf.CollectionSpec) {})
	m, err := New(all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	const seed = 0x1234567890abcdef
	if err := m.SetConfig(bpf.BlixtConfig{Seed: seed}); err != nil {
		t.Fatal(err)
	}
	key := bpf.BlixtFlowKey{Src: ToAddr(netip.MustParseAddr("192.0.2.1")), Dst: ToAddr(netip.MustParseAddr("10.0.0.1")), Sport: 1, Dport: 2, Protocol: 6}
	entry := FlowEntry{key, bpf.BlixtFlow{Generation: 3, Next: 1000, Ack: ^uint32(9), Flags: uint32(bpf.BlixtFlowFlagFLOW_CACHED)}}
	same := bpf.BlixtCachedFlow{Version: 2, Src: key.Src, Dst: key.Dst, Sport: 1, Dport: 2, Protocol: 6, Generation: 3, Numbers: 500<<32 | 201000}
	for name, c := range map[string]struct {
		change    func(*bpf.BlixtCachedFlow)
		next, ack uint32
	}{
		"ahead":                    {func(*bpf.BlixtCachedFlow) {}, 201000, 500},
		"being written":            {func(s *bpf.BlixtCachedFlow) { s.Version++ }, 1000, ^uint32(9)},
		"of another flow":          {func(s *bpf.BlixtCachedFlow) { s.Sport++ }, 1000, ^uint32(9)},
		"of another protocol":      {func(s *bpf.BlixtCachedFlow) { s.Protocol = 0 }, 1000, ^uint32(9)},
		"of an earlier backend":    {func(s *bpf.BlixtCachedFlow) { s.Generation-- }, 1000, ^uint32(9)},
		"of an earlier connection": {func(s *bpf.BlixtCachedFlow) { s.Numbers = 500<<32 | 1000 + 1<<20 + 1 }, 1000, 500},
		"behind":                   {func(s *bpf.BlixtCachedFlow) { s.Numbers = uint64(^uint32(10))<<32 | 999 }, 1000, ^uint32(9)},
	} {
		for way := range 2 {
			slot, set := same, bpf.BlixtCacheSet{}
			c.change(&slot)
			set.Ways[way] = slot
			if err := all[bpf.BlixtMapFlowCache].Put(bpf.CacheSet(key, seed), set); err != nil {
				t.Fatal(err)
			}
			next, ack, err := m.LatestNumbers(entry)
			if err != nil || next != c.next || ack != c.ack {
				t.Errorf("slot %s, way %d: numbers %d and %d (%v), want %d and %d", name, way, next, ack, err, c.next, c.ack)
			}
			leftOver := entry // an earlier connection's
			leftOver.Value.Flags = 0
			if next, ack, err := m.LatestNumbers(leftOver); err != nil || next != entry.Value.Next || ack != entry.Value.Ack {
				t.Errorf("slot %s, entry that has none: numbers %d and %d (%v)", name, next, ack, err)
			}
		}
	}
}

// A program of an earlier build has none of these maps, and needs none.
func TestMapsOfAnEarlierBuild(t *testing.T) {
	all := specMaps(t, func(*ebpf.CollectionSpec) {})
	for _, name := range []string{
		bpf.BlixtMapInterest, bpf.BlixtMapFlowCache,
		bpf.BlixtMapAnnouncing, bpf.BlixtMapAnnounceKeys, bpf.BlixtMapPeers, bpf.BlixtMapProbes, bpf.BlixtMapEgressLinks,
	} {
		delete(all, name)
	}
	m, err := Open(pins(t, all))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	w := &writer{tables: m, clock: newClock()}
	if _, err := w.apply(parseState(t, "address 192.0.2.1\ntcp 192.0.2.1:80\n  10.0.0.1:80 1\n"), 1); err != nil {
		t.Error(err)
	}
	if err := m.Bury(bpf.BlixtFlowKey{Protocol: 6}, 0, 1); err != nil {
		t.Error(err)
	}
	if err := m.SettleInterest(make([]uint8, bpf.BlixtLimitINTEREST_SIZE), true); err != nil {
		t.Error(err)
	}
	if next, ack, err := m.LatestNumbers(FlowEntry{Value: bpf.BlixtFlow{Next: 1, Ack: 2}}); err != nil || next != 1 || ack != 2 {
		t.Errorf("numbers %d and %d (%v), want those of the entry", next, ack, err)
	}
	_, noConfig := m.AnnounceConfig()
	_, noKeys := m.AnnounceKeys()
	peers, noPeers := m.Peers()
	if err := errors.Join(noConfig, noKeys, noPeers); err != nil || m.Announces() || len(peers) != 0 {
		t.Errorf("announces %v, %v", m.Announces(), err)
	}
	if err := m.AddPeer(netip.MustParseAddr("192.0.2.1"), 1); !errors.Is(err, ErrNoAnnouncing) {
		t.Errorf("a peer without a table: %v", err)
	}
}
