// SPDX-License-Identifier: Apache-2.0

package page

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// checkView returns what no View may be, whatever nodes report: rates are neither negative
// nor beyond numbers, shares are from 0 to 1, it is JSON, and no larger than a page.
func checkView(v *View) (problems []string) {
	text, err := json.Marshal(v)
	if err != nil {
		return []string{err.Error()}
	}
	if len(text) > largestView {
		problems = append(problems, fmt.Sprintf("%d bytes", len(text)))
	}
	var back View
	if err := json.Unmarshal(text, &back); err != nil {
		problems = append(problems, err.Error())
	}
	var walk func(at string, value reflect.Value)
	walk = func(at string, value reflect.Value) {
		switch value.Kind() {
		case reflect.Pointer, reflect.Interface:
			if !value.IsNil() {
				walk(at, value.Elem())
			}
		case reflect.Struct:
			for i := range value.NumField() {
				if value.Type().Field(i).IsExported() {
					walk(at+"."+value.Type().Field(i).Name, value.Field(i))
				}
			}
		case reflect.Slice:
			for i := range value.Len() {
				walk(fmt.Sprintf("%s[%d]", at, i), value.Index(i))
			}
		case reflect.Float64:
			f := value.Float()
			if f < 0 || math.IsNaN(f) || math.IsInf(f, 0) {
				problems = append(problems, fmt.Sprintf("%s is %v", at, f))
			}
			share := strings.HasSuffix(at, ".Wanted") || strings.HasSuffix(at, ".Seen") || strings.HasSuffix(at, ".RejectShare")
			if share && f > 1+1e-9 {
				problems = append(problems, fmt.Sprintf("%s is a share of %v", at, f))
			}
		case reflect.Int:
			if value.Int() < 0 && at != ".V" {
				problems = append(problems, fmt.Sprintf("%s is %d", at, value.Int()))
			}
		}
	}
	walk("", reflect.ValueOf(*v))
	return problems
}

// largestView is how many bytes a View may have.
const largestView = 4 << 20

// hostile returns a report as no node would make it: names that are huge, in several places
// or no UTF-8, shares and counters that are too large.
func hostile(r *rand.Rand) (out top.Report) {
	names := []string{"a/web", "a/web", "b/web", "", "</script><img src=x onerror=alert(1)>", "\xff\xfe", strings.Repeat("n", 1<<r.IntN(12)), "a/\u202eweb"}
	name := func() string { return names[r.IntN(len(names))] }
	number := func() uint64 {
		return []uint64{0, 1, uint64(r.IntN(1000)), math.MaxUint64, 1 << 63, uint64(r.IntN(1 << 30))}[r.IntN(6)]
	}
	share := func() float64 {
		return []float64{0, 0.5, 1, -1, 7, math.MaxFloat64, -math.MaxFloat64, r.Float64()}[r.IntN(8)]
	}
	for range r.IntN(40) {
		f := writer.FrontendStatus{
			Frontend: name(), Gateway: name(), Listener: name(), Route: name(), Index: uint32(r.IntN(3)), RejectShare: share(),
			NewFlows: number(), ActiveFlows: number(), Rejected: number(), Bytes: number(), ReplyBytes: number(), MoreBackends: r.IntN(5) - 2,
		}
		for range r.IntN(60) {
			f.Backends = append(f.Backends, writer.BackendStatus{
				Address: name(), ID: uint32(r.IntN(3)), Service: name(), State: []string{"serving", "draining", "not-serving", "", name()}[r.IntN(5)],
				Weight: share(), RingShare: share(), NewFlows: number(), ActiveFlows: number(),
			})
		}
		for range r.IntN(3) {
			f.Services = append(f.Services, writer.ServiceStatus{Service: name(), Ready: r.IntN(5) - 2, Draining: r.IntN(5) - 2, RingShare: share(), NewFlows: number(), ActiveFlows: number()})
		}
		out.Frontends = append(out.Frontends, f)
	}
	for range r.IntN(20) {
		ref := top.Ref{Gateway: name(), Route: name(), Service: name(), Port: uint16(r.IntN(3)), Protocol: name(), Flows: number(), Refused: number(), Unanswered: number(), ConnectSum: share()}
		for range r.IntN(30) {
			ref.Connects = append(ref.Connects, number())
		}
		out.Refs = append(out.Refs, ref)
	}
	if r.IntN(2) == 0 {
		out.Totals = &top.Totals{Frontends: r.IntN(5) - 2, Backends: r.IntN(5) - 2, NewFlows: number(), ActiveFlows: number(), Bytes: number()}
	}
	out.Counters = map[string]uint64{"drop_no_route": number(), "drop_" + name(): number(), name(): number(), "reject_": number()}
	return out
}

// TestViewOfHostileNodes: a node that is broken, or in somebody's hands, spoils no page.
func TestViewOfHostileNodes(t *testing.T) {
	for seed := range uint64(60) {
		checkHostile(t, seed, 3)
	}
}

func checkHostile(t *testing.T, seed uint64, looks int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	b := Builder{Every: 2 * time.Second}
	declared := []Declared{
		{Name: "a/web", Verdict: finding.OK, Listeners: []DeclaredListener{{Name: "a/web"}, {Name: "a/web"}, {Name: ""}}},
		{Name: "b/web", Verdict: "worse than all"}, {Name: ""}, {Name: "a/web"},
	}
	for look := range looks {
		s := Selection{Page: r.IntN(3), Open: []string{"", "a/web", "none"}[r.IntN(3)]}
		sample := &Sample{
			Time: noon.Add(time.Duration(2*look+r.IntN(3)-1) * time.Second), Choice: s.Choose(declared), Reports: map[string]top.Report{},
			Overview: &Overview{Kind: "cluster", Gateways: declared, Nodes: []Node{{Name: "n", Verdict: "none"}, {Name: "n"}}},
			Flows:    []observe.Record{{Client: observe.Endpoint{}, Duration: 1}},
		}
		for n := range r.IntN(4) {
			// What a node sends is JSON.
			text, err := json.Marshal(hostile(r))
			if err != nil {
				t.Fatal(err)
			}
			var report top.Report
			if err := json.Unmarshal(text, &report); err != nil {
				t.Fatal(err)
			}
			sample.Reports[fmt.Sprint("n", n)] = report
		}
		if problems := checkView(b.View(sample)); len(problems) > 0 {
			t.Fatalf("seed %d, look %d: %d problems: %.1000q", seed, look, len(problems), problems)
		}
	}
}

// FuzzView has the fuzzer choose what nodes answer, as text.
func FuzzView(f *testing.F) {
	for seed := range uint64(5) {
		text, err := json.Marshal(hostile(rand.New(rand.NewPCG(seed, 2))))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte(`{"frontends":[{"frontend":"192.0.2.1:80/tcp","gateway":"a/web","backends":[{"address":"x","ringShare":1e308}]}]}`))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		b := Builder{}
		for look, text := range [][]byte{first, second, first} {
			var report top.Report
			if json.Unmarshal(text, &report) != nil {
				return
			}
			if problems := checkView(b.View(sampleAt(2*look, map[string]top.Report{"n1": report, "n2": report}))); len(problems) > 0 {
				t.Fatalf("look %d: %q", look, problems)
			}
		}
	})
}

// TestSumsAddUp: what a Gateway has is what its listeners have, and they what backends have.
func TestSumsAddUp(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	reports := func() map[string]top.Report {
		all := map[string]top.Report{}
		for n := range 5 {
			report := web(uint64(100 + n + r.IntN(1000)))
			report.Totals.NewFlows = 0
			for i := range report.Frontends {
				f := &report.Frontends[i]
				f.NewFlows = 0
				for _, backend := range f.Backends {
					f.NewFlows += backend.NewFlows
				}
				report.Totals.NewFlows += f.NewFlows
			}
			all[fmt.Sprint("n", n)] = report
		}
		return all
	}
	b := Builder{}
	was := reports()
	b.View(sampleAt(0, was))
	now := reports()
	for name, n := range now { // counters only grow
		for i := range n.Frontends {
			f, before := &n.Frontends[i], &was[name].Frontends[i]
			f.NewFlows, f.Bytes, f.ReplyBytes = f.NewFlows+before.NewFlows, f.Bytes+before.Bytes, f.ReplyBytes+before.ReplyBytes
			for j := range f.Backends {
				f.Backends[j].NewFlows += before.Backends[j].NewFlows
			}
		}
		n.Totals.NewFlows += was[name].Totals.NewFlows
	}
	v := b.View(sampleAt(2, now))
	g := v.Gateways[0]
	listeners, services, backends := 0.0, 0.0, 0.0
	for _, l := range g.Listeners {
		listeners += value(l.NewFlows)
		wanted, seen := 0.0, 0.0
		for _, s := range l.Services {
			services += value(s.NewFlows)
			wanted, seen = wanted+s.Wanted, seen+s.Seen
			for _, one := range s.Backends {
				backends += value(one.NewFlows)
			}
		}
		if len(l.Services) > 0 && (math.Abs(wanted+l.RejectShare-1) > 1e-9 || math.Abs(seen-1) > 1e-9) {
			t.Errorf("listener %s: shares of %v wanted, %v refused, %v seen", l.Name, wanted, l.RejectShare, seen)
		}
	}
	for what, got := range map[string]float64{"its listeners": listeners, "its Services": services, "its backends": backends, "all": value(v.Totals.NewFlows)} {
		if math.Abs(got-value(g.NewFlows)) > 1e-6 || got == 0 {
			t.Errorf("the Gateway has %v flows a second, %s %v", value(g.NewFlows), what, got)
		}
	}
}
