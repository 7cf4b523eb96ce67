// SPDX-License-Identifier: Apache-2.0

package otlp

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// receiver is a collector.
type receiver struct {
	collector.UnimplementedLogsServiceServer
	// answer is called with each request before it is taken; nil: all are.
	answer func(context.Context) (*collector.ExportLogsServiceResponse, error)

	mu      sync.Mutex
	took    []*logs.LogRecord
	service string
	largest int // request, in records
}

func (r *receiver) Export(ctx context.Context, q *collector.ExportLogsServiceRequest) (*collector.ExportLogsServiceResponse, error) {
	answer := &collector.ExportLogsServiceResponse{}
	if r.answer != nil {
		a, err := r.answer(ctx)
		if err != nil {
			return nil, err
		}
		answer = a
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, resource := range q.ResourceLogs {
		for _, kv := range resource.Resource.Attributes {
			if kv.Key == "service.name" {
				r.service = kv.Value.GetStringValue()
			}
		}
		for _, scope := range resource.ScopeLogs {
			r.took = append(r.took, scope.LogRecords...)
			n += len(scope.LogRecords)
		}
	}
	r.largest = max(r.largest, n)
	return answer, nil
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.took)
}

// serve serves at an address until the test ends.
func (r *receiver) serve(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	collector.RegisterLogsServiceServer(s, r)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Serve(l) })
	t.Cleanup(func() { s.Stop(); wg.Wait() })
	return l.Addr().String()
}

// fleet has nodes send pieces, and then waits.
type fleet struct {
	pieces  []json.RawMessage
	broken  int
	passed  atomic.Int64
	allSent chan struct{}
}

func newFleet(pieces ...string) *fleet {
	f := &fleet{allSent: make(chan struct{})}
	for _, p := range pieces {
		f.pieces = append(f.pieces, json.RawMessage(p))
	}
	return f
}

func (f *fleet) Follow(ctx context.Context, _ observe.FlowsQuery, got func(string, json.RawMessage) error, lost func(int)) error {
	if f.broken > 0 {
		lost(f.broken)
	}
	for _, p := range f.pieces {
		if err := got("node-1", p); err != nil {
			return err
		}
		f.passed.Add(1)
	}
	close(f.allSent)
	<-ctx.Done()
	return ctx.Err()
}

func records(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf(`{"v":1,"event":"end","seq":%d,"time":"2026-11-28T09:12:03Z","protocol":"tcp","client":{"address":"198.51.100.7","port":4},"server":{"address":"192.0.2.10","port":443}}`, i+1))
	}
	return all
}

// start runs an exporter until the test, or the function that it returns, ends it.
func start(t *testing.T, address string, f *fleet, change func(*Exporter)) (e *Exporter, stop func()) {
	t.Helper()
	e, err := New(Options{Endpoint: "http://" + address, Registerer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	elected := make(chan struct{})
	close(elected)
	go func() { defer close(ended); e.Run(ctx, elected, f) }()
	stop = func() { cancel(); <-ended }
	t.Cleanup(stop)
	return e, stop
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute not yet: %s", what)
		}
	}
}

// counted returns how many were exported, missed, and refused.
func counted(e *Exporter) [3]int {
	return [3]int{int(testutil.ToFloat64(e.exported)), int(testutil.ToFloat64(e.missed)), int(testutil.ToFloat64(e.refused))}
}

func TestRecordsArrive(t *testing.T) {
	r := &receiver{}
	f := newFleet(
		`{"memory":{"recording":"all","began":"2026-11-28T09:00:00Z","missed":3}}`,
		`{"v":1,"event":"end","node":"somebody else","seq":7,"time":"2026-11-28T09:12:03Z","protocol":"tcp","reason":"fin","endedBy":"client","client":{"address":"198.51.100.7","port":40000},`+
			`"server":{"address":"192.0.2.10","port":443},"snat":{"address":"10.0.0.5","port":14211},"backend":{"address":"10.1.3.9","port":8443},"gateway":"prod/edge","listener":"tls",`+
			`"route":"TCPRoute/prod/web","service":"prod/web-svc","start":"2026-11-28T09:11:58Z","connect":0.5,"rtt":0.25,"duration":5,"in":{"packets":14,"bytes":1830},"out":{"packets":19,"bytes":22110},"later":{"a":1}}`,
		`{"v":1,"event":"dropped","time":"2026-11-28T09:12:04Z","protocol":"udp","reason":"drop_no_route","client":{"address":"2001:db8::7"},"server":{"address":"2001:db8::10","port":53},"interface":"eth0","sampled":9,"packet":"60"}`,
		`{"v":1,"event":"open","time":"2026-11-28T09:12:04Z","protocol":"udp","client":{"address":"192.0.2.1"},"server":{"address":"192.0.2.1"}}`,
		`{"event":7}`, `[]`, `{}`,
	)
	f.broken = 2
	e, stop := start(t, r.serve(t, "127.0.0.1:0"), f, nil)
	eventually(t, "two records", func() bool { return r.count() == 2 })
	stop()
	if got, want := counted(e), [3]int{2, 3 + 2 + 2, 0}; got != want {
		t.Errorf("exported and lost %v, want %v", got, want)
	}
	if r.service != "blixt" {
		t.Errorf("service.name is %q", r.service)
	}
	got := []map[string]string{}
	for _, l := range r.took {
		m := map[string]string{"event": l.EventName, "severity": l.SeverityText + l.SeverityNumber.String(), "time": time.Unix(0, int64(l.TimeUnixNano)).UTC().Format(time.RFC3339)}
		for _, kv := range l.Attributes {
			m[kv.Key] = text(kv.Value)
		}
		if !strings.Contains(l.Body.GetStringValue(), m["server.address"]) {
			t.Errorf("body %q", l.Body.GetStringValue())
		}
		got = append(got, m)
	}
	want := []map[string]string{
		{
			"event": "blixt.flow", "severity": "INFOSEVERITY_NUMBER_INFO", "time": "2026-11-28T09:12:03Z", "client.address": "198.51.100.7", "client.port": "40000", "server.address": "192.0.2.10", "server.port": "443",
			"network.transport": "tcp", "network.type": "ipv4", "k8s.node.name": "node-1", "blixt.flow.event": "end", "blixt.flow.reason": "fin", "blixt.flow.ended_by": "client",
			"blixt.flow.start": "2026-11-28T09:11:58Z", "blixt.flow.duration": "5", "blixt.flow.connect": "0.5", "blixt.flow.rtt": "0.25", "blixt.flow.packets.in": "14", "blixt.flow.bytes.in": "1830",
			"blixt.flow.packets.out": "19", "blixt.flow.bytes.out": "22110", "blixt.snat.address": "10.0.0.5", "blixt.snat.port": "14211", "blixt.backend.address": "10.1.3.9", "blixt.backend.port": "8443",
			"blixt.gateway.namespace": "prod", "blixt.gateway.name": "edge", "blixt.listener.name": "tls", "blixt.route.kind": "TCPRoute", "blixt.route.namespace": "prod", "blixt.route.name": "web",
			"blixt.service.namespace": "prod", "blixt.service.name": "web-svc",
		},
		{
			"event": "blixt.flow", "severity": "WARNSEVERITY_NUMBER_WARN", "time": "2026-11-28T09:12:04Z", "client.address": "2001:db8::7", "server.address": "2001:db8::10", "server.port": "53",
			"network.transport": "udp", "network.type": "ipv6", "k8s.node.name": "node-1", "blixt.flow.event": "dropped", "blixt.flow.reason": "drop_no_route", "error.type": "drop_no_route",
			"network.interface.name": "eth0", "blixt.flow.sampled": "9", "blixt.flow.packet": "60",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
}

func text(v *common.AnyValue) string {
	switch v := v.Value.(type) {
	case *common.AnyValue_StringValue:
		return v.StringValue
	case *common.AnyValue_IntValue:
		return fmt.Sprint(v.IntValue)
	case *common.AnyValue_DoubleValue:
		return fmt.Sprint(v.DoubleValue)
	}
	return v.String()
}

// While the collector is away, nodes wait: what the operator holds does not grow. When it
// comes back, all that waited arrives.
func TestCollectorIsAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const all = 5*maxBatch + 7
	f := newFleet(records(all)...)
	var tries atomic.Int64
	e, stop := start(t, address, f, func(e *Exporter) {
		e.pause = func(ctx context.Context, _ time.Duration) { tries.Add(1); sleep(ctx, time.Millisecond) }
	})
	eventually(t, "ten attempts", func() bool { return tries.Load() > 10 })
	if n := f.passed.Load(); n > 2*maxBatch+1 {
		t.Errorf("the operator has taken %d records, which it cannot send", n)
	}
	if got := counted(e); got != [3]int{} {
		t.Errorf("counted %v", got)
	}
	r := &receiver{}
	r.serve(t, address)
	eventually(t, "all records", func() bool { return r.count() == all })
	stop()
	if got := counted(e); got != [3]int{all, 0, 0} {
		t.Errorf("counted %v", got)
	}
	if r.largest > maxBatch {
		t.Errorf("a request has %d records", r.largest)
	}
}

// When a leader ends, what it holds is sent once, and counted if that fails.
func TestLeaderEnds(t *testing.T) {
	f := newFleet(records(maxBatch / 2)...)
	e, stop := start(t, "127.0.0.1:1", f, nil)
	<-f.allSent
	stop()
	if got := counted(e); got != [3]int{0, 0, maxBatch / 2} {
		t.Errorf("counted %v", got)
	}
}

// A collector that does not answer in time is asked again.
func TestCollectorIsSlow(t *testing.T) {
	var calls atomic.Int64
	r := &receiver{answer: func(ctx context.Context) (*collector.ExportLogsServiceResponse, error) {
		if calls.Add(1) == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &collector.ExportLogsServiceResponse{}, nil
	}}
	f := newFleet(records(3)...)
	e, stop := start(t, r.serve(t, "127.0.0.1:0"), f, func(e *Exporter) {
		e.timeout = time.Second
		e.pause = func(context.Context, time.Duration) { e.timeout = time.Minute }
	})
	eventually(t, "all records", func() bool { return r.count() == 3 })
	stop()
	if got := counted(e); got != [3]int{3, 0, 0} {
		t.Errorf("counted %v", got)
	}
}

// What the collector refuses is lost and counted, and what comes after it is sent.
func TestCollectorRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		answer *collector.ExportLogsServiceResponse
		err    error
		want   [3]int // of one record
	}{
		"unauthenticated":   {err: status.Error(codes.Unauthenticated, "who?"), want: [3]int{0, 0, 1}},
		"too large":         {err: status.Error(codes.ResourceExhausted, "message larger than max"), want: [3]int{0, 0, 1}},
		"one record of one": {answer: &collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 1, ErrorMessage: "old"}}, want: [3]int{0, 0, 1}},
		"more than it got":  {answer: &collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 1 << 40}}, want: [3]int{0, 0, 1}},
		"fewer than none":   {answer: &collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: -5}}, want: [3]int{1, 0, 0}},
		"a warning":         {answer: &collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{ErrorMessage: "careful"}}, want: [3]int{1, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &receiver{answer: func(context.Context) (*collector.ExportLogsServiceResponse, error) { return c.answer, c.err }}
			f := newFleet(records(1)...)
			e, stop := start(t, r.serve(t, "127.0.0.1:0"), f, nil)
			eventually(t, "a count", func() bool { return counted(e) != [3]int{} })
			stop()
			if got := counted(e); got != c.want {
				t.Errorf("counted %v, want %v", got, c.want)
			}
		})
	}
}

// One node's large records make a request no larger than collectors take.
func TestRequestsAreBounded(t *testing.T) {
	var pieces []string
	for i := range 300 {
		pieces = append(pieces, fmt.Sprintf(`{"v":1,"event":"end","seq":%d,"time":"2026-11-28T09:12:03Z","protocol":"tcp","client":{"address":"192.0.2.1"},"server":{"address":"192.0.2.2"},"listener":%q}`, i+1, strings.Repeat("x", 15<<10)))
	}
	r := &receiver{}
	e, stop := start(t, r.serve(t, "127.0.0.1:0"), newFleet(pieces...), nil)
	eventually(t, "all records", func() bool { return r.count() == len(pieces) })
	stop()
	if got := counted(e); got != [3]int{len(pieces), 0, 0} {
		t.Errorf("counted %v", got)
	}
}
