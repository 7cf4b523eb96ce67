// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

// Routes is which frontends and backendRefs have metrics of their own. All nodes serve
// all of them, so there may be many. It is a flag.
type Routes string

// Which have metrics of their own.
const (
	// AllRoutes have.
	AllRoutes Routes = "all"
	// SeenRoutes are those of which this node has seen a packet.
	SeenRoutes Routes = "seen"
	NoRoutes   Routes = "off"
)

// String implements pflag.Value.
func (r *Routes) String() string { return string(cmp.Or(*r, SeenRoutes)) }

// Type implements pflag.Value.
func (*Routes) Type() string { return "all|seen|off" }

// Set implements pflag.Value.
func (r *Routes) Set(text string) error {
	switch *r = Routes(text); *r {
	case AllRoutes, SeenRoutes, NoRoutes:
		return nil
	}
	return errors.New("want all, seen or off")
}

// Labels of frontends, and of backendRefs: names that scrapers give targets, such as
// namespace and service, are not among them.
var (
	frontendLabels = []string{"gateway_namespace", "gateway", "listener", "route_namespace", "route", "address", "port", "protocol"}
	refLabels      = []string{"gateway_namespace", "gateway", "route_namespace", "route", "backend_namespace", "backend", "backend_port", "protocol"}
)

var (
	frontendConnections = newFamily("frontend_connections_total", "Flows that began, by frontend.", frontendLabels)
	frontendActive      = newFamily("frontend_active_flows", "Flows of a frontend that have not ended, at the last count. TCP: established ones.", frontendLabels)
	frontendRejected    = newFamily("frontend_rejected_packets_total", "Packets that were rejected for want of a backend.", frontendLabels)
	frontendPackets     = newFamily("frontend_packets_total", "Packets of flows, from clients (in) and to them (out).", frontendLabels, "direction")
	frontendBytes       = newFamily("frontend_bytes_total", "Bytes of these packets, from the IP header on.", frontendLabels, "direction")
	clientRTT           = newHistogram("frontend_client_rtt_seconds", "TCP: from a backend's SYN-ACK to the client's next segment, as seen by this node.", frontendLabels)

	refConnections = newFamily("backend_connections_total", "Flows that began, by the backendRef whose endpoint they got.", refLabels)
	refActive      = newFamily("backend_active_flows", "Flows of a backendRef that have not ended, at the last count. TCP: established ones.", refLabels)
	refUnanswered  = newFamily("backend_unanswered_total", "Flows that have ended without an answer or a refusal. They are counted some time after that.", refLabels)
	refRefused     = newFamily("backend_refused_total", "Flows that were refused before there was an answer: by a RST of the endpoint (reset), or an ICMP error (icmp).", refLabels, "by")
	connectTime    = newHistogram("backend_connect_duration_seconds", "TCP: from a client's first SYN to the endpoint's SYN-ACK, as seen by this node.", refLabels)
	refEndpoints   = newFamily("backend_endpoints", "Endpoints of a backendRef that this node may use: those that get new flows (ready), and those that keep theirs (draining).", refLabels, "state")
)

// family is a metric whose families are made without a registry.
type family struct {
	name, help string
	kind       dto.MetricType
}

func newFamily(name, help string, labels []string, more ...string) family {
	describe(name, help, slices.Concat(labels, more)...)
	kind := dto.MetricType_GAUGE
	if strings.HasSuffix(name, "_total") {
		kind = dto.MetricType_COUNTER
	}
	return family{"blixt_" + name, help, kind}
}

// histograms are the descriptors of histograms.
var histograms = map[*prometheus.Desc]bool{}

func newHistogram(name, help string, labels []string) family {
	histograms[describe(name, help, labels...)] = true
	return family{"blixt_" + name, help, dto.MetricType_HISTOGRAM}
}

// IsHistogram implements scrape.IsHistogram.
func (described) IsHistogram(d *prometheus.Desc) bool { return histograms[d] }

// AddRoutes adds the metrics of frontends and backendRefs.
func AddRoutes(page *scrape.Page, source Source, which Routes) {
	if which == NoRoutes {
		return
	}
	r := &routes{all: which == AllRoutes}
	page.Add("routes", described{prometheus.GathererFunc(func() (families []*dto.MetricFamily, err error) {
		err = source(func(d DataPlane) (err error) {
			families, err = r.gather(d)
			return err
		})
		return families, err
	})})
}

// routes gathers metrics of frontends and backendRefs. Names are made ready when they
// change: then a scrape costs little more than reading and printing numbers.
type routes struct {
	all   bool // not only what was seen
	names atomic.Pointer[routeNames]
}

// routeNames are of one state of a writer, and never change.
type routeNames struct {
	writer    *writer.Writer
	number    uint64 // writer.Metrics.Names
	frontends []frontendNames
	refs      []refNames
	indexes   int // one more than the largest index of a frontend
}

type frontendNames struct {
	labels, in, out []*dto.LabelPair
	index           uint32
	tcp             bool
}

type refNames struct {
	labels, reset, icmp, ready, draining []*dto.LabelPair
	key                                  uint64
	tcp                                  bool
	endpoints                            [2]int // ready, draining
	frontends                            []int  // of routeNames
}

func (r *routes) gather(d DataPlane) ([]*dto.MetricFamily, error) {
	m, err := d.Writer.Metrics()
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	names := r.names.Load()
	if names == nil || names.writer != d.Writer || names.number != m.Names {
		names = newRouteNames(d.Writer, m)
		r.names.Store(names)
	}
	var all families
	seen, err := r.gatherFrontends(&all, names, d.Tables, m.Flows)
	return all.list, errors.Join(err, r.gatherRefs(&all, names, seen, d.Tables, m.Flows))
}

// gatherFrontends returns which frontends were seen.
func (r *routes) gatherFrontends(all *families, names *routeNames, t writer.Tables, flows writer.FlowCounts) (seen []bool, err error) {
	seen = make([]bool, len(names.frontends))
	counters, err := t.FirstFrontendCounters(names.indexes)
	if err != nil {
		return seen, err
	}
	n := len(names.frontends)
	connections, active, rejected := all.of(frontendConnections, n), all.of(frontendActive, n), all.of(frontendRejected, n)
	packets, bytes, rtt := all.of(frontendPackets, 2*n), all.of(frontendBytes, 2*n), all.of(clientRTT, n)
	for i := range names.frontends {
		f := &names.frontends[i]
		if int(f.index) >= len(counters) {
			continue
		}
		c := &counters[f.index]
		seen[i] = *c != (datapath.FrontendCounters{})
		if !seen[i] && !r.all {
			continue
		}
		connections.add(f.labels, c.NewFlows)
		active.add(f.labels, flows.Frontends[f.index])
		rejected.add(f.labels, c.Rejected)
		packets.add(f.in, c.Packets)
		packets.add(f.out, c.ReplyPackets)
		bytes.add(f.in, c.Bytes)
		bytes.add(f.out, c.ReplyBytes)
		if latency, ok := t.ClientRTT(f.index); ok && f.tcp {
			rtt.addLatency(f.labels, latency)
		}
	}
	return seen, nil
}

// gatherRefs gathers all metrics of a backendRef or none, so that queries can add them.
func (r *routes) gatherRefs(all *families, names *routeNames, seen []bool, t writer.Tables, flows writer.FlowCounts) error {
	ids, size, err := writer.RefIDs(t)
	if err != nil {
		return err
	}
	n := len(names.refs)
	connections, active, unanswered := all.of(refConnections, n), all.of(refActive, n), all.of(refUnanswered, n)
	refused, connect, endpoints := all.of(refRefused, 2*n), all.of(connectTime, n), all.of(refEndpoints, 2*n)
	for i := range names.refs {
		ref := &names.refs[i]
		id, known := ids[ref.key]
		var c datapath.RefCounters
		if known {
			c, known = t.RefCounters(id, ref.key)
		}
		if !r.all && c.Flows == 0 && !slices.ContainsFunc(ref.frontends, func(f int) bool { return seen[f] }) {
			continue
		}
		endpoints.add(ref.ready, uint64(ref.endpoints[0]))
		endpoints.add(ref.draining, uint64(ref.endpoints[1]))
		// A backendRef that has never had an endpoint has no id, and has counted nothing. If
		// one with endpoints has none, the table is full, or the program is an earlier one.
		if !known && (size == 0 || ref.endpoints != [2]int{}) {
			continue
		}
		connections.add(ref.labels, c.Flows)
		active.add(ref.labels, flows.Refs[id])
		unanswered.add(ref.labels, datapath.Unanswered(c))
		refused.add(ref.reset, c.Reset)
		refused.add(ref.icmp, c.Unreachable)
		if ref.tcp {
			connect.addLatency(ref.labels, c.Connect)
		}
	}
	return nil
}

func newRouteNames(w *writer.Writer, m writer.Metrics) *routeNames {
	names := &routeNames{writer: w, number: m.Names, frontends: make([]frontendNames, 0, len(m.Frontends))}
	refs := map[lb.BackendRef]*refEndpointSets{}
	for i, f := range m.Frontends {
		names.indexes = max(names.indexes, int(f.Index)+1)
		values := pairs{
			{"address", f.Addr.String()}, {"gateway", ""}, {"gateway_namespace", ""}, {"listener", f.Listener},
			{"port", strconv.Itoa(int(f.Port))}, {"protocol", protocol(f.Protocol)}, {"route", ""}, {"route_namespace", ""},
		}
		values[2][1], values[1][1] = split(f.Gateway)
		values[7][1], values[6][1] = split(routeName(f.Route))
		labels := values.labels()
		names.frontends = append(names.frontends, frontendNames{
			labels: labels, in: with(labels, "direction", "in"), out: with(labels, "direction", "out"), index: f.Index, tcp: f.Protocol == lb.TCP,
		})
		of := func(ref lb.BackendRef) *refEndpointSets {
			if refs[ref] == nil {
				refs[ref] = &refEndpointSets{ready: map[netip.AddrPort]bool{}}
			}
			if fs := refs[ref].frontends; len(fs) == 0 || fs[len(fs)-1] != i {
				refs[ref].frontends = append(fs, i)
			}
			return refs[ref]
		}
		for _, p := range f.Refs {
			of(f.Ref(p))
		}
		for j := range f.Backends {
			b := &f.Backends[j]
			if ref := f.RefOf(b); ref != (lb.BackendRef{}) {
				set := of(ref).ready
				set[b.Addr] = set[b.Addr] || b.Weight > 0
			}
		}
	}
	all := make([]lb.BackendRef, 0, len(refs))
	for ref := range refs {
		all = append(all, ref)
	}
	slices.SortFunc(all, compareRefs)
	for _, ref := range all {
		names.refs = append(names.refs, newRefNames(ref, refs[ref]))
	}
	return names
}

// refEndpointSets are the endpoints of a backendRef at all its frontends.
type refEndpointSets struct {
	ready     map[netip.AddrPort]bool // false: draining
	frontends []int
}

func newRefNames(ref lb.BackendRef, sets *refEndpointSets) refNames {
	values := pairs{
		{"backend", ""}, {"backend_namespace", ""}, {"backend_port", ""}, {"gateway", ""}, {"gateway_namespace", ""},
		{"protocol", protocol(ref.Protocol)}, {"route", ""}, {"route_namespace", ""},
	}
	values[1][1], values[0][1] = split(ref.Service)
	if ref.Port != 0 {
		values[2][1] = strconv.Itoa(int(ref.Port))
	}
	values[4][1], values[3][1] = split(ref.Gateway)
	values[7][1], values[6][1] = split(routeName(ref.Route))
	labels := values.labels()
	names := refNames{
		labels: labels, reset: with(labels, "by", "reset"), icmp: with(labels, "by", "icmp"),
		ready: with(labels, "state", "ready"), draining: with(labels, "state", "draining"),
		key: ref.Hash(), tcp: ref.Protocol == lb.TCP, frontends: sets.frontends,
	}
	for _, ready := range sets.ready {
		if ready {
			names.endpoints[0]++
		} else {
			names.endpoints[1]++
		}
	}
	return names
}

func compareRefs(a, b lb.BackendRef) int {
	return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Route, b.Route), a.ServicePort.Compare(b.ServicePort), cmp.Compare(a.Protocol, b.Protocol))
}

// protocol returns tcp or udp.
func protocol(p lb.Protocol) string { return strings.ToLower(p.String()) }

// routeName returns namespace/name of kind/namespace/name: the kind follows from the
// protocol.
func routeName(route string) string {
	_, name, _ := strings.Cut(route, "/")
	return name
}

// split splits namespace/name.
func split(full string) (namespace, name string) {
	namespace, name, _ = strings.Cut(full, "/")
	return namespace, name
}

// pairs are labels, sorted by name.
type pairs [][2]string

func (p pairs) labels() []*dto.LabelPair {
	storage := make([]dto.LabelPair, len(p))
	all := make([]*dto.LabelPair, len(p))
	for i := range p {
		storage[i].Name, storage[i].Value = &p[i][0], &p[i][1]
		all[i] = &storage[i]
	}
	return all
}

// with returns labels with one more, sorted.
func with(labels []*dto.LabelPair, name, value string) []*dto.LabelPair {
	at, _ := slices.BinarySearchFunc(labels, name, func(l *dto.LabelPair, name string) int { return cmp.Compare(l.GetName(), name) })
	return slices.Insert(slices.Clone(labels), at, &dto.LabelPair{Name: &name, Value: &value})
}

// families collects families. Those that stay empty are not in list.
type families struct{ list []*dto.MetricFamily }

// series are the metrics of one family. What they are made of is allocated at once.
type series struct {
	family   family
	all      *families
	metrics  []dto.Metric
	counters []dto.Counter
	gauges   []dto.Gauge
	values   []float64
	to       *dto.MetricFamily // nil: it is empty
}

// of begins a family of at most so many metrics.
func (f *families) of(of family, most int) *series {
	s := &series{family: of, all: f, metrics: make([]dto.Metric, 0, most)}
	switch of.kind {
	case dto.MetricType_COUNTER:
		s.counters, s.values = make([]dto.Counter, most), make([]float64, most)
	case dto.MetricType_GAUGE:
		s.gauges, s.values = make([]dto.Gauge, most), make([]float64, most)
	}
	return s
}

func (s *series) next(labels []*dto.LabelPair) *dto.Metric {
	if s.to == nil {
		s.to = &dto.MetricFamily{Name: &s.family.name, Help: &s.family.help, Type: &s.family.kind}
		s.to.Metric = make([]*dto.Metric, 0, cap(s.metrics))
		s.all.list = append(s.all.list, s.to)
	}
	s.metrics = append(s.metrics, dto.Metric{Label: labels})
	m := &s.metrics[len(s.metrics)-1]
	s.to.Metric = append(s.to.Metric, m)
	return m
}

func (s *series) add(labels []*dto.LabelPair, n uint64) {
	m, i := s.next(labels), len(s.metrics)-1
	s.values[i] = float64(n)
	if s.family.kind == dto.MetricType_COUNTER {
		s.counters[i].Value = &s.values[i]
		m.Counter = &s.counters[i]
		return
	}
	s.gauges[i].Value = &s.values[i]
	m.Gauge = &s.gauges[i]
}

func (s *series) addLatency(labels []*dto.LabelPair, l datapath.Latency) {
	s.next(labels).Histogram = newLatency(l)
}
