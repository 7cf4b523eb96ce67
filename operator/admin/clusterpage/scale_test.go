// SPDX-License-Identifier: Apache-2.0

package clusterpage

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubernetes-sigs/blixt/operator/admin/doctor"
	"github.com/kubernetes-sigs/blixt/operator/api/v1alpha1"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// The size of a cluster that a page must show.
const (
	largeNodes    = 200
	largeGateways = 4000
	largeBackends = 20 // of a frontend
)

func largeFacts() *doctor.Facts {
	f := newFacts()
	for i := range largeGateways {
		name := fmt.Sprintf("gateway-%04d", i)
		f.Gateways = append(f.Gateways, newGateway(name))
		f.TCPRoutes = append(f.TCPRoutes, newRoute("prod", name, gwv1.ParentReference{Name: gwv1.ObjectName(name)}, routeAccepted))
	}
	for i := range largeNodes {
		f.Dataplanes = append(f.Dataplanes, v1alpha1.NodeDataplane{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%03d", i)},
			Status: v1alpha1.NodeDataplaneStatus{
				Kernel: "6.12.1", Conditions: []metav1.Condition{is("Ready", "Serving", "", metav1.ConditionTrue)},
				Applications: []v1alpha1.ApplicationStatus{{Frontends: largeGateways, Backends: largeGateways * largeBackends, Bytecode: v1alpha1.BytecodeStatus{Digest: "sha256:0123456789abcdef"}}},
			},
		})
	}
	return f
}

// crowd are nodes that answer in the scope that they are asked for.
type crowd struct{ bytes, asked atomic.Int64 }

func (c *crowd) Ask(_ context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	if q.Status == nil {
		return nil
	}
	c.asked.Add(1)
	text, err := json.Marshal(report(q.Status.Scope))
	for i := range largeNodes {
		if err == nil {
			c.bytes.Add(int64(len(text)))
			err = got(fmt.Sprintf("node-%03d", i), text)
		}
	}
	return err
}

// report is the answer of a node.
func report(scope *observe.Scope) top.Report {
	r := top.Report{Status: writer.Status{Counters: map[string]uint64{"drop_no_route": 1, "reject_unserved": 2}}}
	r.Totals = &writer.Totals{Frontends: largeGateways, Backends: largeGateways * largeBackends, NewFlows: 123_456_789}
	room := scope.Backends
	for i, name := range scope.Gateways {
		f := writer.FrontendStatus{
			Frontend: fmt.Sprintf("192.0.2.%d:80/TCP", i+1), Gateway: name, Listener: "tcp", Route: "TCPRoute/" + name, Index: uint32(i), RingSize: 16381, IdleTimeout: "1h0m0s",
			NewFlows: 123_456_789, ActiveFlows: 12_345, Packets: 1 << 40, Bytes: 1 << 50, ReplyPackets: 1 << 40, ReplyBytes: 1 << 50,
			Services: []writer.ServiceStatus{{Service: name, Port: 80, Ready: largeBackends, RingShare: 1, NewFlows: 123_456_789}},
		}
		n := min(largeBackends, max(1, room/(len(scope.Gateways)-i)))
		for b := range n {
			f.Backends = append(f.Backends, writer.BackendStatus{
				Address: fmt.Sprintf("10.%d.0.%d:8080", i, b), ID: uint32(i*largeBackends + b), Service: name, ServicePort: 80, State: "serving", Weight: 1, RingShare: 0.05, FlowShare: 0.05, NewFlows: 6_172_839,
			})
		}
		room, f.MoreBackends = room-n, largeBackends-n
		r.Frontends = append(r.Frontends, f)
		r.Refs = append(r.Refs, top.Ref{Gateway: name, Route: f.Route, Service: name, Port: 80, Protocol: "TCP", Flows: 123_456_789, Connects: make([]uint64, 21)})
	}
	return r
}

// cpu is the time that this process has computed for.
func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestLargeCluster: what a look costs the operator, and what a browser gets, do not grow
// with what is served. CPU time counts, as other tests take time.
func TestLargeCluster(t *testing.T) {
	nodes, f := &crowd{}, largeFacts()
	s := New(Options{Asker: nodes, Facts: func(context.Context) (*doctor.Facts, error) { return f, nil }})
	h, err := page.NewHandler(page.Options{Source: s, Every: Every})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	look := func(query string) int {
		r := httptest.NewRequest(http.MethodGet, "http://localhost/api/view"+query, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("%d: %s", w.Code, w.Body)
		}
		return w.Body.Len()
	}
	look("")
	s.until = time.Time{}
	began := cpu(t)
	_, err = s.Overview(t.Context())
	overview := cpu(t) - began
	for _, query := range []string{"?page=7", "?q=gateway-1", "?open=prod/gateway-3999"} {
		time.Sleep(fresh) // so that all is read again
		before, asked := nodes.bytes.Load(), nodes.asked.Load()
		began := cpu(t)
		size := look(query)
		took, answers := cpu(t)-began, nodes.bytes.Load()-before
		t.Logf("%s: %v of CPU, answers of %d nodes %.1f MB (asked %d times), a View of %d KB", query, took.Round(time.Millisecond), largeNodes, float64(answers)/1e6, nodes.asked.Load()-asked, size>>10)
		if took > 2*time.Second || answers > 16<<20 || size > 512<<10 {
			t.Errorf("%s: that is too much", query)
		}
	}
	if t.Logf("an overview alone: %v of CPU", overview.Round(time.Millisecond)); err != nil || overview > time.Second {
		t.Errorf("%v of CPU, %v", overview, err)
	}
}
