// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath/pins"
)

// manyPolicies returns a state of so many frontends, each with a policy of its own that denies so
// many prefixes.
func manyPolicies(policies, prefixes int) (s lb.State) {
	vip := netip.MustParseAddr("192.0.2.1")
	s.Addresses = []lb.Address{{IP: vip, Exclusive: true}}
	for i := range policies {
		name := fmt.Sprintf("shop/%04d", i)
		s.Frontends = append(s.Frontends, lb.Frontend{
			Addr: vip, Protocol: lb.TCP, Port: uint16(1000 + i), Backends: []lb.Backend{{Addr: netip.MustParseAddrPort("10.0.0.1:80"), Weight: lb.WeightUnit}},
			Settings: lb.Settings{Restrictions: []lb.Restriction{{Policy: name, Target: "TCPRoute/" + name, Sources: true}}},
		})
		s.Sources = append(s.Sources, denies(name, i, prefixes))
	}
	s.Normalize()
	return s
}

// denies returns a set that denies prefixes, another one for each n.
func denies(policy string, n, prefixes int) lb.SourceSet {
	set := lb.SourceSet{Policy: policy}
	for i := range prefixes {
		set.Deny = append(set.Deny, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(1 + n>>8), byte(n), byte(i >> 8), byte(i)}), 32))
	}
	slices.SortFunc(set.Deny, netip.Prefix.Compare)
	return set
}

// BenchmarkPolicies publishes 2,000 policies with 100 prefixes each; changes one of them; changes
// one of 10,000 prefixes; and reads the maps as after a restart.
func BenchmarkPolicies(b *testing.B) {
	open := func(b *testing.B) (*datapath.Maps, *Writer) {
		m, err := datapath.Open(pins.Make(b, 0))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { m.Close() })
		return m, New(m, Options{})
	}
	apply := func(b *testing.B, w *Writer, s lb.State) {
		if r, err := w.Apply(b.Context(), s); err != nil || r.LeftOut != nil {
			b.Fatal(r.LeftOut, err)
		}
	}
	// change has the writer write one set, until it is in force.
	change := func(b *testing.B, w *Writer, set lb.SourceSet) {
		if err := w.want(VersionedState{Changed: []lb.Frontend{}, Sources: []lb.SourceSet{set}}); err != nil {
			b.Fatal(err)
		}
		for {
			r, err := w.write()
			if err != nil {
				b.Fatal(err)
			}
			if r.Done {
				if r.LeftOut != nil {
					b.Fatal(r.LeftOut)
				}
				return
			}
		}
	}
	b.Run("all", func(b *testing.B) {
		s := manyPolicies(2000, 100)
		for b.Loop() {
			_, w := open(b)
			apply(b, w, s)
			var heap runtime.MemStats
			runtime.ReadMemStats(&heap)
			b.ReportMetric(float64(heap.HeapAlloc)/1e6, "MB-heap")
		}
	})
	b.Run("one", func(b *testing.B) {
		_, w := open(b)
		apply(b, w, manyPolicies(2000, 100))
		slowest := time.Duration(0)
		for i := 0; b.Loop(); i++ {
			start := time.Now()
			change(b, w, denies("shop/0007", 3000+i%500, 100))
			slowest = max(slowest, time.Since(start))
		}
		b.ReportMetric(float64(slowest.Microseconds())/1000, "ms-slowest")
	})
	b.Run("one-of-10000", func(b *testing.B) {
		_, w := open(b)
		apply(b, w, manyPolicies(1, 10000))
		for i := 0; b.Loop(); i++ {
			change(b, w, denies("shop/0000", 1+i%2, 10000))
			b.StopTimer()
			time.Sleep(1100 * time.Millisecond) // the one before is deleted by the next write
			b.StartTimer()
		}
	})
	b.Run("read", func(b *testing.B) {
		m, w := open(b)
		apply(b, w, manyPolicies(2000, 100))
		for b.Loop() {
			if _, err := datapath.Read(m, time.Now()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEnforce looks at a full table of flows of one frontend, whose policy has 10,000
// prefixes and limits how many flows each source may have.
func BenchmarkEnforce(b *testing.B) {
	dir := pins.Make(b, 0)
	m, err := datapath.Open(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	table, err := ebpf.LoadPinnedMap(filepath.Join(dir, bpf.BlixtMapFlows), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer table.Close()
	size := m.Sizes().Flows
	if err := fillFlows(table, size, false); err != nil {
		b.Fatal(err)
	}
	for name, limits := range map[string]*lb.Limits{
		"sources": nil, "limits": {PerSource: lb.Limit{Concurrent: 1000}, Total: lb.Limit{Concurrent: 1 << 30}, Bits4: 32, Bits6: 64},
	} {
		b.Run(name, func(b *testing.B) {
			w := New(m, Options{})
			s := manyPolicies(1, 10000)
			s.Frontends[0].Restrictions[0].Limits = limits
			if _, err := w.Apply(b.Context(), s); err != nil {
				b.Fatal(err)
			}
			if _, err := w.Enforce(); err != nil { // corrects
				b.Fatal(err)
			}
			for b.Loop() {
				if r, err := w.Enforce(); err != nil || r.Entries != 2*size || r.Denied > 0 || limits == nil && r.Corrected > 0 {
					b.Fatalf("%+v, %v", r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*size), "ns/flow")
		})
	}
}
