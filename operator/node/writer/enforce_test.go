// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// TestListSaysWhatTheLongestPrefixSays compares lists with what the kernel does, for random
// prefixes and the addresses at their edges.
func TestListSaysWhatTheLongestPrefixSays(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		set := lb.SourceSet{Policy: "a/b", OnlyAllowed: round%2 == 0}
		var probes []netip.Addr
		all := map[netip.Prefix]bool{}
		for range random.IntN(20) {
			addr := netip.AddrFrom4([4]byte{10, byte(random.IntN(4)), byte(random.IntN(3)), byte(random.IntN(256))})
			bits := random.IntN(33)
			if random.IntN(3) == 0 {
				addr = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(random.IntN(256))})
				bits = random.IntN(129)
			}
			p, err := addr.Prefix(bits)
			if err != nil || all[p] {
				continue
			}
			all[p] = true
			if random.IntN(2) == 0 {
				set.Allow = append(set.Allow, p)
			} else {
				set.Deny = append(set.Deny, p)
			}
			probes = append(probes, addr, p.Addr(), p.Addr().Prev())
			if last := lastAddr(p); last.IsValid() {
				probes = append(probes, last, last.Next())
			}
		}
		slices.SortFunc(set.Allow, netip.Prefix.Compare)
		slices.SortFunc(set.Deny, netip.Prefix.Compare)
		list := listOf(t, set)
		for _, addr := range append(probes, netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("::"), netip.MustParseAddr("ffff::")) {
			if !addr.IsValid() {
				continue
			}
			source := datapath.ToAddr(addr)
			if got, want := list.refuses(&source.Bytes, set.OnlyAllowed), refusedBy(set, addr); got != want {
				t.Fatalf("%+v: refuses %s: %v, want %v", set, addr, got, want)
			}
		}
	}
}

// listOf returns the list of a set as it comes out of the tables.
func listOf(t *testing.T, set lb.SourceSet) *sourceList {
	t.Helper()
	fake := datapath.NewFake(testSizes)
	w := newSweepingOver(fake)
	s := testState(1)
	s.Frontends[0].Restrictions = []lb.Restriction{{Policy: set.Policy, Target: "TCPRoute/a/b", Sources: true}}
	s.Sources = []lb.SourceSet{set}
	mustApply(t, w, s)
	in, err := w.policiesInForce()
	if err != nil {
		t.Fatal(err)
	}
	for _, policies := range in.policies {
		return in.lists[policies[0].Set]
	}
	t.Fatal("no policy is in force")
	return nil
}

func lastAddr(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(bytes); bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

// refusedBy is what docs say of a set.
func refusedBy(set lb.SourceSet, addr netip.Addr) bool {
	longest, refused := -1, set.OnlyAllowed
	for deny, list := range map[bool][]netip.Prefix{false: set.Allow, true: set.Deny} {
		for _, p := range list {
			if p.Contains(addr) && p.Bits() > longest {
				longest, refused = p.Bits(), deny
			}
		}
	}
	return refused
}

// restricted returns a state with one frontend that has these restrictions, and its writer. Its
// backend has id 1 and generation 1.
func restricted(t *testing.T, w *Writer, change func(*lb.State)) {
	t.Helper()
	s := testState(1)
	change(&s)
	s.Normalize()
	mustApply(t, w, s)
}

func denySet(prefixes ...string) (set lb.SourceSet) {
	set.Policy = "shop/web"
	for _, p := range prefixes {
		set.Deny = append(set.Deny, netip.MustParsePrefix(p))
	}
	return set
}

var fromWeb = lb.Restriction{Policy: "shop/web", Target: "TCPRoute/shop/web", Sources: true}

// TestDeniedSourceLosesItsFlows: those of others stay, also where a dry run would refuse them.
func TestDeniedSourceLosesItsFlows(t *testing.T) {
	for name, c := range map[string]struct {
		deny  string
		dry   bool
		reset bool
		udp   bool
		ends  bool
	}{
		"TCP, with resets":        {deny: "203.0.113.0/24", reset: true, ends: true},
		"TCP, by the program":     {deny: "203.0.113.0/24", ends: true},
		"UDP":                     {deny: "203.0.113.0/24", udp: true, ends: true},
		"of somebody else":        {deny: "203.0.113.2/32", reset: true},
		"would be, in a dry run":  {deny: "203.0.113.0/24", dry: true, reset: true},
		"of the other family":     {deny: "::/0", reset: true},
		"established, then again": {deny: "0.0.0.0/0", reset: true, ends: true},
	} {
		t.Run(name, func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			w := newSweepingOver(fake)
			var resets []Reset
			if c.reset {
				w.o.Reset = func(r Reset) { resets = append(resets, r) }
			}
			restricted(t, w, func(*lb.State) {})
			const established = bpf.BlixtFlowFlagFLOW_ESTABLISHED | bpf.BlixtFlowFlagFLOW_RECORDED
			forward, reply := addFlow(fake, flowSpec{backend: 1, generation: 1, forwardFlags: established, replyFlags: established, udp: c.udp})
			if !c.udp {
				fake.EstablishedNow[0], fake.EstablishedNow[1] = 1, 1
			}
			if r, err := w.Enforce(); err != nil || r.Denied > 0 {
				t.Fatalf("without policies: %+v, %v", r, err)
			}
			restricted(t, w, func(s *lb.State) {
				r := fromWeb
				r.DryRun = c.dry
				s.Frontends[0].Restrictions, s.Sources = []lb.Restriction{r}, []lb.SourceSet{denySet(c.deny)}
			})
			before, _ := fake.Config()
			r, err := w.Enforce()
			if err != nil || (r.Denied == 1) != c.ends {
				t.Fatalf("%+v, %v", r, err)
			}
			config, _ := fake.Config()
			if (config.CacheEpoch != before.CacheEpoch) != c.ends {
				t.Errorf("epoch of the cache %d, was %d", config.CacheEpoch, before.CacheEpoch)
			}
			out, kept := fake.FlowTable[forward]
			back := fake.FlowTable[reply]
			const gone = uint32(bpf.BlixtNoFlowOfNO_GENERATION)
			switch marked := !c.udp && !c.reset; {
			case !c.ends && (!kept || out.Generation != 1):
				t.Error("the flow has ended")
			case c.ends && marked && (out.Generation != gone || back.Generation != gone):
				t.Error("the program will not reset the flow")
			case c.ends && !marked && len(fake.FlowTable) > 0:
				t.Errorf("entries stay: %v", fake.FlowTable)
			}
			if c.ends && c.reset && len(resets) < 2 {
				t.Errorf("resets %v, want one for each end", resets)
			}
			if c.ends && !c.udp && c.reset && (fake.EstablishedNow[0] != 0 || fake.EstablishedNow[1] != 0) {
				t.Errorf("established flows: %v", fake.EstablishedNow[:2])
			}
			if why := fake.EndedRecords[forward]; (why == bpf.BlixtEndReasonRECORD_DENIED) != c.ends {
				t.Errorf("its record has ended for %v", why)
			}
			if r, err := w.Enforce(); err != nil || r.Denied > 0 {
				t.Errorf("once more: %+v, %v", r, err)
			}
		})
	}
}

// A flow may have begun before its list was published, and be established after flows were
// looked at: the next sweep ends it.
func TestSweepEndsWhatIsDenied(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	w := newSweepingOver(fake)
	restricted(t, w, func(s *lb.State) {
		s.Frontends[0].Restrictions, s.Sources = []lb.Restriction{fromWeb}, []lb.SourceSet{denySet("203.0.113.0/24")}
	})
	addFlow(fake, flowSpec{backend: 1, generation: 1, forwardFlags: bpf.BlixtFlowFlagFLOW_ESTABLISHED, replyFlags: bpf.BlixtFlowFlagFLOW_ESTABLISHED})
	fake.EstablishedNow[0], fake.EstablishedNow[1] = 1, 1
	for range 2 { // the entries stay until the program has reset the flow
		if _, err := w.Sweep(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range fake.FlowTable {
		if f.Generation != uint32(bpf.BlixtNoFlowOfNO_GENERATION) {
			t.Errorf("entry of generation %d", f.Generation)
		}
	}
	if fake.EstablishedNow[0] != 1 {
		t.Errorf("%d established flows, want one until it is removed", int32(fake.EstablishedNow[0]))
	}
}

// TestFlowsEndAtTheirAge: up to a tenth earlier, each at another time, and never before.
func TestFlowsEndAtTheirAge(t *testing.T) {
	age := datapath.Ticks(time.Hour)
	ended := 0
	for hash := range uint32(100) {
		fake := datapath.NewFake(testSizes)
		w := newSweepingOver(fake)
		w.o.Reset = func(Reset) {}
		restricted(t, w, func(s *lb.State) { s.Frontends[0].MaxAge = time.Hour })
		for i, born := range []uint32{testNow - age*89/100, testNow - age*95/100, testNow - age - 1, 0} {
			forward, _ := addFlow(fake, flowSpec{client: uint16(i), backend: 1, generation: 1})
			f := fake.FlowTable[forward]
			f.Born, f.Tag = born, hash*0x9e3779b1
			fake.FlowTable[forward] = f
		}
		r, err := w.Sweep(context.Background())
		if err != nil || r.TooOld < 1 || r.TooOld > 2 || len(fake.FlowTable) != 2*(4-r.TooOld) {
			t.Fatalf("%+v, %v, %d entries left", r, err, len(fake.FlowTable))
		}
		ended += r.TooOld - 1
	}
	if ended < 30 || ended > 70 {
		t.Errorf("at 95 %% of the age %d of 100 flows have ended", ended)
	}
}

// TestConcurrentFlowsAreCorrected: a policy comes after its flows, a source was forgotten, and one
// has fewer flows than the program thinks.
func TestConcurrentFlowsAreCorrected(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	w := newSweepingOver(fake)
	limits := &lb.Limits{PerSource: lb.Limit{Concurrent: 2}, Total: lb.Limit{Concurrent: 9}, Bits4: 24, Bits6: 64}
	restricted(t, w, func(s *lb.State) {
		s.Frontends[0].Restrictions = []lb.Restriction{{Policy: "shop/web", Target: "TCPRoute/shop/web", Limits: limits}}
	})
	const established, answered = bpf.BlixtFlowFlagFLOW_ESTABLISHED, bpf.BlixtFlowFlagFLOW_ANSWERED
	addFlow(fake, flowSpec{client: 1, backend: 1, generation: 1, forwardFlags: established, replyFlags: established})
	addFlow(fake, flowSpec{client: 2, backend: 1, generation: 1, forwardFlags: established, replyFlags: established})
	addFlow(fake, flowSpec{client: 3, backend: 1, generation: 1, udp: true, replyFlags: answered})
	addFlow(fake, flowSpec{client: 4, backend: 1, generation: 1, udp: true}) // nothing proves its source
	addFlow(fake, flowSpec{client: 5, peer: true})
	stale := datapath.LimitedSourceKey(1, datapath.ToAddr(netip.MustParseAddr("198.51.100.77")), 96+24, 64)
	other := stale
	other.Policy = 3 // of nobody
	fake.LimitedTable[stale] = bpf.BlixtLimitedSource{Full: 7, Concurrent: 5}
	fake.LimitedTable[other] = bpf.BlixtLimitedSource{Concurrent: 5}
	r, err := w.Enforce()
	if err != nil || r.Corrected != 3 || !r.LimitsFlows {
		t.Fatalf("%+v, %v", r, err)
	}
	source := datapath.LimitedSourceKey(1, datapath.ToAddr(netip.MustParseAddr("203.0.113.99")), 96+24, 64)
	if fake.ConcurrentNow[1] != 3 || fake.LimitedTable[source].Concurrent != 3 || fake.LimitedTable[stale] != (bpf.BlixtLimitedSource{Full: 7}) {
		t.Errorf("%d flows, sources %v", fake.ConcurrentNow[1], fake.LimitedTable)
	}
	if r, err := w.Enforce(); err != nil || r.Corrected != 0 {
		t.Errorf("once more: %+v, %v", r, err)
	}
}

// What the program counts while flows are looked at is no mistake.
func TestDrift(t *testing.T) {
	for _, c := range [][4]int32{{5, 5, 5, 0}, {5, 4, 6, 0}, {5, 6, 4, 0}, {5, 7, 9, -2}, {5, 1, 3, 2}, {0, -1, -1, 1}} {
		if got := drift(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("found %d, before %d, after %d: %d, want %d", c[0], c[1], c[2], got, c[3])
		}
	}
}

// TestEnforceFails: nothing is lost, and the next attempt ends the flow.
func TestEnforceFails(t *testing.T) {
	for n := 1; n < 12; n++ {
		t.Run(fmt.Sprint("after write ", n), func(t *testing.T) {
			fake := datapath.NewFake(testSizes)
			w := newSweepingOver(fake)
			w.o.Reset = func(Reset) {}
			restricted(t, w, func(s *lb.State) {
				s.Frontends[0].Restrictions, s.Sources = []lb.Restriction{fromWeb}, []lb.SourceSet{denySet("203.0.113.0/24")}
			})
			addFlow(fake, flowSpec{backend: 1, generation: 1, forwardFlags: bpf.BlixtFlowFlagFLOW_ESTABLISHED, replyFlags: bpf.BlixtFlowFlagFLOW_ESTABLISHED})
			fake.Writes()
			fake.CrashAfter = n
			_, _ = w.Enforce()
			fake.CrashAfter = 0
			if _, err := w.Enforce(); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Sweep(context.Background()); err != nil {
				t.Fatal(err)
			}
			for key := range fake.FlowTable {
				if key.Dport == datapath.ToPort(80) {
					t.Errorf("the forward entry stays: %v", key)
				}
			}
		})
	}
}

// TestStatusAndMetricsSayWhatPoliciesDo: what they have refused, and what is not in force.
func TestStatusAndMetricsSayWhatPoliciesDo(t *testing.T) {
	sizes := testSizes
	sizes.Sources = 3
	fake := datapath.NewFake(sizes)
	w := newSweepingOver(fake)
	restricted(t, w, func(s *lb.State) {
		dry := lb.Restriction{Policy: "shop/new", Target: "Gateway/shop/gw", DryRun: true, Sources: true}
		large := lb.Restriction{Policy: "shop/large", Target: "Gateway/shop/gw", Sources: true}
		limits := &lb.Limits{PerSource: lb.Limit{NewPerSecond: 5, Burst: 5}, Total: lb.Limit{Concurrent: 9}, Bits4: 32, Bits6: 64}
		web := fromWeb
		web.Limits = limits
		s.Frontends[0].Restrictions = []lb.Restriction{web, dry, large}
		other := denySet("10.1.0.0/16")
		other.Policy = "shop/new"
		full := denySet("10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16")
		full.Policy = "shop/large"
		s.Sources = []lb.SourceSet{denySet("203.0.113.0/24"), other, full}
	})
	id, _, ok := w.contents.PolicyID(&fromWeb)
	if !ok {
		t.Fatal("shop/web is not in force")
	}
	var counts datapath.PolicyCounts
	counts.Refused[bpf.BlixtRefusalREFUSED_SOURCE], counts.Refused[bpf.BlixtRefusalREFUSED_SOURCE_RATE], counts.Forgotten = 7, 2, 3
	fake.PolicyCountsOf[id] = counts
	fake.ConcurrentNow[id] = 4
	status, err := w.Status()
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := w.Metrics()
	if err != nil {
		t.Fatal(err)
	}
	for name, policies := range map[string][]PolicyStatus{"status": status.Policies, "metrics": metrics.Policies} {
		var got []string
		for _, p := range policies {
			got = append(got, fmt.Sprint(p.Policy, " ", p.Target, " ", p.DryRun, p.InForce, p.Frontends, p.Sources, p.Refused, p.Concurrent, p.Forgotten))
		}
		want := []string{
			"shop/large Gateway/shop/gw false false 1 0 map[source:0] 0 0",
			"shop/new Gateway/shop/gw true true 1 1 map[source:0] 0 0",
			"shop/web TCPRoute/shop/web false true 1 1 map[adopted:0 source:7 source_rate:2 total_concurrent:0] 4 3",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if use := status.Tables["sources"]; use.Used != 2 || use.Size != 3 || status.Frontends[0].Refuses == "" {
		t.Errorf("table sources %+v; the frontend refuses: %q", use, status.Frontends[0].Refuses)
	}
	if read, err := ReadStatus(fake, ""); err != nil || read.Tables["sources"].Used != 2 {
		t.Errorf("by another process: %+v, %v", read.Tables["sources"], err)
	}
}
