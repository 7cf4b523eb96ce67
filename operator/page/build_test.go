// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// web returns what a node reports of Gateway a/web, after so many flows to each backend.
func web(flows uint64) top.Report {
	backend := func(address string, id uint32, state string, ring float64, n uint64) writer.BackendStatus {
		return writer.BackendStatus{Address: address, ID: id, Service: "a/web", State: state, Weight: 1, RingShare: ring, NewFlows: n, ActiveFlows: 1}
	}
	return top.Report{
		Status: writer.Status{
			Frontends: []writer.FrontendStatus{
				{Frontend: "192.0.2.1:80/tcp", Gateway: "a/web", Listener: "http", Route: "TCPRoute/a/web", Index: 1, NewFlows: 2 * flows, ActiveFlows: 2, Bytes: 100 * flows, ReplyBytes: 1000 * flows,
					Backends: []writer.BackendStatus{backend("10.0.0.1:80", 1, "serving", 1, flows), backend("10.0.0.2:80", 2, "draining", 0, flows)}},
				{Frontend: "[2001:db8::1]:80/tcp", Gateway: "a/web", Listener: "http", Route: "TCPRoute/a/web", Index: 2, RejectShare: 0.5,
					Backends: []writer.BackendStatus{backend("[fd00::1]:80", 3, "serving", 0.5, 0)}},
			},
			Counters: map[string]uint64{"drop_no_route": flows, "reject_no_backend": 7, "flow_new": flows},
		},
		Totals: &top.Totals{Frontends: 2, Backends: 3, NewFlows: 2 * flows, ActiveFlows: 3, Bytes: 100 * flows, ReplyBytes: 1000 * flows},
		Refs: []top.Ref{{
			Gateway: "a/web", Route: "TCPRoute/a/web", Service: "a/web", Port: 80, Protocol: "TCP", Flows: 2 * flows, Refused: flows,
			Connects: []uint64{0, 0, 0, flows, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, flows}, ConnectSum: float64(flows),
		}},
	}
}

func sampleAt(second int, nodes map[string]top.Report) *Sample {
	declared := []Declared{
		{Name: "a/web", Verdict: finding.OK, Listeners: []DeclaredListener{{Name: "http", Protocol: "TCP", Port: 80}, {Name: "other", Protocol: "UDP", Port: 53}}},
	}
	s := Selection{Page: 1}
	return &Sample{
		Time: noon.Add(time.Duration(second) * time.Second), Reports: nodes, Choice: s.Choose(declared),
		Overview: &Overview{Kind: "host", Name: "default", Status: Status{Verdict: finding.OK}, Gateways: declared},
	}
}

func TestViewHasRatesOfTheTimeBetween(t *testing.T) {
	b := Builder{Every: 2 * time.Second}
	first := b.View(sampleAt(0, map[string]top.Report{"n1": web(10), "n2": web(100)}))
	if r := first.Gateways[0].NewFlows; r != nil {
		t.Errorf("the first View has a rate of %v, want none", *r)
	}
	v := b.View(sampleAt(2, map[string]top.Report{"n1": web(20), "n2": web(100)}))
	g := v.Gateways[0]
	if got := value(g.NewFlows); got != 10 {
		t.Errorf("new flows of the Gateway: %v/s, want 10", got)
	}
	if got := []float64{value(v.Totals.NewFlows), value(v.Totals.BytesIn), value(v.Totals.BytesOut)}; !cmp.Equal(got, []float64{10, 500, 5000}) {
		t.Errorf("totals: %v by second, want 10 flows, 500 and 5000 bytes", got)
	}
	if v.Totals.Frontends != 2 || v.Totals.Active != 6 {
		t.Errorf("totals: %+v, want 2 frontends, which both nodes have, and 6 active flows", v.Totals)
	}
	l := g.Listeners[0]
	if len(l.Addresses) != 2 || l.Route != "TCPRoute/a/web" || value(l.NewFlows) != 10 || l.RejectShare != 0 {
		t.Errorf("listener: %+v", l)
	}
	s := l.Services[0]
	if s.Name != "a/web" || s.Ready != 2 || s.Draining != 1 || s.Wanted != 1 || s.Seen != 1 || value(s.Refused) != 5 {
		t.Errorf("service: %+v", s)
	}
	if s.Backends[0].State != "draining" || s.Backends[0].Seen != 0.5 || value(s.Backends[0].NewFlows) != 5 {
		t.Errorf("the backend that drains comes first, with half of the flows: %+v", s.Backends[0])
	}
	if want := (Connect{Mean: 0.5, P50: 1.0 / 2048, P99: 1}); *s.Connect != want {
		t.Errorf("connect times %+v, want %+v", *s.Connect, want)
	}
	if d := v.Drops[0]; d.Name != "drop_no_route" || d.Packets != 120 || value(d.PerSecond) != 5 || d.Cure == "" || len(v.Drops) != 2 {
		t.Errorf("drops: %+v", v.Drops)
	}
	if other := g.Listeners[1]; other.Name != "other" || len(other.Services) != 0 {
		t.Errorf("a listener without a frontend: %+v", other)
	}
}

// TestCounterThatBeganAnewHasNoRate: a node has restarted, a frontend's index is another's.
func TestCounterThatBeganAnewHasNoRate(t *testing.T) {
	b := Builder{}
	b.View(sampleAt(0, map[string]top.Report{"n1": web(1000)}))
	after := web(10)
	v := b.View(sampleAt(2, map[string]top.Report{"n1": after}))
	if r := v.Totals.NewFlows; r == nil || *r != 0 {
		t.Errorf("after a restart: %v, want 0", value(r))
	}
	moved := web(5000)
	moved.Frontends[0].Index = 9
	v = b.View(sampleAt(4, map[string]top.Report{"n1": moved}))
	if r := v.Gateways[0].NewFlows; value(r) != 0 {
		t.Errorf("a frontend of another index has %v flows/s, want none from the one before", *r)
	}
	v = b.View(sampleAt(4, map[string]top.Report{"n1": moved})) // no time has gone by
	if r := v.Totals.NewFlows; r != nil {
		t.Errorf("rate of no time: %v", *r)
	}
	v = b.View(sampleAt(1, map[string]top.Report{"n1": web(6000)})) // the clock was set back
	if r := v.Totals.NewFlows; r != nil {
		t.Errorf("rate of a negative time: %v", *r)
	}
}

// TestNodeOfAnEarlierVersionAnswersWithAll: its frontends are filtered, and summed up.
func TestNodeOfAnEarlierVersionAnswersWithAll(t *testing.T) {
	r := web(10)
	r.Totals, r.Refs = nil, nil
	r.Frontends = append(r.Frontends, writer.FrontendStatus{Frontend: "192.0.2.9:80/tcp", Gateway: "b/other", NewFlows: 5, ActiveFlows: 1})
	v := (&Builder{}).View(sampleAt(0, map[string]top.Report{"n1": r}))
	if len(v.Gateways) != 1 || v.Totals.Frontends != 3 || v.Totals.Active != 3 || v.Gateways[0].Listeners[0].Services[0].Connect != nil {
		t.Errorf("got %d Gateways, totals %+v", len(v.Gateways), v.Totals)
	}
}

// TestSumsOfNodesHoldWhereBackendsAreLeftOut: an answer names some backends of a large
// Service, others in the next one, and sums up all.
func TestSumsOfNodesHoldWhereBackendsAreLeftOut(t *testing.T) {
	report := func(flows uint64, first int) top.Report {
		r := top.Report{}
		for i, address := range []string{"192.0.2.1:80/tcp", "192.0.2.2:80/tcp", "[2001:db8::1]:80/tcp"} {
			f := writer.FrontendStatus{
				Frontend: address, Gateway: "a/web", Listener: "http", Index: uint32(i), NewFlows: 100 * flows, MoreBackends: 2990,
				Services: []writer.ServiceStatus{{Service: "a/big", Port: 80, Ready: 2000, Draining: 5, RingShare: 0.5, NewFlows: 60 * flows}, {Service: "a/big", Port: 81, Ready: 995, RingShare: 0.25, NewFlows: 30 * flows}, {Service: "a/none", Port: 80, RingShare: 0.25}},
			}
			for n := first; n < first+10; n++ {
				f.Backends = append(f.Backends, writer.BackendStatus{Address: fmt.Sprint(address[:4], n), ID: uint32(n), Service: "a/big", State: "serving", NewFlows: uint64(n) * flows})
			}
			r.Frontends = append(r.Frontends, f)
		}
		return r
	}
	b := Builder{}
	b.View(sampleAt(0, map[string]top.Report{"n1": report(1, 0), "n2": report(1, 0)}))
	v := b.View(sampleAt(1, map[string]top.Report{"n1": report(2, 5), "n2": report(2, 5)}))
	services := v.Gateways[0].Listeners[0].Services
	if len(services) != 2 || services[1].Name != "a/none" || services[1].Ready != 0 || math.Abs(services[1].Wanted-0.25) > 1e-9 {
		t.Fatalf("services %+v", services)
	}
	s := services[0]
	if s.Ready != 2*2995 || s.Draining != 10 || math.Abs(s.Wanted-0.75) > 1e-9 || s.Seen != 1 || math.Abs(value(s.NewFlows)-6*90) > 1e-6 || s.MoreBackends != 6000-len(s.Backends) {
		t.Errorf("service: %d ready, %d draining, wanted %v, seen %v, %v/s, %d more", s.Ready, s.Draining, s.Wanted, s.Seen, value(s.NewFlows), s.MoreBackends)
	}
	rates := 0
	for _, one := range s.Backends {
		if one.NewFlows != nil {
			rates++
		}
	}
	if rates < 5 { // of those that both answers have, at other places
		t.Errorf("%d of %d backends have rates", rates, len(s.Backends))
	}
}

// TestWantedIsThatOfTheFlowsSeen: addresses of a Gateway have other backends each, and one
// has most of the flows.
func TestWantedIsThatOfTheFlowsSeen(t *testing.T) {
	r := top.Report{Status: writer.Status{Frontends: []writer.FrontendStatus{
		{Frontend: "192.0.2.1:80/tcp", Gateway: "a/web", Listener: "http", NewFlows: 900, Backends: []writer.BackendStatus{
			{Address: "10.0.0.1:80", ID: 1, Service: "a/web", State: "serving", RingShare: 0.3, NewFlows: 270}, {Address: "10.0.0.2:80", ID: 2, Service: "a/web", State: "serving", RingShare: 0.7, NewFlows: 630}}},
		{Frontend: "192.0.2.2:80/tcp", Gateway: "a/web", Listener: "http", NewFlows: 100, Backends: []writer.BackendStatus{
			{Address: "10.0.0.1:80", ID: 1, Service: "a/web", State: "serving", RingShare: 0.9, NewFlows: 90}, {Address: "10.0.0.3:80", ID: 3, Service: "a/web", State: "serving", RingShare: 0.1, NewFlows: 10}}},
	}}}
	v := (&Builder{}).View(sampleAt(0, map[string]top.Report{"n1": r}))
	for _, one := range v.Gateways[0].Listeners[0].Services[0].Backends {
		if math.Abs(one.Wanted-one.Seen) > 1e-9 || one.Seen == 0 {
			t.Errorf("%s: wanted %v, seen %v", one.Address, one.Wanted, one.Seen)
		}
	}
}

func TestViewIsBounded(t *testing.T) {
	r := top.Report{}
	var declared []Declared
	for g := range 4000 {
		d := Declared{Name: fmt.Sprintf("a/%04d", g), Verdict: finding.OK}
		declared = append(declared, d)
		f := writer.FrontendStatus{Frontend: fmt.Sprint("192.0.2.1:", g), Gateway: d.Name, Listener: "l", Index: uint32(g)}
		for n := range 300 {
			f.Backends = append(f.Backends, writer.BackendStatus{Address: fmt.Sprint(n), ID: uint32(1000*g + n), State: "serving"})
		}
		if g < 100 {
			r.Frontends = append(r.Frontends, f)
		}
	}
	s := Selection{Page: 99999, Open: "a/0001", Sort: ByName}
	sample := sampleAt(0, map[string]top.Report{"n1": r})
	sample.Choice = s.Choose(declared)
	for range 1000 {
		sample.Overview.Status.Findings = append(sample.Overview.Status.Findings, finding.Finding{Seen: "x"})
		sample.Overview.Nodes = append(sample.Overview.Nodes, Node{Name: "n"})
	}
	v := (&Builder{}).View(sample)
	if v.Page != 160 || v.Pages != 160 || len(v.Gateways) != pageSize+1 || v.Gateways[0].Name != "a/0001" {
		t.Errorf("page %d of %d with %d Gateways, the first %s", v.Page, v.Pages, len(v.Gateways), v.Gateways[0].Name)
	}
	service := v.Gateways[0].Listeners[0].Services[0]
	if len(service.Backends) != openBackends || service.MoreBackends != 100 || service.Ready != 300 {
		t.Errorf("the open Gateway shows %d backends and leaves out %d of %d", len(service.Backends), service.MoreBackends, service.Ready)
	}
	if len(v.Status.Findings) != mostFindings || v.MoreFindings != 950 || len(v.Nodes) != mostNodes || v.NodesAll != 1000 {
		t.Errorf("%d findings and %d nodes", len(v.Status.Findings), len(v.Nodes))
	}
	if text, err := json.Marshal(v); err != nil || len(text) > 1<<20 {
		t.Errorf("%d bytes of JSON, %v", len(text), err)
	}
}

// TestMessagesAreClipped: a condition may have 32 kB, and a tenant writes many.
func TestMessagesAreClipped(t *testing.T) {
	long := strings.Repeat("é", 16_000)
	sample := sampleAt(0, nil)
	var declared []Declared
	for i := range pageSize {
		d := Declared{Name: fmt.Sprint("a/", i), Verdict: finding.Failed, Problem: long}
		for n := range 100 {
			d.Addresses = append(d.Addresses, fmt.Sprint("192.0.2.", n))
			d.Listeners = append(d.Listeners, DeclaredListener{Name: fmt.Sprint("l", n), Problem: long})
		}
		declared = append(declared, d)
		sample.Overview.Status.Findings = append(sample.Overview.Status.Findings, finding.Finding{Object: long, Seen: long, Remedy: long})
		sample.Overview.Nodes = append(sample.Overview.Nodes, Node{Name: fmt.Sprint(i), Reason: long})
	}
	sample.Choice = (&Selection{Page: 1}).Choose(declared)
	sample.Unanswered = map[string]string{"n1": long}
	v := (&Builder{}).View(sample)
	text, err := json.Marshal(v)
	if err != nil || len(text) > 2<<20 || !utf8.Valid(text) {
		t.Errorf("%d bytes of JSON, %v; want at most 2 MiB", len(text), err)
	}
	if len(declared[0].Problem) != len(long) || len(sample.Overview.Status.Findings[0].Seen) != len(long) || len(sample.Overview.Nodes[0].Reason) != len(long) {
		t.Error("what other readers share was changed")
	}
}

func TestSelectionChooses(t *testing.T) {
	active := func(n uint64) *uint64 { return &n }
	all := []Declared{
		{Name: "a/one", Addresses: []string{"192.0.2.1"}, Active: active(1), Verdict: finding.OK},
		{Name: "a/two", Listeners: []DeclaredListener{{Name: "dns", Protocol: "UDP", Port: 53, Routes: []string{"UDPRoute/a/names"}}}, Problem: "x", Verdict: finding.Warning, Active: active(9)},
		{Name: "b/three", Problem: "x", Verdict: finding.Failed},
	}
	for query, want := range map[string][]string{
		"":                  {"b/three", "a/two", "a/one"},
		"sort=name":         {"a/one", "a/two", "b/three"},
		"sort=busy":         {"a/two", "a/one", "b/three"},
		"q=192.0.2.1":       {"a/one"},
		"q=%3A53%2Fudp":     {"a/two"},
		"q=NAMES":           {"a/two"},
		"problems=1":        {"b/three", "a/two"},
		"q=no":              {},
		"q=no&open=a%2Fone": {"a/one"},
		"open=gone&q=thr":   {"b/three"},
	} {
		s, err := ParseSelection(query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
			continue
		}
		c := s.Choose(all)
		if diff := cmp.Diff(want, c.Names()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", query, diff)
		}
	}
	for _, query := range []string{"page=0", "page=x", "sort=up", "q=a&q=b", "unknown=1", "q=%ff", "q=" + string(make([]byte, 500)), "page=99999999999999999999"} {
		if s, err := ParseSelection(query); err == nil {
			t.Errorf("%q: %+v, want an error", query, s)
		}
	}
}
