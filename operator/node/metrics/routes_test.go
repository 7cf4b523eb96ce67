// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"bytes"
	"errors"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/e2e/lib/golden"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/announce"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

var routeSizes = datapath.Sizes{Addresses: 8, Frontends: 8, Backends: 32, RingSlots: 1 << 18, Refs: 8, Flows: 64}

// routeState is a route at two listeners of a Gateway, one of whose Services has no
// endpoint, and a frontend of another Gateway.
func routeState() lb.State {
	vip := netip.MustParseAddr("192.0.2.1")
	backend := func(addr, service string, port uint16, weight uint64) lb.Backend {
		return lb.Backend{Addr: netip.MustParseAddrPort(addr), Service: service, ServicePort: port, Weight: weight}
	}
	web := lb.Frontend{
		Addr: vip, Protocol: lb.TCP, Port: 80, Gateway: "prod/edge", Listener: "web", Route: "TCPRoute/shop/web",
		Refs: []lb.ServicePort{{Service: "shop/blue", Port: 80}, {Service: "shop/green", Port: 80}},
		Backends: []lb.Backend{
			backend("10.0.0.1:8080", "shop/blue", 80, lb.WeightUnit), backend("10.0.0.2:8080", "shop/blue", 80, lb.WeightUnit),
			backend("10.0.0.3:8080", "shop/blue", 80, 0),
		},
	}
	again := web
	again.Port, again.Listener = 81, "again"
	dns := lb.Frontend{
		Addr: netip.MustParseAddr("2001:db8::1"), Protocol: lb.UDP, Port: 53, Gateway: "prod/dns", Listener: "dns", Route: "UDPRoute/infra/dns",
		Refs:     []lb.ServicePort{{Service: "infra/dns", Port: 53}},
		Backends: []lb.Backend{backend("[2001:db8::5]:53", "infra/dns", 53, lb.WeightUnit)},
	}
	s := lb.State{Addresses: []lb.Address{{IP: vip}, {IP: dns.Addr}}, Frontends: []lb.Frontend{web, again, dns}}
	s.Normalize()
	return s
}

// tableOf has routeState in it, and the program has counted there.
func tableOf(t *testing.T, sizes datapath.Sizes) (*datapath.Fake, DataPlane) {
	t.Helper()
	fake := datapath.NewFake(sizes)
	d := dataPlane(t, fake)
	for key, f := range index(t, fake) {
		if key.Protocol == lb.TCP && key.Port == 80 {
			fake.CountersOf[f] = bpf.BlixtFrontendCounters{NewFlows: 5, Rejected: 1, Packets: 20, Bytes: 2000, ReplyPackets: 30, ReplyBytes: 30000}
			fake.RTTOf[f] = datapath.Latency{Sum: 3 << 10, Counts: [21]uint64{1, 0, 0, 0, 2}}
		}
	}
	for i := range fake.RefsOf {
		if fake.RefsOf[i].Key == blue.Hash() {
			fake.RefsOf[i].Flows, fake.RefsOf[i].Answered, fake.RefsOf[i].Reset, fake.RefsOf[i].Unreachable = 5, 2, 1, 1
			fake.RefsOf[i].Connect = datapath.Latency{Sum: 1 << 20, Counts: [21]uint64{14: 2}}
			fake.SetUnanswered(uint32(i), blue.Hash(), 1)
		}
	}
	return fake, d
}

var blue = lb.BackendRef{Gateway: "prod/edge", Route: "TCPRoute/shop/web", ServicePort: lb.ServicePort{Service: "shop/blue", Port: 80}, Protocol: lb.TCP}

// dataPlane is that of a process that begins.
func dataPlane(t *testing.T, tables writer.Tables) DataPlane {
	t.Helper()
	d := DataPlane{Tables: tables, Writer: writer.New(tables, writer.Options{}), Announcer: announce.New(tables, announce.Options{})}
	if _, err := d.Writer.Apply(t.Context(), routeState()); err != nil {
		t.Fatal(err)
	}
	return d
}

func index(t *testing.T, tables datapath.Tables) map[lb.Key]uint32 {
	t.Helper()
	entries, err := tables.Frontends()
	if err != nil {
		t.Fatal(err)
	}
	all := map[lb.Key]uint32{}
	for key, e := range entries {
		all[key] = e.Index
	}
	return all
}

func gatherRoutes(d DataPlane, which Routes) []*dto.MetricFamily {
	page := scrape.NewPage(slog.New(slog.DiscardHandler))
	AddRoutes(page, func(read func(DataPlane) error) error { return read(d) }, which)
	families, _ := page.Gather()
	return families
}

func text(t *testing.T, families []*dto.MetricFamily) string {
	t.Helper()
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestRoutes(t *testing.T) {
	for _, which := range []Routes{AllRoutes, SeenRoutes} {
		_, d := tableOf(t, routeSizes)
		families := gatherRoutes(d, which)
		golden.File(t, "testdata/routes-"+string(which)+".txt", []byte(text(t, families)))
		problems, err := promlint.NewWithMetricFamilies(families).Lint()
		if err != nil || len(problems) > 0 {
			t.Errorf("promlint: %v, %v", problems, err)
		}
	}
	_, d := tableOf(t, routeSizes)
	if got := gatherRoutes(d, NoRoutes); len(got) > 0 {
		t.Errorf("off: %v", got)
	}
}

// An earlier program counts by frontend alone.
func TestRoutesOfEarlierProgram(t *testing.T) {
	sizes := routeSizes
	sizes.Refs = 0
	_, d := tableOf(t, sizes)
	got := text(t, gatherRoutes(d, AllRoutes))
	for _, name := range []string{"blixt_backend_connections_total", "blixt_frontend_client_rtt_seconds"} {
		if strings.Contains(got, name) {
			t.Errorf("%s is there", name)
		}
	}
	for _, name := range []string{"blixt_frontend_connections_total", "blixt_backend_endpoints"} {
		if !strings.Contains(got, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

// Another process goes on with the same numbers, and with those of the names that there
// are now.
func TestRoutesAfterRestart(t *testing.T) {
	fake, d := tableOf(t, routeSizes)
	before := text(t, gatherRoutes(d, AllRoutes))
	if after := text(t, gatherRoutes(dataPlane(t, fake), AllRoutes)); before != after {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	renamed := routeState()
	for i := range renamed.Frontends {
		renamed.Frontends[i].Gateway += "-2"
	}
	if _, err := d.Writer.Apply(t.Context(), renamed); err != nil {
		t.Fatal(err)
	}
	got := text(t, gatherRoutes(d, AllRoutes))
	if strings.Contains(got, `gateway="edge"`) || !strings.Contains(got, `gateway="edge-2"`) {
		t.Errorf("names are not those of the state:\n%s", got)
	}
	if !strings.Contains(got, `blixt_backend_connections_total{backend="blue",backend_namespace="shop",backend_port="80",gateway="edge-2",gateway_namespace="prod",protocol="tcp",route="web",route_namespace="shop"} 0`) {
		t.Errorf("another backendRef does not begin at 0:\n%s", got)
	}
}

// Endpoints come and go, all of them at last: what their backendRef has counted stays.
func TestRoutesUnderChurn(t *testing.T) {
	_, d := tableOf(t, routeSizes)
	const series = `blixt_backend_connections_total{backend="blue",backend_namespace="shop",backend_port="80",gateway="edge",gateway_namespace="prod",protocol="tcp",route="web",route_namespace="shop"} 5`
	for step := range byte(6) {
		s := routeState()
		for i := range s.Frontends {
			f := &s.Frontends[i]
			if f.Protocol != lb.TCP {
				continue
			}
			if f.Backends = f.Backends[:1]; step%3 == 2 {
				f.Backends = nil
			} else {
				f.Backends[0].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, step}), 8080)
			}
		}
		if _, err := d.Writer.Apply(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := text(t, gatherRoutes(d, SeenRoutes)); !strings.Contains(got, series) {
			t.Errorf("step %d: no %s in\n%s", step, series, got)
		}
	}
}

// failingTables cannot read the counters of frontends.
type failingTables struct{ *datapath.Fake }

func (failingTables) FirstFrontendCounters(int) ([]datapath.FrontendCounters, error) {
	return nil, errors.New("fault")
}

// What cannot be read is counted, and the rest is there.
func TestRoutesFail(t *testing.T) {
	fake, d := tableOf(t, routeSizes)
	d.Tables = failingTables{fake}
	got := text(t, gatherRoutes(d, SeenRoutes))
	for _, line := range []string{`blixt_scrape_errors_total{part="routes"} 1`, "blixt_backend_connections_total{"} {
		if !strings.Contains(got, line) {
			t.Errorf("no %s in\n%s", line, got)
		}
	}
}

// Each slot is counted in the native bucket, and in the classic ones, in which its
// values belong.
func TestLatency(t *testing.T) {
	for slot := range len(datapath.Latency{}.Counts) {
		l := datapath.Latency{}
		l.Counts[slot] = 3
		value := math.Ldexp(1, slot-14) // seconds: the largest of the slot
		h := newLatency(l)
		if h.GetSampleCount() != 3 {
			t.Errorf("slot %d: count %d", slot, h.GetSampleCount())
		}
		for _, b := range h.Bucket {
			if got := b.GetCumulativeCount() == 3; got != (value <= b.GetUpperBound()) {
				t.Errorf("slot %d, up to %v s: le %v has %d", slot, value, b.GetUpperBound(), b.GetCumulativeCount())
			}
		}
		if slot == 0 {
			if h.GetZeroCount() != 3 || h.GetZeroThreshold() != value || len(h.PositiveSpan) != 0 {
				t.Errorf("slot 0: %v", h)
			}
			continue
		}
		if len(h.PositiveSpan) != 1 || h.PositiveSpan[0].GetLength() != 1 || h.PositiveDelta[0] != 3 ||
			math.Ldexp(1, int(h.PositiveSpan[0].GetOffset())) != value {
			t.Errorf("slot %d, up to %v s: %v", slot, value, h)
		}
	}
	all := datapath.Latency{Sum: 1 << 21}
	total := uint64(0)
	for slot := range all.Counts {
		all.Counts[slot] = uint64(slot % 4)
		total += uint64(slot % 4)
	}
	h := newLatency(all)
	sum, bucket := h.GetZeroCount(), int64(0)
	for _, delta := range h.PositiveDelta {
		bucket += delta
		sum += uint64(bucket)
	}
	if sum != total || h.GetSampleCount() != total || h.GetSampleSum() != 2 || len(h.Bucket) != 8 {
		t.Errorf("sum of buckets %d, want %d: %v", sum, total, h)
	}
}
