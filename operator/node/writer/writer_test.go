// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

var testSizes = datapath.Sizes{Addresses: 16, Frontends: 16, Backends: 64, RingSlots: 1 << 18, Flows: 64, Policies: 8, Sources: 64}

// testState is one frontend with backends 10.0.0.1, 10.0.0.2 and so on.
func testState(weights ...uint64) lb.State {
	vip := netip.MustParseAddr("192.0.2.1")
	f := lb.Frontend{Addr: vip, Protocol: lb.TCP, Port: 80, Gateway: "default/gw", Listener: "http", Route: "TCPRoute/default/web"}
	for i, w := range weights {
		f.Backends = append(f.Backends, lb.Backend{
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), 8080),
			Weight: w * lb.WeightUnit, Service: "default/web",
		})
	}
	return lb.State{Addresses: []lb.Address{{IP: vip, Exclusive: true}}, Frontends: []lb.Frontend{f}}
}

func mustApply(t *testing.T, a *Writer, s lb.State) Result {
	t.Helper()
	res, err := a.Apply(context.Background(), s)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestApplyVersions(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{HostAddresses: []netip.Addr{netip.MustParseAddr("198.51.100.7")}})
	one, two := testState(70, 30), testState(1, 1, 1)
	first := mustApply(t, a, one)
	if !first.Changed || first.Version != (lb.Version{Epoch: 0, Sequence: 1}) {
		t.Errorf("first: %+v", first)
	}
	if again := mustApply(t, a, one); again.Changed || again.Version != first.Version {
		t.Errorf("the same again: %+v", again)
	}
	if second := mustApply(t, a, two); second.Version.Sequence != 2 || second.Written.Backends != 1 || second.Written.Frontends != 0 {
		t.Errorf("one backend more: %+v", second)
	}
	// A second writer, as after a restart, adopts what the maps hold.
	a = New(fake, Options{HostAddresses: []netip.Addr{netip.MustParseAddr("198.51.100.7")}})
	if again := mustApply(t, a, two); again.Changed {
		t.Errorf("after a restart: %+v", again)
	}
	if _, err := a.apply(context.Background(), one, &lb.Version{Epoch: 5, Sequence: 9}); err != nil {
		t.Error(err)
	}
	_, err := a.apply(context.Background(), two, &lb.Version{Epoch: 5, Sequence: 8})
	if err == nil || err.Error() != "state 8 of epoch 5 is older than state 9, which is served" {
		t.Errorf("older sequence: %v", err)
	}
	if _, err := a.apply(context.Background(), two, &lb.Version{Epoch: 4, Sequence: 1}); err != nil {
		t.Errorf("another epoch: %v", err)
	}
	c, _ := fake.Config()
	want := bpf.BlixtConfig{Epoch: 4, Sequence: 1, StateHash: two.Hash(), SnatMin: lb.DefaultSNATPorts.First, SnatMax: lb.DefaultSNATPorts.Last,
		Node4: datapath.ToAddr(netip.MustParseAddr("198.51.100.7")), FlowsNearlyFull: 48, FlowsShare: 64,
		UnservedUdp: [4]uint64{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// The SNAT ports are written before the first frontend, and the hash of the
// state after all of it.
func TestConfigFirstAndLast(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	s := testState(1, 1)
	var sawFrontend bool
	fake.After = func() {
		c, _ := fake.Config()
		frontends, _ := fake.Frontends()
		addresses, _ := fake.Addresses()
		if len(frontends) > 0 {
			sawFrontend = true
			if c.SnatMax == 0 {
				t.Error("frontend before the ports of translation")
			}
		}
		if c.StateHash != 0 && len(addresses) == 0 {
			t.Error("hash before the state is complete")
		}
	}
	mustApply(t, New(fake, Options{}), s)
	if !sawFrontend {
		t.Error("no frontend seen")
	}
}

// What does not fit is left out, and the version and the hash say so: the hash is
// that of what the maps hold.
func TestWhatDoesNotFitIsLeftOut(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	mustApply(t, a, testState(1, 1))
	s := testState(1)
	big := s.Frontends[0]
	big.Port, big.Gateway = 79, "evil/gw"
	big.Backends = testState(make([]uint64, 64)...).Frontends[0].Backends
	s.Frontends = append(s.Frontends, big)
	res := mustApply(t, a, s)
	want := &lb.TableFull{Table: "backends", Size: 63, Needed: 65, Frontends: 1, Examples: []string{"192.0.2.1:79/tcp"}, Gateways: []string{"evil/gw"}}
	if diff := cmp.Diff(want, res.LeftOut); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	one := testState(1)
	if c, _ := fake.Config(); c.Sequence != 2 || c.StateHash != one.Hash() {
		t.Errorf("version %d, hash %x, want 2, and that of what fits", c.Sequence, c.StateHash)
	}
	if b, _ := fake.Backends(); b[2].Generation != 2 {
		t.Error("the backend that is gone is still there")
	}
	// The same again, also by another writer, writes nothing.
	for _, w := range []*Writer{a, New(fake, Options{})} {
		if res := mustApply(t, w, s); res.Changed || res.LeftOut == nil {
			t.Errorf("the same again: %+v", res)
		}
	}
}

// While ids rest, everything else goes on: newer states are written, and status
// and settings wait for nobody.
func TestNothingWaitsForIDsThatRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := datapath.NewFake(testSizes)
		var results []Result
		a := New(fake, Options{Applied: func(r Result, err error) {
			if err != nil {
				t.Error(err)
			}
			results = append(results, r)
		}, Ticks: func() uint32 { return 0 }})
		ctx, cancel := context.WithCancel(t.Context())
		states, ended := make(chan VersionedState), make(chan struct{})
		go func() {
			defer close(ended)
			a.Run(ctx, states)
		}()
		full := testState(slices.Repeat([]uint64{1}, 63)...)
		states <- VersionedState{State: full}
		synctest.Wait()
		// All backends are replaced: their ids have to rest.
		next := testState(slices.Repeat([]uint64{1}, 63)...)
		for i := range next.Frontends[0].Backends {
			next.Frontends[0].Backends[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), 8080)
		}
		start := time.Now()
		states <- VersionedState{State: next}
		synctest.Wait()
		if last := results[len(results)-1]; last.Done || last.Again.IsZero() {
			t.Fatalf("nothing waits: %+v", last)
		}
		if err := a.SetSNAT(lb.PortRange{First: 20000, Last: 21000}, nil); err != nil {
			t.Error(err)
		}
		if sum, err := a.Summary(); err != nil || sum.Tables["backends"].Used != 0 {
			t.Errorf("%+v (%v), want that backends that are gone are served no more", sum, err)
		}
		other := next
		other.Addresses = []lb.Address{{IP: netip.MustParseAddr("192.0.2.1")}}
		states <- VersionedState{State: other}
		synctest.Wait()
		if got, _ := fake.Addresses(); got[netip.MustParseAddr("192.0.2.1")].Flags != 0 {
			t.Error("a newer state waits")
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("all of this took %v", d)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		last := results[len(results)-1]
		if sum, err := a.Summary(); err != nil || sum.Tables["backends"].Used != 63 || !last.Done || last.LeftOut != nil {
			t.Errorf("%+v after %+v (%v), want all 63 backends", sum, last, err)
		}
		cancel()
		<-ended
	})
}

func TestDrain(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	a := New(fake, Options{})
	mustApply(t, a, testState(1))
	for _, on := range []bool{true, false} {
		if err := a.Drain(on); err != nil {
			t.Fatal(err)
		}
		mustApply(t, a, testState(1, 1)) // a state does not end it
		s, err := a.Status()
		if err != nil || s.Draining != on {
			t.Errorf("draining %v, want %v (%v)", s.Draining, on, err)
		}
	}
}

// The program samples drops for as long as there is somebody who reads the samples: a
// writer without one ends that.
func TestSampleDrops(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	for _, on := range []bool{true, false} {
		mustApply(t, New(fake, Options{SampleDrops: on}), testState(1))
		c, err := fake.Config()
		if got := c.Flags&datapath.ConfigSampleDrops != 0; err != nil || got != on {
			t.Errorf("flag is %v, want %v (%v)", got, on, err)
		}
	}
}

// failsAtFirst are tables of which the first frontend cannot be written once.
type failsAtFirst struct {
	*datapath.Fake
	failed atomic.Bool
}

func (f *failsAtFirst) PutFrontend(k lb.Key, e bpf.BlixtFrontend) error {
	if f.failed.CompareAndSwap(false, true) {
		return errors.New("fault")
	}
	return f.Fake.PutFrontend(k, e)
}

// Faults pass after some attempts, and a foreign writer is noticed.
func TestRunConverges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := datapath.NewFake(testSizes)
		// An attempt takes some twenty calls, and backoff leaves some 120 attempts.
		fake.Rand, fake.Faults = rand.New(rand.NewPCG(1, 2)), 0.05
		var tries, done atomic.Int32
		a := New(&failsAtFirst{Fake: fake}, Options{Applied: func(_ Result, err error) {
			if tries.Add(1); err == nil {
				done.Add(1)
			}
		}, Ticks: func() uint32 { return 0 }})
		ctx, cancel := context.WithCancel(t.Context())
		states := make(chan VersionedState)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			a.Run(ctx, states)
		}()
		states <- VersionedState{State: testState(1, 2)}
		time.Sleep(20 * time.Minute)
		synctest.Wait()
		if done.Load() == 0 || tries.Load() < 2 {
			t.Errorf("done %d times after %d tries", done.Load(), tries.Load())
		}
		cancel()
		<-ended
		fake.Faults = 0
		ctx, cancel = context.WithCancel(t.Context())
		ended = make(chan struct{})
		go func() {
			defer close(ended)
			a.Run(ctx, states)
		}()
		states <- VersionedState{State: testState(1, 2)}
		time.Sleep(time.Minute)
		synctest.Wait()
		look := func() (*datapath.Contents, lb.Key, *datapath.Served) {
			contents, err := datapath.Read(fake, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for key, served := range contents.Frontends {
				return contents, key, served
			}
			t.Fatal("no frontend")
			return nil, lb.Key{}, nil
		}
		_, key, served := look()
		word := func() datapath.RingRef { contents, _, served := look(); return contents.RingRef(served.Entry.Index) }
		for _, foreign := range []struct {
			what  string
			write func() error
		}{
			{"config", func() error { c, _ := fake.Config(); c.StateHash++; return fake.SetConfig(c) }},
			{"ring", func() error { return fake.WriteRing(word().Offset(), []uint32{0, 0}) }},
			{"word", func() error { return fake.Publish(served.Entry.Index, 0) }},
			{"address", func() error { return fake.DeleteAddress(key.Addr) }},
			{"frontend", func() error { return fake.DeleteFrontend(key) }},
			{"backend", func() error { return fake.PutBackend(served.Slots[0], bpf.BlixtBackend{}) }},
		} {
			if err := foreign.write(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			s := testState(1, 2)
			s.Normalize()
			contents, _, _ := look()
			plan, err := datapath.NewPlan(contents, s, time.Now())
			if err != nil || !plan.Empty() {
				t.Errorf("after another wrote a %s the maps lack %v (%v), want that the writer has repaired it", foreign.what, plan.Ops, err)
			}
			if c, _ := fake.Config(); c.StateHash != s.Hash() {
				t.Errorf("after another wrote a %s the config's hash is %d, want %d", foreign.what, c.StateHash, s.Hash())
			}
		}
		cancel()
		<-ended
	})
}

func TestStatus(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	file := filepath.Join(t.TempDir(), "state.json")
	a := New(fake, Options{StateFile: file})
	s := testState(3, 1, 0)
	s.Frontends[0].Reject = 4 * lb.WeightUnit
	mustApply(t, a, s)
	own, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	index := own.Frontends[0].Index
	fake.FlowsOf[own.Frontends[0].Backends[0].ID] = 30
	fake.FlowsOf[own.Frontends[0].Backends[1].ID] = 10
	fake.CountersOf[index] = bpf.BlixtFrontendCounters{NewFlows: 40, Rejected: 39, Packets: 1000}
	fake.CounterTable[bpf.BlixtCounterCOUNTER_FORWARDED] = 1000
	fake.LinkPacketsNow[2*7+1] = 12
	addFlow(fake, flowSpec{backend: own.Frontends[0].Backends[0].ID, generation: 1, frontend: index})
	// Another process, with nothing but the maps and the file.
	got, err := ReadStatus(fake, file)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Known || got.Counters["forwarded"] != 1000 || got.Tables["backends"] != (lb.Use{Used: 3, Size: 63}) || got.Tables["flows"].Used != 1 {
		t.Errorf("status %+v", got)
	}
	if diff := cmp.Diff([]HookCount{{Hook{7, "egress"}, 12}}, got.Links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	want := FrontendStatus{
		Frontend: "192.0.2.1:80/tcp", Gateway: "default/gw", Listener: "http", Route: "TCPRoute/default/web",
		Index: index, RingSize: 512, Generation: 1, IdleTimeout: "2h15m0s", RejectShare: 254.0 / 512,
		NewFlows: 40, ActiveFlows: 1, Rejected: 39, Packets: 1000,
		Backends: []BackendStatus{
			{Address: "10.0.0.1:8080", ID: 1, Service: "default/web", State: "serving", Weight: 3, RingShare: 194.0 / 512, FlowShare: 0.75, NewFlows: 30, ActiveFlows: 1},
			{Address: "10.0.0.2:8080", ID: 2, Service: "default/web", State: "serving", Weight: 1, RingShare: 64.0 / 512, FlowShare: 0.25, NewFlows: 10},
			{Address: "10.0.0.3:8080", ID: 3, Service: "default/web", State: "draining"},
		},
	}
	got.Frontends[0].IdleTimeout = want.IdleTimeout // rounded up to ticks
	if diff := cmp.Diff(want, got.Frontends[0]); diff != "" {
		t.Errorf("frontend (-want +got):\n%s", diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
	// Names of another state are not shown.
	mustApply(t, New(fake, Options{}), testState(1))
	if got, err := ReadStatus(fake, file); err != nil || got.Known || got.Frontends[0].Gateway != "" {
		t.Errorf("names of another state: %+v, %v", got, err)
	}
}

// TestStatusOfManyEndpoints measures the CPU time of this thread, which does not
// depend on what else the machine does. Work that grew with the square took 15 s.
func TestStatusOfManyEndpoints(t *testing.T) {
	const n = 65_000
	fake := datapath.NewFake(datapath.Sizes{Addresses: 16, Frontends: 16, Backends: 1 << 16, RingSlots: 1 << 23, Flows: 64})
	file := filepath.Join(t.TempDir(), "state.json")
	s := testState(1)
	f := &s.Frontends[0]
	for i := range n {
		f.Backends = append(f.Backends, lb.Backend{
			Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1 + byte(i>>16), byte(i >> 8), byte(i)}), 8080),
			Weight: lb.WeightUnit, Service: "default/many",
		})
	}
	mustApply(t, New(fake, Options{StateFile: file}), s)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &before); err != nil {
		t.Fatal(err)
	}
	got, err := ReadStatus(fake, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &after); err != nil {
		t.Fatal(err)
	}
	if b := got.Frontends[0].Backends; len(b) != n+1 || b[n].Service != "default/many" {
		t.Errorf("%d backends, the last %+v", len(b), b[len(b)-1])
	}
	took := time.Duration(after.Utime.Nano() - before.Utime.Nano())
	t.Logf("%d endpoints took %s", n, took)
	if took > 3*time.Second {
		t.Errorf("%d endpoints took %s of CPU, want less than a second", n, took)
	}
}
