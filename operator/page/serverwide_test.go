// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// wide is a Source with many Gateways and nodes, each of which answers as a node in a
// scope does.
type wide struct {
	gateways, nodes, backends int
	looks                     atomic.Uint64
	overview                  atomic.Pointer[Overview]
}

func (w *wide) Overview(context.Context) (*Overview, error) {
	if o := w.overview.Load(); o != nil {
		return o, nil
	}
	o := &Overview{Kind: "cluster", Name: "wide", Status: Status{Verdict: finding.OK}}
	for g := range max(1, w.gateways) {
		o.Gateways = append(o.Gateways, Declared{
			Name: fmt.Sprintf("team-%d/web-%d", g%20, g), Addresses: []string{fmt.Sprintf("192.0.%d.%d", g/256, g%256)}, Verdict: finding.OK,
			Listeners: []DeclaredListener{{Name: "http", Protocol: "TCP", Port: 80, Routes: []string{fmt.Sprintf("TCPRoute/team-%d/web-%d", g%20, g)}}},
		})
	}
	for n := range max(1, w.nodes) {
		o.Nodes = append(o.Nodes, Node{Name: fmt.Sprintf("node-%d", n), Verdict: finding.OK, Version: "v1"})
	}
	w.overview.Store(o)
	return o, nil
}

func (w *wide) Ask(_ context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	if q.Status == nil {
		return nil
	}
	look := w.looks.Add(1)
	var r top.Report
	for i, name := range q.Status.Scope.Gateways {
		f := writer.FrontendStatus{Frontend: fmt.Sprintf("192.0.2.%d:80/tcp", i), Gateway: name, Listener: "http", Route: "TCPRoute/" + name, Index: uint32(i), NewFlows: look * uint64(i)}
		for b := range w.backends {
			f.Backends = append(f.Backends, writer.BackendStatus{Address: fmt.Sprintf("10.0.%d.%d:8080", i, b), ID: uint32(100*i + b), Service: name, State: "serving", Weight: 1, NewFlows: look})
		}
		r.Frontends = append(r.Frontends, f)
		r.Refs = append(r.Refs, top.Ref{Gateway: name, Route: "TCPRoute/" + name, Service: name, Port: 80, Protocol: "TCP", Flows: look, Connects: make([]uint64, 16)})
	}
	r.Totals, r.Counters = &top.Totals{Frontends: w.gateways, NewFlows: look}, map[string]uint64{"drop_no_route": look}
	piece, err := json.Marshal(r)
	if err != nil {
		return err
	}
	for n := range max(1, w.nodes) {
		if err := got(fmt.Sprintf("node-%d", n), slices.Clone(piece)); err != nil {
			return err
		}
	}
	return nil
}

// The size of a View does not grow with what is served.
func TestViewsOfWideSourcesAreBounded(t *testing.T) {
	h := newHandler(t, Options{Source: &wide{gateways: 4000, nodes: 50, backends: 100}, Every: 4 * time.Second})
	if w := get(h, "/api/view?open=team-1%2Fweb-1"); w.Code != http.StatusOK || w.Body.Len() > 512<<10 {
		t.Errorf("%d, %d bytes", w.Code, w.Body.Len())
	}
}

// BenchmarkReaders measures what a View costs the process, by how many readers of one
// selection, and what a stream has in bytes.
func BenchmarkReaders(b *testing.B) {
	for _, size := range []struct{ gateways, nodes, backends int }{{3, 1, 3}, {4000, 1, 4}, {4000, 200, 4}} {
		for _, readers := range []int{1, 20} {
			b.Run(fmt.Sprintf("gateways=%d/nodes=%d/readers=%d", size.gateways, size.nodes, readers), func(b *testing.B) {
				const every = 50 * time.Millisecond
				address := serve(b, Endpoint{}, Options{Source: &wide{gateways: size.gateways, nodes: size.nodes, backends: size.backends}, Every: every})
				var nexts []func() event
				for range readers {
					a, _ := open(b, "http://"+address+"/events")
					nexts = append(nexts, events(b, a.Body))
				}
				views, bytes := 0, 0
				before := cpu(b)
				for b.Loop() {
					for _, next := range nexts {
						e := next()
						if e.name != eventView {
							b.Fatalf("%s %s", e.name, e.data)
						}
						views, bytes = views+1, bytes+len(e.data)
					}
				}
				b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/interval")
				b.ReportMetric(float64(bytes)/float64(views), "B/view")
			})
		}
	}
}

// cpu returns how much this process has used.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
