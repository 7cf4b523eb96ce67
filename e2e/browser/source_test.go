// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// source is a page.Source that is made up. Tests change it while pages show it.
type source struct {
	mu       sync.Mutex
	overview page.Overview
	// frontends are those of a Gateway, the same on each node but for their counters.
	frontends map[string][]writer.FrontendStatus
	refs      map[string][]top.Ref
	nodes     []string
	drops     map[string]uint64
	flows     []observe.Record
	trace     any
	traced    []observe.TraceQuery
	// looks is how many nodes' counters were asked for; they rise from one to the next.
	looks uint64
	// failing has nodes give no answer, or the source no overview.
	failing, broken error
}

// Overview implements page.Source.
func (s *source) Overview(context.Context) (*page.Overview, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return nil, s.broken
	}
	o := s.overview
	return &o, nil
}

// change changes what there is. The parts of an overview are to be replaced, not modified.
func (s *source) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// Ask implements observe.Asker.
func (s *source) Ask(_ context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing != nil {
		return s.failing
	}
	send := func(node string, piece any) error {
		text, err := json.Marshal(piece)
		if err != nil {
			return err
		}
		return got(node, text)
	}
	switch {
	case q.Status != nil:
		s.looks++
		for i, node := range s.nodes {
			if err := send(node, s.report(i, q.Status.Scope)); err != nil {
				return err
			}
		}
		return nil
	case q.Flows != nil:
		flows := s.flows
		if q.Flows.Last > 0 {
			flows = flows[max(0, len(flows)-q.Flows.Last):]
		}
		for _, f := range flows {
			if err := send(s.nodes[0], observe.FlowsPiece{Record: &f}); err != nil {
				return err
			}
		}
		return nil
	case q.Trace != nil:
		s.traced = append(s.traced, *q.Trace)
		if s.trace == nil {
			return errors.New("nobody traces here")
		}
		return send(s.nodes[0], s.trace)
	}
	return errors.New("what a question")
}

// report is that of a node at this look.
func (s *source) report(node int, scope *observe.Scope) top.Report {
	r := top.Report{Totals: &top.Totals{}}
	r.Counters = map[string]uint64{}
	for name, n := range s.drops {
		r.Counters[name] = n * s.looks
	}
	for gateway, frontends := range s.frontends {
		r.Totals.Frontends += len(frontends)
		for i := range frontends {
			r.Totals.Backends += len(frontends[i].Backends)
			r.Totals.ActiveFlows += frontends[i].ActiveFlows
			r.Totals.NewFlows += frontends[i].NewFlows * s.looks
			r.Totals.Bytes += frontends[i].Bytes * s.looks
			r.Totals.ReplyBytes += frontends[i].ReplyBytes * s.looks
			r.Totals.Rejected += frontends[i].Rejected * s.looks
		}
		if scope != nil && !slices.Contains(scope.Gateways, gateway) {
			continue
		}
		for _, f := range frontends {
			f.NewFlows, f.Bytes, f.ReplyBytes, f.Rejected = f.NewFlows*s.looks, f.Bytes*s.looks, f.ReplyBytes*s.looks, f.Rejected*s.looks
			f.Backends = slices.Clone(f.Backends)
			for i := range f.Backends {
				f.Backends[i].NewFlows *= s.looks
				f.Backends[i].ActiveFlows += (s.looks*7 + uint64(i+node)) % 13
			}
			r.Frontends = append(r.Frontends, f)
		}
		for _, ref := range s.refs[gateway] {
			ref.Flows *= s.looks
			ref.Connects = slices.Clone(ref.Connects)
			for i := range ref.Connects {
				ref.Connects[i] *= s.looks
			}
			ref.ConnectSum *= float64(s.looks)
			ref.Refused *= s.looks
			ref.Unanswered *= s.looks
			r.Refs = append(r.Refs, ref)
		}
	}
	return r
}

// add adds a Gateway with a TCP listener that leads to Services of so many backends each.
// The backend that is draining is the last one of each Service.
func (s *source) add(name string, port uint16, services []string, backends int) *page.Declared {
	index := uint32(len(s.frontends))
	route := "TCPRoute/" + name
	vip := netip.AddrFrom4([4]byte{198, 51, byte(100 + index/250), byte(1 + index%250)})
	d := page.Declared{
		Name: name, Class: "blixt", Addresses: []string{vip.String()}, Verdict: finding.OK,
		Listeners: []page.DeclaredListener{{Name: "tcp", Protocol: "TCP", Port: port, Routes: []string{route}}},
	}
	f := writer.FrontendStatus{
		Frontend: fmt.Sprintf("%s:%d/tcp", vip, port), Gateway: name, Listener: "tcp", Route: route, Index: index,
		RingSize: 1021, IdleTimeout: "1h0m0s", NewFlows: 20, ActiveFlows: 40, Bytes: 3 << 20, ReplyBytes: 9 << 20,
	}
	share := 1 / float64(len(services)*max(1, backends-1))
	for i, service := range services {
		for j := range backends {
			b := writer.BackendStatus{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(index / 250), byte(i), byte(1 + j)}), 8080).String(),
				ID:      index<<10 | uint32(i)<<6 | uint32(j), Service: service, State: "serving", Weight: 1, RingShare: share, NewFlows: 5, ActiveFlows: 10,
			}
			if j > 0 && j == backends-1 {
				b.State, b.RingShare, b.NewFlows, b.ActiveFlows = "draining", 0, 0, 3
			}
			f.Backends = append(f.Backends, b)
		}
		connects := make([]uint64, 21)
		connects[4], connects[7] = 9, 1 // 0.5 to 1 ms, 4 to 8 ms
		s.refs[name] = append(s.refs[name], top.Ref{
			Gateway: name, Route: route, Service: service, Port: 80, Protocol: "TCP", Flows: 10, Refused: 1, Connects: connects, ConnectSum: 0.012,
		})
	}
	s.frontends[name] = []writer.FrontendStatus{f}
	s.overview.Gateways = append(s.overview.Gateways, d)
	return &s.overview.Gateways[len(s.overview.Gateways)-1]
}

// newSource returns a host without Gateways.
func newSource() *source {
	return &source{
		overview:  page.Overview{Kind: "host", Name: "default", Version: "v0.9.0", Status: page.Status{Verdict: finding.OK}},
		frontends: map[string][]writer.FrontendStatus{}, refs: map[string][]top.Ref{}, nodes: []string{""}, drops: map[string]uint64{},
	}
}

// shop is what most tests look at: two Gateways of a cluster of three nodes, one of which
// has a problem, as has a node.
func shop() *source {
	s := newSource()
	s.overview.Kind, s.overview.Name, s.nodes = "cluster", "prod", []string{"node-a", "node-b", "node-c"}
	s.overview.Status = page.Status{Verdict: finding.Failed, Findings: []finding.Finding{
		{Check: "routes", Verdict: finding.Failed, Object: "TCPRoute shop/orders", Seen: "ResolvedRefs is False: Service shop/orders has no port 81", Remedy: "Name a port that the Service has."},
		{Check: "nodes", Verdict: finding.Warning, Object: "Node node-c", Seen: "it runs v0.8.1, others v0.9.0", Remedy: "Wait for the upgrade to reach it."},
	}}
	s.add("shop/web", 80, []string{"shop/web", "shop/web-canary"}, 4)
	d := s.add("shop/orders", 5432, nil, 0)
	d.Problem, d.Verdict = "ResolvedRefs is False: Service shop/orders has no port 81", finding.Failed
	d.Listeners[0].Problem = d.Problem
	s.drops = map[string]uint64{"drop_no_route": 3, "reject_no_backend": 12}
	s.overview.Nodes = []page.Node{
		{Name: "node-a", Verdict: finding.OK, Version: "v0.9.0", Kernel: "6.12.41", Frontends: 2, Backends: 8, Flows: 40},
		{Name: "node-b", Verdict: finding.OK, Version: "v0.9.0", Kernel: "6.12.41", Frontends: 2, Backends: 8, Flows: 41},
		{Name: "node-c", Verdict: finding.Warning, Reason: "it runs an earlier version", Version: "v0.8.1", Kernel: "6.1.0", Frontends: 2, Backends: 8, Flows: 39},
	}
	for i := range 5 {
		s.flows = append(s.flows, s.flow(i))
	}
	s.trace = map[string]any{}
	return s
}

// flow is one that has ended.
func (s *source) flow(i int) observe.Record {
	end := func(a string, port uint16) observe.Endpoint {
		return observe.Endpoint{Address: netip.MustParseAddr(a), Port: port}
	}
	backend := end("10.0.0.1", 8080)
	return observe.Record{
		V: 1, Event: observe.EventEnd, Node: "node-a", Seq: uint64(i + 1), Time: time.Now().Add(time.Duration(i-60) * time.Second), Protocol: "tcp", Reason: "fin", EndedBy: "client",
		Client: end("203.0.113.7", uint16(40000+i)), Server: end("198.51.100.1", 80), Backend: &backend,
		Gateway: "shop/web", Listener: "tcp", Route: "TCPRoute/shop/web", Service: "shop/web", Duration: 1.25, Connect: 0.0008,
		In: &observe.Traffic{Packets: 9, Bytes: 1830}, Out: &observe.Traffic{Packets: 14, Bytes: 22110},
	}
}
