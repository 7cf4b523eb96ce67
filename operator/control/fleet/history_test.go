// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/agent"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

var equalStates = []cmp.Option{cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{})}

var v4any = netip.IPv4Unspecified()

// randomSnapshot has so few names that every kind of change is frequent.
func randomSnapshot(r *rand.Rand) Snapshot {
	s := Snapshot{Endpoints: gateway.Endpoints{}}
	for range 8 {
		s = mutate(r, s)
	}
	return s
}

func pick[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// mutate returns a snapshot that differs in a few things, and shares the other
// ones with s.
func mutate(r *rand.Rand, s Snapshot) Snapshot {
	s.Addresses, s.Frontends = slices.Clone(s.Addresses), slices.Clone(s.Frontends)
	s.Sources, s.Endpoints = slices.Clone(s.Sources), maps.Clone(s.Endpoints)
	for range 1 + r.IntN(3) {
		addr := pick(r, netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8:1::1"), v4any)
		service := types.NamespacedName{Namespace: "default", Name: pick(r, "a", "b", "c", "d", "unused")}
		switch r.IntN(6) {
		case 0:
			s.Addresses = slices.DeleteFunc(s.Addresses, func(a lb.Address) bool { return a.IP == addr })
			if r.IntN(3) > 0 {
				s.Addresses = append(s.Addresses, lb.Address{IP: addr, Exclusive: r.IntN(2) == 0 && !addr.IsUnspecified()})
			}
		case 1, 2:
			f := gateway.Frontend{
				Key:     lb.Key{Addr: addr, Protocol: pick(r, lb.TCP, lb.UDP), Port: uint16(80 + r.IntN(2))},
				Gateway: "default/gw", Listener: pick(r, "x", "y"), IdleTimeout: time.Duration(1+r.IntN(3)) * time.Minute,
				Reject: uint64(r.IntN(2)) * lb.WeightUnit, LocalOnly: r.IntN(4) == 0, PreserveClient: r.IntN(4) == 0,
			}
			for range r.IntN(3) {
				f.Refs = append(f.Refs, gateway.Ref{Weight: uint32(r.IntN(3)), PortName: pick(r, "", "p"),
					Service: types.NamespacedName{Namespace: "default", Name: pick(r, "a", "b", "c", "d")}})
			}
			f.Settings = randomSettings(r)
			s.Frontends = slices.DeleteFunc(s.Frontends, func(o gateway.Frontend) bool { return o.Key == f.Key })
			if r.IntN(4) > 0 {
				s.Frontends = append(s.Frontends, f)
			}
		case 3:
			delete(s.Endpoints, service)
		case 4:
			var e gateway.ServiceEndpoints
			for _, name := range []string{"", "p"} {
				for _, protocol := range []lb.Protocol{lb.TCP, lb.UDP} {
					e.Ports = append(e.Ports, gateway.EndpointPort{Name: name, Protocol: protocol, Endpoints: randomEndpoints(r)})
				}
			}
			s.Endpoints[service] = e
		case 5:
			set := randomSources(r)
			s.Sources = slices.DeleteFunc(s.Sources, func(o lb.SourceSet) bool { return o.Policy == set.Policy })
			if r.IntN(3) > 0 {
				s.Sources = append(s.Sources, set)
			}
		}
	}
	for _, f := range s.Frontends { // as a translation has it
		for _, r := range f.Restrictions {
			if !slices.ContainsFunc(s.Sources, func(o lb.SourceSet) bool { return o.Policy == r.Policy }) {
				s.Sources = append(s.Sources, lb.SourceSet{Policy: r.Policy, OnlyAllowed: true})
			}
		}
	}
	slices.SortFunc(s.Sources, func(a, b lb.SourceSet) int { return strings.Compare(a.Policy, b.Policy) })
	slices.SortFunc(s.Addresses, func(a, b lb.Address) int { return a.IP.Compare(b.IP) })
	slices.SortFunc(s.Frontends, func(a, b gateway.Frontend) int { return a.Key.Compare(b.Key) })
	return s
}

func randomSettings(r *rand.Rand) (s lb.Settings) {
	if r.IntN(2) == 0 {
		return s
	}
	for range r.IntN(3) {
		s.Restrictions = append(s.Restrictions, lb.Restriction{Policy: pick(r, "default/a", "default/b"), Target: "Gateway/default/gw", Sources: true, DryRun: r.IntN(3) == 0})
	}
	s.MaxAge, s.Refused = time.Duration(r.IntN(2))*time.Hour, pick(r, "", "", "", "no room")
	return s
}

func randomSources(r *rand.Rand) lb.SourceSet {
	set := lb.SourceSet{Policy: pick(r, "default/a", "default/b", "default/c"), OnlyAllowed: r.IntN(2) == 0}
	for _, text := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "::/0", "2001:db8::/32", "2001:db8::1/128"} {
		list := pick(r, nil, &set.Allow, &set.Deny)
		if list != nil {
			*list = append(*list, netip.MustParsePrefix(text))
		}
	}
	return set
}

func randomEndpoints(r *rand.Rand) (all []gateway.Endpoint) {
	for _, prefix := range []string{"10.0.0.", "2001:db8:2::"} {
		for _, last := range "123" {
			if r.IntN(2) == 0 {
				continue
			}
			e := gateway.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr(prefix+string(last)), 8080),
				State: gateway.Readiness(r.IntN(3)), Node: pick(r, "", "n1", "n2", "n3")}
			if r.IntN(3) == 0 {
				e.Zones = []string{pick(r, "z0", "z1")}
			}
			if r.IntN(6) == 0 {
				e.Nodes = []string{pick(r, "n1", "n2")}
			}
			all = append(all, e)
		}
	}
	return all
}

// failClosed returns what an agent gets of a snapshot whose program knows no policies.
func failClosed(s Snapshot) Snapshot {
	s.Sources, s.Frontends = nil, slices.Clone(s.Frontends)
	for i, f := range s.Frontends {
		s.Frontends[i] = wire.FailClosed(f)
	}
	return s
}

// An agent that gets some of the versions, from whichever it has, ends with
// what an agent has that got all of them, whether it knows policies or not.
func TestChangesLeadToTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 50 {
		policies := i%3 > 0
		h := newHistory(1)
		var m agent.Replica
		o := testNode(1 + r.IntN(3)).options()
		s := randomSnapshot(r)
		for range 60 {
			s = mutate(r, s)
			h.publish(indexSnapshot(s))
			if r.IntN(20) == 0 {
				m = agent.Replica{} // begun anew
			}
			if r.IntN(3) > 0 {
				continue
			}
			data, err := h.since(m.Version, policies).encoded()
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Apply(data, o); err != nil {
				t.Fatal(err)
			}
			got, want := m.Resolution.State, s
			got.Normalize()
			if !policies {
				want = failClosed(s)
			}
			if diff := cmp.Diff(resolved(want, o), got, equalStates...); diff != "" {
				t.Fatalf("state %d (-want +got):\n%s", h.version.Sequence, diff)
			}
		}
	}
}

// The change of one Service is sent as that Service alone, however many
// frontends name it. The history is limited.
func TestWhatAnUpdateSays(t *testing.T) {
	h := newHistory(1)
	s := web(1000)
	for port := range uint16(100) {
		f := s.Frontends[0]
		f.Port = 1000 + port
		s.Frontends = append(s.Frontends, f)
	}
	h.publish(indexSnapshot(s))
	other := s
	other.Endpoints = maps.Clone(s.Endpoints)
	for name := range other.Endpoints {
		other.Endpoints[name] = web(3).Endpoints[name]
	}
	h.publish(indexSnapshot(other))
	data, err := h.since(&lb.Version{Epoch: 1, Sequence: 1}, true).encoded()
	if err != nil {
		t.Fatal(err)
	}
	var u wire.Update
	if err := proto.Unmarshal(data, &u); err != nil {
		t.Fatal(err)
	}
	if len(u.Services) != 1 || len(u.Frontends) != 0 || u.Addresses != nil || len(data) > 200 {
		t.Errorf("%d bytes: %v", len(data), &u)
	}
	if h.publish(indexSnapshot(other)) {
		t.Error("the same is another version")
	}
	for i := range 2 * historyLimit {
		h.publish(indexSnapshot(web(i % 3)))
	}
	if len(h.changes) > historyLimit {
		t.Errorf("%d versions are remembered", len(h.changes))
	}
	for sequence, known := range map[uint64]bool{0: false, 1: false, h.version.Sequence: true, h.version.Sequence - 100: true, h.version.Sequence + 1: false} {
		if _, ok := h.missed(&lb.Version{Epoch: 1, Sequence: sequence}); ok != known {
			t.Errorf("sequence %d of %d is known: %v", sequence, h.version.Sequence, ok)
		}
	}
	if _, ok := h.missed(&lb.Version{Epoch: 2, Sequence: h.version.Sequence}); ok {
		t.Error("another epoch is known")
	}
}

// Updates from a version that the agent does not have, and invalid updates, are
// errors. The replica is empty afterwards.
func TestUpdateThatMakesNoSense(t *testing.T) {
	version := &wire.Version{Epoch: 1, Sequence: 2}
	key := &wire.Key{Addr: []byte{1, 2, 3, 4}, Protocol: 6, Port: 80}
	endpoint := func(e *wire.Endpoint) []*wire.Service {
		return []*wire.Service{{Name: &wire.Name{Name: "a"}, Ports: []*wire.Port{{Protocol: 6, Endpoints: []*wire.Endpoint{e}}}}}
	}
	for want, u := range map[string]*wire.Update{
		"no version":    {},
		"which is not":  {Version: version, Base: &wire.Version{Epoch: 1, Sequence: 7}},
		"address of 3":  {Version: version, Frontends: []*wire.Frontend{{Key: &wire.Key{Addr: []byte{1, 2, 3}, Protocol: 6}}}},
		"address of 0":  {Version: version, Frontends: []*wire.Frontend{{}}},
		"protocol 1":    {Version: version, GoneFrontends: []*wire.Key{{Addr: key.Addr, Protocol: 1}}},
		"port 65536":    {Version: version, GoneFrontends: []*wire.Key{{Addr: key.Addr, Protocol: 6, Port: 65536}}},
		"address of 17": {Version: version, Addresses: &wire.Addresses{List: []*wire.Address{{Ip: make([]byte, 17)}}}},
		"readiness 9":   {Version: version, Services: endpoint(&wire.Endpoint{Addr: key.Addr, State: 9})},
		"address of 5":  {Version: version, Services: endpoint(&wire.Endpoint{Addr: make([]byte, 5)})},
		"":              nil, // no message at all
	} {
		data := []byte{0xff}
		if u != nil {
			var err error
			if data, err = proto.Marshal(u); err != nil {
				t.Fatal(err)
			}
		}
		m := agent.Replica{}
		if err := m.Apply(encoded(t, web(3)), gateway.ResolveOptions{}); err != nil {
			t.Fatal(err)
		}
		err := m.Apply(data, gateway.ResolveOptions{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
		if m.Version != nil {
			t.Errorf("%s: something is remembered", want)
		}
	}
}

func encoded(t testing.TB, s Snapshot) []byte {
	t.Helper()
	h := newHistory(1)
	h.publish(indexSnapshot(s))
	data, err := h.since(nil, true).encoded()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Every published field arrives: a field that is added to gateway and not here
// fails this test.
func TestEveryFieldArrives(t *testing.T) {
	f := gateway.Frontend{
		Key:     lb.Key{Addr: netip.MustParseAddr("2001:db8::1"), Protocol: lb.UDP, Port: 53},
		Gateway: "g", Listener: "l", Route: "r", IdleTimeout: 3, Reject: 4, LocalOnly: true, PreserveClient: true, Records: true,
		Refs:     []gateway.Ref{{Service: types.NamespacedName{Namespace: "ns", Name: "n"}, PortName: "p", Port: 6, Weight: 5, Priority: 2}},
		Settings: everySetting(),
	}
	set := lb.SourceSet{
		Policy: "ns/p", OnlyAllowed: true,
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::1/128")},
		Deny:  []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("::/0")},
	}
	a := lb.Address{IP: netip.MustParseAddr("192.0.2.1"), Exclusive: true}
	p := gateway.EndpointPort{Name: "p", Protocol: lb.UDP, Endpoints: []gateway.Endpoint{
		{Addr: netip.MustParseAddrPort("10.0.0.1:99"), State: gateway.Ready, Node: "n", Zones: []string{"z", "y"}, Nodes: []string{"m"}},
		{Addr: netip.MustParseAddrPort("10.0.0.2:99"), State: gateway.NotServing},
	}}
	for _, v := range []any{f, f.Refs[0], a, p, p.Endpoints[0], set, f.Restrictions[0], *f.Restrictions[0].Limits, f.Restrictions[0].Limits.Total, *f.Affinity,
		*f.Health, *f.Health.Passive, *f.Health.Active, *f.Failover, *f.Ports, *f.Challenge, f.Health.Active.Statuses[0]} {
		value := reflect.ValueOf(v)
		for i := range value.NumField() {
			if value.Field(i).IsZero() {
				t.Errorf("%T.%s is not tested", v, value.Type().Field(i).Name)
			}
		}
	}
	want := Snapshot{
		Unresolved: gateway.Unresolved{Addresses: []lb.Address{a}, Frontends: []gateway.Frontend{f}, Sources: []lb.SourceSet{set}},
		Endpoints:  gateway.Endpoints{f.Refs[0].Service: {Ports: []gateway.EndpointPort{p}}},
	}
	var m agent.Replica
	if err := m.Apply(encoded(t, want), gateway.ResolveOptions{}); err != nil {
		t.Fatal(err)
	}
	got := Snapshot{m.Unresolved, m.Endpoints}
	if diff := cmp.Diff(want, got, equalStates...); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func everySetting() lb.Settings {
	limit := lb.Limit{NewPerSecond: 1, Burst: 2, Concurrent: 3}
	return lb.Settings{
		Restrictions: []lb.Restriction{{
			Policy: "ns/p", Target: "Gateway/ns/g", DryRun: true, Sources: true, ResetSources: true,
			Limits: &lb.Limits{PerSource: limit, Bits4: 24, Bits6: 56, Total: limit, Reset: true},
		}},
		Refused: "why", Affinity: &lb.Affinity{Group: "a", Bits4: 32, Bits6: 64, Timeout: time.Hour}, MaxAge: time.Minute,
		Health: &lb.Health{
			Policy: "ns/p", Panic: 50,
			Passive: &lb.PassiveHealth{Consecutive: 1, AnswerWithin: 2, FailurePercent: 3, MinFlows: 4, Window: 5, BaseEjection: 6, MaxEjection: 7, MaxEjected: 8},
			Active: &lb.ActiveHealth{
				Type: "HTTP", Port: 80, Interval: 2, Timeout: 1, Rise: 3, Fall: 4, Payload: []byte{0}, Expect: []byte{255}, Path: "/<&>", Host: "h",
				Statuses: []lb.StatusRange{{First: 200, Last: 399}},
			},
		},
		Failover: &lb.Failover{MinAvailable: 1, Recover: 50, Hold: time.Second}, Ports: &lb.Ports{Last: 20000, First: 10000, Shift: true},
		DropNoBackend: true, Challenge: &lb.Challenge{Always: true, NewPerSecond: 9},
	}
}

// One of 2,000 sets of 100 prefixes that changes costs that set: on the wire, and to make.
func TestChangedSourcesCostThemselves(t *testing.T) {
	s := web(3)
	for i := range 2000 {
		s.Sources = append(s.Sources, hundredSources(i, 0))
	}
	h := newHistory(1)
	h.publish(indexSnapshot(s))
	next := s
	next.Sources = slices.Clone(s.Sources)
	next.Sources[1000] = hundredSources(1000, 1)
	start := time.Now()
	h.publish(indexSnapshot(next))
	data, err := h.since(&lb.Version{Epoch: 1, Sequence: 1}, true).encoded()
	t.Logf("%d bytes in %s", len(data), time.Since(start))
	if err != nil || len(data) > 600 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// hundredSources are those of policy i, in one of two forms.
func hundredSources(i, form int) lb.SourceSet {
	set := lb.SourceSet{Policy: fmt.Sprintf("default/p%04d", i), OnlyAllowed: true}
	for n := range 100 {
		addr := netip.AddrFrom4([4]byte{10 + byte(form), byte(i >> 8), byte(i), byte(2 * n)})
		set.Allow = append(set.Allow, netip.PrefixFrom(addr, 31))
	}
	return set
}
