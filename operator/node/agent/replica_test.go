// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// published is what an operator has published, for tests.
type published struct {
	version   lb.Version
	addresses []lb.Address
	frontends map[lb.Key]gateway.Frontend
	services  map[types.NamespacedName][]gateway.EndpointPort
	sources   map[string]*lb.SourceSet
}

func newPublished() *published {
	return &published{
		version: lb.Version{Epoch: 1}, frontends: map[lb.Key]gateway.Frontend{}, services: map[types.NamespacedName][]gateway.EndpointPort{},
		sources: map[string]*lb.SourceSet{},
	}
}

func (p *published) sum() (s lb.Sum) {
	for _, a := range p.addresses {
		s.Add(wire.SumAddress(a))
	}
	for _, f := range p.frontends {
		s.Add(wire.SumFrontend(f))
	}
	for name, ports := range p.services {
		s.Add(wire.SumService(name, ports))
	}
	for _, set := range p.sources {
		s.Add(wire.SumSourceSet(set))
	}
	return s
}

// complete returns the update that has everything.
func (p *published) complete() *wire.Update {
	u := &wire.Update{Version: wire.EncodeVersion(&p.version), Addresses: &wire.Addresses{}}
	for _, a := range p.addresses {
		u.Addresses.List = append(u.Addresses.List, wire.EncodeAddress(a))
	}
	for _, f := range p.frontends {
		u.Frontends = append(u.Frontends, wire.EncodeFrontend(f))
	}
	for name, ports := range p.services {
		u.Services = append(u.Services, wire.EncodeService(name, ports))
	}
	for _, set := range p.sources {
		u.SourceSets = append(u.SourceSets, wire.EncodeSourceSet(set))
	}
	return u
}

func testService(i int) types.NamespacedName {
	return types.NamespacedName{Namespace: "default", Name: fmt.Sprint("web", i)}
}

// change changes something at random, and returns the update.
func (p *published) change(random *rand.Rand) *wire.Update {
	base := p.version
	p.version.Sequence++
	u := &wire.Update{Base: wire.EncodeVersion(&base), Version: wire.EncodeVersion(&p.version)}
	if random.IntN(5) == 0 {
		p.addresses, u.Addresses = nil, &wire.Addresses{}
		for i := range byte(3) {
			if random.IntN(3) > 0 {
				a := lb.Address{IP: netip.AddrFrom4([4]byte{192, 0, 2, i}), Exclusive: random.IntN(2) == 0}
				p.addresses = append(p.addresses, a)
				u.Addresses.List = append(u.Addresses.List, wire.EncodeAddress(a))
			}
		}
	}
	if random.IntN(4) == 0 {
		set := &lb.SourceSet{Policy: fmt.Sprint("default/p", random.IntN(3)), OnlyAllowed: random.IntN(2) == 0, Deny: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(random.IntN(9))}), 16)}}
		if random.IntN(3) > 0 {
			p.sources[set.Policy] = set
			u.SourceSets = append(u.SourceSets, wire.EncodeSourceSet(set))
		} else {
			delete(p.sources, set.Policy)
			u.GoneSourceSets = append(u.GoneSourceSets, set.Policy)
		}
	}
	if random.IntN(3) == 0 {
		f := gateway.Frontend{Key: lb.Key{Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(3))}), Protocol: lb.TCP, Port: uint16(1 + random.IntN(8))}, Reject: random.Uint64N(3)}
		for range random.IntN(3) {
			f.Refs = append(f.Refs, gateway.Ref{Service: testService(random.IntN(6)), PortName: "http", Weight: uint32(random.IntN(3))})
		}
		if random.IntN(3) == 0 {
			f.Restrictions = []lb.Restriction{{Policy: fmt.Sprint("default/p", random.IntN(3)), Target: "Gateway/default/gw", Sources: true}}
		}
		if random.IntN(3) > 0 {
			p.frontends[f.Key] = f
			u.Frontends = append(u.Frontends, wire.EncodeFrontend(f))
		} else {
			delete(p.frontends, f.Key)
			u.GoneFrontends = append(u.GoneFrontends, wire.EncodeKey(f.Key))
		}
	}
	if random.IntN(3) > 0 {
		name := testService(random.IntN(6))
		if random.IntN(5) == 0 {
			delete(p.services, name)
			u.GoneServices = append(u.GoneServices, wire.EncodeName(name))
			return u
		}
		port := gateway.EndpointPort{Name: "http", Protocol: lb.TCP}
		for i := range byte(random.IntN(5)) {
			port.Endpoints = append(port.Endpoints, gateway.Endpoint{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(random.IntN(2)), i}), 8080), State: gateway.Readiness(random.IntN(4) - 1),
				Node: fmt.Sprint("n", random.IntN(3)), Zones: []string{"a", "b"}[random.IntN(2):],
			})
		}
		p.services[name] = []gateway.EndpointPort{port}
		u.Services = append(u.Services, wire.EncodeService(name, p.services[name]))
	}
	return u
}

func mustUpdate(t *testing.T, r *Replica, u *wire.Update) {
	t.Helper()
	data, err := proto.Marshal(u)
	if err == nil {
		err = r.Apply(data, gateway.ResolveOptions{NodeName: "n1", HostAddresses: []netip.Addr{netip.MustParseAddr("198.51.100.7")}})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// After any sequence of updates, the agent's sum is that of what was published,
// and so is that of an agent that got everything at once.
func TestReplicaHasTheSumOfWhatWasPublished(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		p, r := newPublished(), &Replica{}
		mustUpdate(t, r, p.complete())
		for range 100 {
			mustUpdate(t, r, p.change(random))
			if r.Sum != p.sum() {
				t.Fatalf("seed %d: state %d has the sum %x, want %x", seed, p.version.Sequence, r.Sum, p.sum())
			}
		}
		fresh := &Replica{}
		mustUpdate(t, fresh, p.complete())
		if fresh.Sum != r.Sum {
			t.Errorf("seed %d: an agent that got everything has the sum %x, want %x", seed, fresh.Sum, r.Sum)
		}
	}
}

// The writer gets what has changed, and so has the state that everything resolves
// to, though what it was offered does not always reach it.
func TestReplicaTellsTheWriterWhatHasChanged(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 1))
		p, r, target := newPublished(), &Replica{}, datapath.NewTarget()
		mustUpdate(t, r, p.complete())
		parts := 0
		for range 100 {
			mustUpdate(t, r, p.change(random))
			if random.IntN(3) == 0 {
				continue // the stream ends before the writer takes it
			}
			s, err := r.state(), error(nil)
			if s.Changed != nil {
				parts++
				err = target.Change(s.Changed, s.Sources, s.GoneSources)
			} else {
				err = target.Replace(s.State)
			}
			r.taken()
			fresh := &Replica{}
			mustUpdate(t, fresh, p.complete())
			if want := fresh.Resolution.State.Hash(); err != nil || target.Hash() != want || *s.Version != p.version {
				t.Fatalf("seed %d: the writer has %x as %v, want %x as %v (%v)", seed, target.Hash(), *s.Version, want, p.version, err)
			}
		}
		if parts == 0 {
			t.Errorf("seed %d: the writer always gets everything", seed)
		}
	}
}

// A new leader that has published the same continues from the version of the
// previous one: the update has only another number.
func TestReplicaContinuesInAnotherEpoch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	p, r := newPublished(), &Replica{}
	mustUpdate(t, r, p.complete())
	for range 20 {
		mustUpdate(t, r, p.change(random))
	}
	sum, state := r.Sum, r.Resolution.State.Hash()
	next := lb.Version{Epoch: 7, Sequence: 1}
	mustUpdate(t, r, &wire.Update{Base: wire.EncodeVersion(&p.version), Version: wire.EncodeVersion(&next)})
	if *r.Version != next || r.Sum != sum || r.Resolution.State.Hash() != state {
		t.Errorf("version %v, sum %x", *r.Version, r.Sum)
	}
	p.version = next
	mustUpdate(t, r, p.change(random))
	if r.Sum != p.sum() {
		t.Error("the next change does not follow")
	}
}

// A set of sources that changes costs the writer that set; frontends stay as they are.
func TestReplicaTellsTheWriterWhichSourcesHaveChanged(t *testing.T) {
	set := func(policy, prefix string) *wire.SourceSet {
		return wire.EncodeSourceSet(&lb.SourceSet{Policy: policy, Deny: []netip.Prefix{netip.MustParsePrefix(prefix)}})
	}
	version := func(n uint64) *wire.Version { return &wire.Version{Epoch: 1, Sequence: n} }
	r := &Replica{}
	mustUpdate(t, r, &wire.Update{Version: version(1), Addresses: &wire.Addresses{}, SourceSets: []*wire.SourceSet{set("a/a", "10.0.0.0/8"), set("a/b", "10.0.0.0/8"), set("a/c", "10.0.0.0/8")}})
	if s := r.state(); s.Changed != nil || len(s.State.Sources) != 3 {
		t.Errorf("the first state is %+v", s)
	}
	r.taken()
	mustUpdate(t, r, &wire.Update{Base: version(1), Version: version(2), SourceSets: []*wire.SourceSet{set("a/b", "10.2.0.0/16")}})
	mustUpdate(t, r, &wire.Update{Base: version(2), Version: version(3), SourceSets: []*wire.SourceSet{set("a/b", "10.3.0.0/16")}, GoneSourceSets: []string{"a/c"}})
	s := r.state()
	if s.Changed == nil || len(s.Changed) != 0 || len(s.Sources) != 1 || s.Sources[0].Deny[0] != netip.MustParsePrefix("10.3.0.0/16") || len(s.GoneSources) != 1 || s.GoneSources[0] != "a/c" {
		t.Errorf("the change is %+v", s)
	}
	r.taken()
	mustUpdate(t, r, &wire.Update{Base: version(3), Version: version(4)})
	if s := r.state(); len(s.Sources)+len(s.GoneSources) != 0 {
		t.Errorf("what was taken is sent again: %+v", s)
	}
}
