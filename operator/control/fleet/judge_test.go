// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubernetes-sigs/blixt/operator/gateway"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// judgedSnapshot has a frontend with these endpoints, whose health is asked for.
func judgedSnapshot(h *lb.Health, endpoints ...netip.AddrPort) Snapshot {
	name := types.NamespacedName{Namespace: "shop", Name: "web"}
	port := gateway.EndpointPort{Name: "http", Protocol: lb.TCP}
	for _, a := range endpoints {
		port.Endpoints = append(port.Endpoints, gateway.Endpoint{Addr: a, State: gateway.Ready})
	}
	h.Policy = "shop/web"
	vip := netip.MustParseAddr("192.0.2.1")
	return Snapshot{
		Unresolved: gateway.Unresolved{
			Addresses: []lb.Address{{IP: vip, Exclusive: true}},
			Frontends: []gateway.Frontend{{
				Key: lb.Key{Addr: vip, Protocol: lb.TCP, Port: 80}, Gateway: "shop/front", IdleTimeout: time.Hour,
				Refs:     []gateway.Ref{{Service: name, PortName: "http", Port: 80, Weight: 1}},
				Settings: lb.Settings{Health: h},
			}},
		},
		Endpoints: gateway.Endpoints{name: {Ports: []gateway.EndpointPort{port}}},
	}
}

// idOf returns the id of a backend in the node's maps; 0: it is not there.
func (n *node) idOf(a netip.AddrPort) uint32 {
	all, _ := n.fake.Backends()
	for id, b := range all {
		if b.Generation&1 != 0 && b.Addr == datapath.ToAddr(a.Addr()) && b.Port == datapath.ToPort(a.Port()) {
			return uint32(id)
		}
	}
	return 0
}

// serving returns how many of the backends are in the node's ring.
func (n *node) serving(endpoints []netip.AddrPort) (served []bool) {
	words, _ := n.fake.Published()
	in := map[uint32]bool{}
	for _, word := range words {
		slots, _ := n.fake.Ring(word.Offset(), word.Size())
		for _, id := range slots {
			in[id] = true
		}
	}
	for _, a := range endpoints {
		id := n.idOf(a)
		served = append(served, id != 0 && in[id])
	}
	return served
}

// threeNodes starts nodes n1 to n3, and returns a function that waits until all of them serve
// those endpoints, in order, that are wanted.
func threeNodes(t *testing.T, o *operator, endpoints []netip.AddrPort) (nodes []*node, wait func(what string, want ...bool)) {
	for _, name := range []string{"n1", "n2", "n3"} {
		nodes = append(nodes, newNode(t, o, name, nil))
	}
	return nodes, func(what string, want ...bool) {
		t.Helper()
		eventually(t, func() string {
			for i, n := range nodes {
				if got := n.serving(endpoints); fmt.Sprint(got) != fmt.Sprint(want) {
					return fmt.Sprintf("%s: n%d serves %v, want %v", what, i+1, got, want)
				}
			}
			return ""
		})
	}
}

// A backend that fails on most nodes is ejected on all of them, and not where one node alone sees all fail.
func TestOperatorEjectsForAllNodes(t *testing.T) {
	o := newOperator(t, "", nil)
	var endpoints []netip.AddrPort
	for i := range 4 {
		endpoints = append(endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), 80))
	}
	s := judgedSnapshot(&lb.Health{Passive: &lb.PassiveHealth{
		Consecutive: 3, AnswerWithin: time.Second, FailurePercent: 50, MinFlows: 1000, Window: 10 * time.Second,
		BaseEjection: 3 * time.Second, MaxEjection: time.Minute, MaxEjected: 50,
	}}, endpoints...)
	o.Publish(s)
	nodes, wait := threeNodes(t, o, endpoints)
	wait("at first", true, true, true, true)
	for _, n := range nodes { // so that the operator knows what was before
		for _, a := range endpoints {
			n.fake.CountHealth(n.idOf(a), func(h *datapath.Health) { h.Answers++ })
		}
	}
	time.Sleep(2 * judgeEvery)
	count := func(n *node, a netip.AddrPort, failures uint32) {
		n.fake.CountHealth(n.idOf(a), func(h *datapath.Health) { h.Failures += failures; h.Consecutive += failures })
	}
	for _, a := range endpoints {
		count(nodes[0], a, 10)
	}
	time.Sleep(3 * judgeEvery)
	wait("a node with a broken network", true, true, true, true)
	count(nodes[1], endpoints[2], 10)
	count(nodes[2], endpoints[2], 10)
	wait("most nodes see it fail", true, true, false, true)
	if e := o.Health().Ejected[lb.EjectedKey{Policy: "shop/web", Protocol: lb.TCP, Backend: endpoints[2]}]; e == nil || e.Why != "10 connections in a row refused" {
		t.Errorf("%+v", o.Health())
	}
	// Its time is up: a flow on trial is answered.
	wait("on trial", true, true, true, true)
	nodes[1].fake.CountHealth(nodes[1].idOf(endpoints[2]), func(h *datapath.Health) { h.Answers++; h.Consecutive = 0 })
	eventually(t, func() string {
		if n := len(o.Health().Ejected); n > 0 {
			return fmt.Sprintf("%d are ejected, want none", n)
		}
		return ""
	})
}

// What was ejected stays so, without a break, when another operator leads, until its time is up. A node that is
// alone with what it says, about another backend or for longer, is not believed.
func TestNextLeaderGoesOnWithEjections(t *testing.T) {
	first := newOperator(t, "", nil)
	var endpoints []netip.AddrPort
	for i := range 6 {
		endpoints = append(endpoints, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)}), 80))
	}
	key := func(i int) lb.EjectedKey {
		return lb.EjectedKey{Policy: "shop/web", Protocol: lb.TCP, Backend: endpoints[i]}
	}
	s := judgedSnapshot(&lb.Health{Passive: &lb.PassiveHealth{
		Consecutive: 3, AnswerWithin: time.Second, FailurePercent: 50, MinFlows: 1000, Window: 10 * time.Second,
		BaseEjection: 30 * time.Second, MaxEjection: time.Minute, MaxEjected: 50,
	}}, endpoints...)
	first.Publish(s)
	var nodes []*node
	for _, name := range []string{"n1", "n2", "n3"} {
		n := newNode(t, first, name, nil)
		nodes = append(nodes, n)
		eventually(t, func() string {
			if n.idOf(endpoints[2]) == 0 {
				return "the backend is not served"
			}
			return ""
		})
	}
	ejects := func(n *node) bool { return fmt.Sprint(n.serving(endpoints)) == "[true true false true true true]" }
	time.Sleep(2 * judgeEvery) // so that the operator knows what was before
	for _, n := range nodes {
		n.fake.CountHealth(n.idOf(endpoints[2]), func(h *datapath.Health) { h.Failures += 5; h.Consecutive += 5 })
	}
	eventually(t, func() string {
		for i, n := range nodes {
			if !ejects(n) {
				return fmt.Sprintf("n%d serves %v", i+1, n.serving(endpoints))
			}
		}
		return ""
	})
	before := first.Health().Ejected[key(2)]

	first.stop()
	second := newFollower(t, first.address, first.certificates.Load())
	second.Lead(2)
	second.Publish(s)
	longer := *before
	longer.Until = longer.Until.Add(10 * time.Second)
	second.keep("n1", lb.EjectedSet{key(0): before, key(1): &longer})
	for end := time.Now().Add(judgeAfter + 3*judgeEvery); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for i, n := range nodes {
			if !ejects(n) {
				t.Fatalf("n%d serves %v", i+1, n.serving(endpoints))
			}
		}
	}
	all := second.Health().Ejected
	if after := all[key(2)]; len(all) != 1 || after == nil || !after.Since.Equal(before.Since) || !after.Until.Equal(before.Until) || after.Why != before.Why {
		t.Errorf("%v, want %v: %v alone", all, key(2), before)
	}
}

// Agents check backends themselves, and the majority decides for all nodes.
func TestAgentsCheckBackends(t *testing.T) {
	o := newOperator(t, "", nil)
	var endpoints []netip.AddrPort
	var listeners []net.Listener
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners = append(listeners, l)
		endpoints = append(endpoints, netip.MustParseAddrPort(l.Addr().String()))
	}
	s := judgedSnapshot(&lb.Health{Active: &lb.ActiveHealth{Type: "TCP", Interval: 200 * time.Millisecond, Timeout: 100 * time.Millisecond, Rise: 1, Fall: 2}}, endpoints...)
	o.Publish(s)
	_, wait := threeNodes(t, o, endpoints)
	wait("at first", true, true, true)
	listeners[1].Close()
	wait("one is down", true, false, true)
	listeners[0].Close()
	listeners[2].Close()
	wait("all are down: the check is suspected", true, true, true)
	if d := o.Health(); len(d.Suspects) != 1 || d.Suspects[0].Gateway != "shop/front" {
		t.Errorf("%+v", d)
	}
	for len(o.Changed()) > 0 {
		<-o.Changed()
	}
	reopened, err := net.Listen("tcp", endpoints[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer reopened.Close()
	// One in three is less than the half that health is asked for: all serve, and that is said instead.
	s.Frontends[0].Health.Panic = 50
	o.Publish(s)
	eventually(t, func() string {
		if d := o.Health(); len(d.Suspects) != 0 || len(d.Panics) != 1 || !strings.HasPrefix(d.Panics[0].Why, "2 of 3 backends of 192.0.2.1:80") {
			return fmt.Sprintf("%+v", d)
		}
		return ""
	})
	if len(o.Changed()) == 0 {
		t.Error("nobody is told that it has changed")
	}
}
