// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// gateways returns a state of so many Gateways, each with listeners, all with backends of
// two Services. Names tells one from another with the same rings.
func gateways(n, listeners, backends int, names string) (s lb.State) {
	for g := range n {
		addr := netip.AddrFrom4([4]byte{192, 0, byte(g >> 8), byte(g)})
		s.Addresses = append(s.Addresses, lb.Address{IP: addr, Exclusive: true})
		for l := range listeners {
			f := lb.Frontend{
				Addr: addr, Protocol: lb.TCP, Port: uint16(80 + l), Gateway: fmt.Sprintf("prod/gw-%d", g), Listener: fmt.Sprintf("l-%d", l), Route: fmt.Sprintf("TCPRoute/prod/web-%d%s", g, names),
				Refs: []lb.ServicePort{{Service: "prod/a", Port: 80}, {Service: "prod/b", Port: 80}, {Service: "prod/empty", Port: 80}},
			}
			for b := range backends {
				service := []string{"prod/a", "prod/b"}[b%2]
				f.Backends = append(f.Backends, lb.Backend{
					Addr:   netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(g), byte(b >> 8), byte(b)}), uint16(8000+l)),
					Weight: lb.WeightUnit, Service: service, ServicePort: 80,
				})
			}
			s.Frontends = append(s.Frontends, f)
		}
	}
	s.Normalize()
	return s
}

// What a look has of chosen Gateways is what Status has of them, and its totals are those of
// all.
func TestLookSaysWhatStatusSays(t *testing.T) {
	fake := datapath.NewFake(testSizes)
	w := New(fake, Options{})
	s := gateways(4, 2, 5, "")
	s.Frontends[2].Backends[1].Weight = 0
	s.Frontends[2].Backends[2].Weight, s.Frontends[2].Backends[2].NotServing = 0, true
	s.Frontends[7].Backends = nil
	mustApply(t, w, s)
	for i := range uint32(8) {
		fake.CountersOf[i] = bpf.BlixtFrontendCounters{NewFlows: uint64(i) + 1, Rejected: 2, Packets: 3, Bytes: 4, ReplyPackets: 5, ReplyBytes: 6}
	}
	for id := range uint32(40) {
		fake.FlowsOf[id] = uint64(id)
	}
	fake.CounterTable[3] = 7
	fake.LinkPacketsNow[5] = 9
	fake.SetHostListens(map[lb.Key]uint32{s.Frontends[2].Key(): ticks(), s.Frontends[3].Key(): ticks() - datapath.Ticks(time.Hour)})
	addFlow(fake, flowSpec{backend: 3, generation: 1, frontend: 1})
	if _, err := w.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := w.Status()
	if err != nil {
		t.Fatal(err)
	}
	look, err := w.Look([]string{"prod/gw-1", "prod/gw-3", "prod/gw-1", "prod/none", ""}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := Totals{Frontends: 8, Backends: 35, NewFlows: 36, ActiveFlows: 1, Rejected: 16, Packets: 24, Bytes: 32, ReplyPackets: 40, ReplyBytes: 48, Refusing: 1, SomeRefusing: []string{"192.0.0.3:81/tcp of TCPRoute/prod/web-3"}}
	if diff := cmp.Diff(want, look.Totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
	var services []ServiceStatus
	for i := range look.Frontends {
		services = append(services, look.Frontends[i].Services...)
		look.Frontends[i].Services = nil
		if look.Frontends[i].Backends != nil && len(look.Frontends[i].Backends) == 0 {
			look.Frontends[i].Backends = nil
		}
	}
	for i := range all.Frontends {
		if len(all.Frontends[i].Backends) == 0 {
			all.Frontends[i].Backends = nil
		}
	}
	all.Frontends = slices.DeleteFunc(all.Frontends, func(f FrontendStatus) bool { return f.Gateway != "prod/gw-1" && f.Gateway != "prod/gw-3" })
	all.Addresses, all.Links = nil, nil // they are left out
	if diff := cmp.Diff(all, look.Status); diff != "" {
		t.Errorf("status (-of all +of the look):\n%s", diff)
	}
	first := look.Frontends[0]
	if !first.HostListens || first.Backends[1].State != lb.StateDraining || first.Backends[2].State != lb.StateNotServing {
		t.Errorf("the first frontend is %+v", first)
	}
	sum := map[string]ServiceStatus{}
	for _, one := range services[:3] {
		sum[one.Service] = one
	}
	a, b := sum["prod/a"], sum["prod/b"]
	if a.Ready != 2 || a.Draining != 1 || b.Ready != 1 || b.Draining != 1 || sum["prod/empty"].Port != 80 || a.RingShare+b.RingShare < 0.999 || a.RingShare < b.RingShare {
		t.Errorf("services %+v", services[:3])
	}
	flows := uint64(0)
	for _, backend := range first.Backends {
		flows += backend.NewFlows
	}
	if a.NewFlows+b.NewFlows != flows || flows == 0 {
		t.Errorf("Services have %d and %d flows, backends %d", a.NewFlows, b.NewFlows, flows)
	}
}

// What backendRefs have counted is in a look of their Gateway alone.
func TestLookHasBackendRefs(t *testing.T) {
	sizes := testSizes
	sizes.Refs = 16
	fake := datapath.NewFake(sizes)
	w := New(fake, Options{})
	s := gateways(2, 2, 4, "")
	s.Frontends[0].Refs = nil // an operator of an earlier version does not tell
	s.Frontends[1].Refs = nil
	mustApply(t, w, s)
	keys, err := fake.RefKeys()
	if err != nil {
		t.Fatal(err)
	}
	ref := s.Frontends[0].Ref(lb.ServicePort{Service: "prod/b", Port: 80})
	id := slices.Index(keys, ref.Hash())
	c := &fake.RefsOf[id]
	c.Flows, c.Reset, c.Unreachable, c.Unanswered, c.Connect.Sum = 10, 2, 3, 4, 3<<19
	c.Connect.Counts[5] = 1
	for _, gateway := range []string{"prod/gw-0", "prod/gw-1"} {
		look, err := w.Look([]string{gateway}, 0)
		if err != nil || len(look.Refs) != 2 || slices.ContainsFunc(look.Refs, func(r RefStatus) bool { return r.Gateway != gateway }) {
			t.Fatalf("%s has %+v, %v", gateway, look.Refs, err)
		}
		if gateway != "prod/gw-0" {
			continue
		}
		i := slices.IndexFunc(look.Refs, func(r RefStatus) bool { return r.Service == "prod/b" })
		connects := make([]uint64, 21)
		connects[5] = 1
		want := RefStatus{Gateway: gateway, Route: "TCPRoute/prod/web-0", Service: "prod/b", Port: 80, Protocol: "tcp", Flows: 10, Refused: 5, Unanswered: 4, Connects: connects, ConnectSum: 1.5}
		if diff := cmp.Diff(want, look.Refs[i]); diff != "" {
			t.Errorf("backendRef (-want +got):\n%s", diff)
		}
	}
}

// The size of a look does not depend on how much there is of its Gateways, and sums are of
// all.
func TestLookIsBounded(t *testing.T) {
	sizes := testSizes
	sizes.Addresses, sizes.Frontends, sizes.Backends, sizes.RingSlots = 512, 512, 65536, 1<<21
	w := New(datapath.NewFake(sizes), Options{})
	big := gateways(1, 64, 1000, "")
	big.Frontends[3].Backends[999].Weight = 0
	mustApply(t, w, big)
	look, err := w.Look([]string{"prod/gw-0"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(look)
	if err != nil || len(text) > 1<<20 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if len(look.Frontends) != 64 || look.Totals.Backends != 64_000 {
		t.Fatalf("%d frontends, totals %+v", len(look.Frontends), look.Totals)
	}
	for i, f := range look.Frontends {
		if n := len(f.Backends); n < 10 || n+f.MoreBackends != 1000 {
			t.Errorf("frontend %d has %d backends, and %d more", i, n, f.MoreBackends)
		}
		ready, drains := 0, 0
		for _, s := range f.Services {
			ready, drains = ready+s.Ready, drains+s.Draining
		}
		if i == 3 && (f.Backends[0].State != lb.StateDraining || drains != 1) || ready+drains != 1000 {
			t.Errorf("frontend %d: %d ready, %d draining, the first is %s", i, ready, drains, f.Backends[0].State)
		}
	}
	// Who asks many nodes wants fewer of each.
	if look, err = w.Look([]string{"prod/gw-0"}, 1); err != nil || len(look.Frontends) == 0 || len(look.Frontends[0].Backends) > 1 || len(look.Frontends[0].Services) == 0 {
		t.Errorf("a look with one backend: %+v, %v", look.Frontends, err)
	}
	// More names than anybody has are no reason to look for them all.
	names := []string{"prod/gw-0"}
	for i := range 100_000 {
		names = append(names, fmt.Sprintf("a/%d", i))
	}
	if look, err = w.Look(names, 0); err != nil || len(look.Frontends) > lookFrontends {
		t.Errorf("%d frontends, %v", len(look.Frontends), err)
	}
}

// Before a state is known, a look says so: nothing served would be an alarm.
func TestLookBeforeTheFirstState(t *testing.T) {
	w := New(datapath.NewFake(testSizes), Options{})
	if _, err := w.Look([]string{"prod/gw"}, 0); !errors.Is(err, errNotRead) {
		t.Errorf("got %v", err)
	}
}

// Readers look while somebody writes, with other names for the same rings, and frontends
// that come and go.
func TestLookWhileStatesChange(t *testing.T) {
	w := New(datapath.NewFake(testSizes), Options{Sleep: func(context.Context, time.Duration) error { return nil }})
	mustApply(t, w, gateways(3, 2, 4, ""))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				look, err := w.Look([]string{"prod/gw-0", "prod/gw-2"}, 0)
				if err != nil {
					t.Error(err)
					return
				}
				for _, f := range look.Frontends {
					if len(f.Backends) == 0 || f.Gateway == "prod/gw-1" {
						t.Errorf("a frontend is %+v", f)
						return
					}
				}
			}
		})
	}
	for i := 0; ctx.Err() == nil; i++ {
		mustApply(t, w, gateways(2+i%2, 2, 4, fmt.Sprint(i%3)))
	}
	readers.Wait()
}
