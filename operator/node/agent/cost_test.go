// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cilium/ebpf"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/wire"
)

// endpointsEach is how many endpoints each Service of publishedMany has.
const endpointsEach = 15

// publishedMany has n frontends, each with a Service of its own.
func publishedMany(n int) *published {
	p := newPublished()
	vip := netip.MustParseAddr("192.0.2.1")
	p.addresses = []lb.Address{{IP: vip, Exclusive: true}}
	for i := range n {
		f := gateway.Frontend{
			Key: lb.Key{Addr: vip, Protocol: lb.TCP, Port: uint16(1 + i)}, Gateway: "default/gw", Listener: "l", Route: "TCPRoute/default/web",
			Refs: []gateway.Ref{{Service: testService(i), PortName: "http", Weight: 1}},
		}
		p.frontends[f.Key] = f
		port := gateway.EndpointPort{Name: "http", Protocol: lb.TCP}
		for j := range byte(endpointsEach) {
			port.Endpoints = append(port.Endpoints, gateway.Endpoint{
				Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), j}), 8080), State: gateway.Ready, Node: "n2",
			})
		}
		p.services[testService(i)] = []gateway.EndpointPort{port}
	}
	return p
}

// changeEndpoint lets one endpoint of a Service come and go, and returns the
// encoded update.
func (p *published) changeEndpoint(t testing.TB, name types.NamespacedName) []byte {
	t.Helper()
	base := p.version
	p.version.Sequence++
	port := p.services[name][0]
	if port.Endpoints = slices.Clone(port.Endpoints); len(port.Endpoints) == endpointsEach {
		port.Endpoints = port.Endpoints[:endpointsEach-1]
	} else {
		next := port.Endpoints[len(port.Endpoints)-1]
		next.Addr = netip.AddrPortFrom(next.Addr.Addr().Next(), next.Addr.Port())
		port.Endpoints = append(port.Endpoints, next)
	}
	p.services[name] = []gateway.EndpointPort{port}
	data, err := proto.Marshal(&wire.Update{
		Base: wire.EncodeVersion(&base), Version: wire.EncodeVersion(&p.version), Services: []*wire.Service{wire.EncodeService(name, p.services[name])},
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// node is what an agent does with updates, without the stream.
type node struct {
	replica *Replica
	states  chan writer.VersionedState
	results chan writer.Result
}

func newTestNode(t testing.TB, tables writer.Tables, p *published) *node {
	t.Helper()
	n := &node{replica: &Replica{}, states: make(chan writer.VersionedState), results: make(chan writer.Result)}
	ended := make(chan struct{})
	var now atomic.Int64
	w := writer.New(tables, writer.Options{
		Applied: func(r writer.Result, err error) {
			if err != nil {
				t.Error(err)
			}
			select {
			case n.results <- r:
			case <-t.Context().Done():
			}
		},
		// Ids and slots rest for a second. A benchmark changes endpoints faster.
		Clock: func() time.Time { return time.Unix(now.Add(1), 0) },
	})
	go func() {
		defer close(ended)
		w.Run(t.Context(), n.states)
	}()
	t.Cleanup(func() { <-ended })
	data, err := proto.Marshal(p.complete())
	if err != nil {
		t.Fatal(err)
	}
	n.update(t, data)
	return n
}

func (n *node) update(t testing.TB, data []byte) writer.Result {
	t.Helper()
	if err := n.replica.Apply(data, gateway.ResolveOptions{NodeName: "n1"}); err != nil {
		t.Fatal(err)
	}
	n.states <- n.replica.state()
	n.replica.taken()
	r := <-n.results
	if !r.Done || r.LeftOut != nil {
		t.Fatalf("%+v", r)
	}
	return r
}

var fullSizes = datapath.Sizes{
	Addresses: int(bpf.BlixtLimitMAX_FRONTENDS), Frontends: int(bpf.BlixtLimitMAX_FRONTENDS),
	Backends: int(bpf.BlixtLimitMAX_BACKENDS), RingSlots: int(bpf.BlixtLimitMAX_RING_SLOTS), Flows: 64,
}

// What one endpoint's change costs does not depend on how many other frontends
// there are.
func TestEndpointChangeTouchesOneFrontend(t *testing.T) {
	var costs []writer.Result
	for _, frontends := range []int{1, 10, 300} {
		synctest.Test(t, func(t *testing.T) {
			p := publishedMany(frontends)
			fake := datapath.NewFake(fullSizes)
			n := newTestNode(t, fake, p)
			synctest.Wait() // the sweeper reads counters when it starts
			fake.Writes()
			fake.Reads()
			r := n.update(t, p.changeEndpoint(t, testService(0)))
			writes, reads := fake.Writes(), fake.Reads()
			if r.Planned != 1 || writes != 4 || reads != 1 { // the ring, its word, the backend that is gone, the config; the config
				t.Errorf("with %d frontends: %d planned, %d writes, %d reads, want 1, 4, 1", frontends, r.Planned, writes, reads)
			}
			r.Version, r.StateHash, r.Duration, r.Wanted = lb.Version{}, "", 0, nil
			costs = append(costs, r)
		})
	}
	if costs[0] != costs[1] || costs[0] != costs[2] {
		t.Errorf("the costs differ: %+v", costs)
	}
}

// BenchmarkPublishUpdate lets an endpoint come and go on a node with so many frontends,
// of 15 endpoints each: from the update as it arrives until the kernel's maps hold it.
func BenchmarkPublishUpdate(b *testing.B) {
	for _, frontends := range []int{1, 4000} {
		b.Run(fmt.Sprint("frontends=", frontends), func(b *testing.B) { benchmarkEndpoint(b, frontends) })
	}
}

func benchmarkEndpoint(b *testing.B, frontends int) {
	p := publishedMany(frontends)
	n := newTestNode(b, kernelMaps(b), p)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		n.update(b, p.changeEndpoint(b, testService(i/2%frontends)))
		i++
	}
}

// kernelMaps returns maps like those of a loaded program.
func kernelMaps(b *testing.B) *datapath.Maps {
	b.Helper()
	spec, err := bpf.LoadBlixt()
	if err != nil {
		b.Fatal(err)
	}
	all := map[string]*ebpf.Map{}
	for _, name := range bpf.MapNames() {
		m, err := ebpf.NewMap(spec.Maps[name])
		if err != nil {
			b.Fatalf("create map %s, which needs root: %v", name, err)
		}
		b.Cleanup(func() { m.Close() })
		all[name] = m
	}
	maps, err := datapath.New(all)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { maps.Close() })
	return maps
}
