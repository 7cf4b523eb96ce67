// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Look is Status of the frontends of some Gateways, with sums of all. It costs little more
// than Metrics: it may be asked for every other second. Addresses and Links are left out.
type Look struct {
	Status
	Totals Totals
	Refs   []RefStatus
}

// Totals are of all frontends of a node. Packets and bytes are as in FrontendStatus.
type Totals struct {
	Frontends    int    `json:"frontends"`
	Backends     int    `json:"backends"`
	NewFlows     uint64 `json:"newFlows"`
	ActiveFlows  uint64 `json:"activeFlows"`
	Rejected     uint64 `json:"rejected"`
	Packets      uint64 `json:"packets"`
	Bytes        uint64 `json:"bytes"`
	ReplyPackets uint64 `json:"replyPackets"`
	ReplyBytes   uint64 `json:"replyBytes"`
	// Refusing is how many frontends refuse every new connection, and SomeRefusing are
	// some of them, with their routes.
	Refusing     int      `json:"refusing,omitempty"`
	SomeRefusing []string `json:"someRefusing,omitempty"`
}

// ServiceStatus sums up the backends of a frontend that are endpoints of the same
// backendRef.
type ServiceStatus struct {
	Service string `json:"service"` // namespace/name; "": not known
	Port    uint16 `json:"port,omitempty"`
	// Ready get new flows, Draining do not.
	Ready       int     `json:"ready"`
	Draining    int     `json:"draining,omitempty"`
	RingShare   float64 `json:"ringShare"`
	NewFlows    uint64  `json:"newFlows"`
	ActiveFlows uint64  `json:"activeFlows"`
}

// RefStatus is what was counted of a backendRef: see lb.BackendRef.
type RefStatus struct {
	Gateway  string `json:"gateway"`
	Route    string `json:"route"`
	Service  string `json:"service"`
	Port     uint16 `json:"port,omitempty"`
	Protocol string `json:"protocol"`
	Flows    uint64 `json:"flows"`
	// Refused were refused by a RST of the backend or an ICMP error, Unanswered got neither
	// that nor an answer.
	Refused    uint64 `json:"refused"`
	Unanswered uint64 `json:"unanswered"`
	// Connects counts the durations from SYN to SYN-ACK: those of at most 2^(k-14) s and more
	// than half of that are Connects[k]; the first and last elements have all that is
	// shorter and longer. ConnectSum is their sum in seconds.
	Connects   []uint64 `json:"connects,omitempty"`
	ConnectSum float64  `json:"connectSum,omitempty"`
}

const (
	// lookBackends is how many backends a look has one by one: 400 KB of JSON. Each
	// frontend has as many as each other, and sums of all.
	lookBackends = 2000
	// lookGateways and lookFrontends are how much a look is of.
	lookGateways  = 200
	lookFrontends = 4096
	// fewBackends are read one by one at less cost than all at once.
	fewBackends = 4096
	// someRefusing is how many frontends are named.
	someRefusing = 5
)

// looks are what looks need and what changes with the state alone.
type looks struct {
	sync.Mutex
	names     uint64 // Metrics.Names
	byGateway map[string][]int
	indexes   int               // one more than the largest index of a frontend
	refs      map[uint64]uint32 // ids, by hash
	// rings are how many slots each backend has, by id, of frontends that were asked for.
	rings    map[*datapath.Served]map[uint32]int
	refusing int
	some     []string
}

var errNotRead = errors.New("what is to be served is not known yet: ask again")

// Look reads counters. It has at most so many backends one by one; 0: as many as it may.
// What the maps hold it takes from memory, as it was last: except for
// the first time, it waits for nobody who writes.
func (w *Writer) Look(gateways []string, backends int) (Look, error) {
	m, err := w.Metrics()
	if err == nil && m.Names == 0 {
		w.refreshMetrics(func() bool { w.mu.Lock(); return true })
		m, err = w.Metrics()
	}
	if err == nil && m.Names == 0 {
		err = errNotRead
	}
	if err != nil {
		return Look{}, err
	}
	w.looks.Lock() // readers of pages wait for each other
	defer w.looks.Unlock()
	if err := w.looks.update(w.tables, m); err != nil {
		return Look{}, err
	}
	l := Look{Status: m.status()}
	counters, err := w.tables.FirstFrontendCounters(w.looks.indexes)
	if err != nil {
		return Look{}, err
	}
	l.Totals = w.looks.totals(m, counters)
	frontends := w.looks.chosen(m, gateways)
	if l.Frontends, err = w.frontends(frontends, counters, m.Flows, backends); err != nil {
		return Look{}, err
	}
	l.Refs = w.refs(frontends)
	return l, nil
}

// Active returns how many flows the frontends of each Gateway have, as of the last sweep.
func (w *Writer) Active() map[string]uint64 {
	w.refreshMetrics(w.mu.TryLock)
	w.counts.Lock()
	flows := w.counts.flows.Frontends
	w.counts.Unlock()
	w.metrics.Lock()
	frontends := w.metrics.frontends
	w.metrics.Unlock()
	all := map[string]uint64{}
	for i := range frontends {
		all[frontends[i].Gateway] += flows[frontends[i].Index]
	}
	return all
}

// status returns what a Status says of the whole node.
func (m *Metrics) status() Status {
	s := Status{
		Layout: bpf.Layout, Version: m.Version, StateHash: m.StateHash, Known: !m.Applied.IsZero(), Draining: m.Draining,
		SNAT: m.SNAT, FlowQuota: m.FlowQuota, UndoneFlows: m.Flows.Undone, PlainFlows: m.Flows.Plain, Tables: m.Tables, Counters: m.Counters, Policies: m.Policies,
	}
	if s.Known {
		s.Applied = &m.Applied
	}
	return s
}

// update reads what has changed with the state.
func (l *looks) update(t Tables, m Metrics) error {
	if l.names == m.Names {
		return nil
	}
	var err error
	if l.refs, _, err = RefIDs(t); err != nil {
		return err
	}
	rings := map[*datapath.Served]map[uint32]int{}
	l.byGateway, l.indexes, l.refusing, l.some = make(map[string][]int, len(l.byGateway)), 0, 0, nil
	for i, f := range m.Frontends {
		l.byGateway[f.Gateway] = append(l.byGateway[f.Gateway], i)
		l.indexes = max(l.indexes, int(f.Index)+1)
		if known, is := l.rings[f.served]; is {
			rings[f.served] = known
		}
		if f.refuses() {
			if l.refusing++; len(l.some) < someRefusing {
				l.some = append(l.some, f.named())
			}
		}
	}
	l.rings, l.names = rings, m.Names
	return nil
}

// refuses reports whether a frontend refuses every new connection.
func (f *ServedFrontend) refuses() bool {
	return !slices.ContainsFunc(f.served.Slots, func(id uint32) bool { return id != datapath.BackendReject })
}

// named returns the frontend, and its route if it has one.
func (f *ServedFrontend) named() string {
	if f.Route == "" {
		return f.Key().String()
	}
	return f.Key().String() + " of " + f.Route
}

func (l *looks) totals(m Metrics, counters []datapath.FrontendCounters) Totals {
	t := Totals{Frontends: len(m.Frontends), Backends: m.Tables["backends"].Used, Refusing: l.refusing, SomeRefusing: l.some}
	for i := range m.Frontends {
		index := m.Frontends[i].Index
		t.ActiveFlows += m.Flows.Frontends[index]
		if int(index) < len(counters) {
			c := &counters[index]
			t.NewFlows, t.Rejected = t.NewFlows+c.NewFlows, t.Rejected+c.Rejected
			t.Packets, t.Bytes = t.Packets+c.Packets, t.Bytes+c.Bytes
			t.ReplyPackets, t.ReplyBytes = t.ReplyPackets+c.ReplyPackets, t.ReplyBytes+c.ReplyBytes
		}
	}
	return t
}

// chosen returns the frontends of Gateways, as many as a look may have, in order.
func (l *looks) chosen(m Metrics, gateways []string) []*ServedFrontend {
	gateways = slices.Compact(slices.Sorted(slices.Values(gateways)))
	var all []*ServedFrontend
	for _, name := range gateways[:min(len(gateways), lookGateways)] {
		for _, i := range l.byGateway[name] {
			if len(all) < lookFrontends {
				all = append(all, &m.Frontends[i])
			}
		}
	}
	return all
}

// frontends returns their status. Each has the same part of the backends that a look may
// have.
func (w *Writer) frontends(of []*ServedFrontend, counters []datapath.FrontendCounters, flows FlowCounts, backends int) ([]FrontendStatus, error) {
	newFlows, err := w.backendFlows(of)
	if err != nil {
		return nil, err
	}
	seen, err := w.tables.HostListens()
	if err != nil {
		return nil, fmt.Errorf("read where the host listens: %w", err)
	}
	from := reading{newFlows: newFlows, slots: w.looks.slots, flags: wantedFlags, flows: flows}
	from.counters = func(index uint32) (c datapath.FrontendCounters, _ error) {
		if int(index) < len(counters) {
			c = counters[index]
		}
		return c, nil
	}
	now, room := w.o.Ticks(), lookBackends
	if backends > 0 {
		room = min(room, backends)
	}
	all := make([]FrontendStatus, 0, len(of))
	for i, f := range of {
		s, err := from.frontend(f.Key(), *f)
		if err != nil {
			return nil, err
		}
		tick, is := seen[f.Key()]
		s.HostListens = is && listensAt(tick, now)
		s.Services = services(f.Frontend, s.Backends)
		s.limit(max(1, room/(len(of)-i)))
		room -= len(s.Backends)
		all = append(all, s)
	}
	return all, nil
}

// wantedFlags returns the flags of a backend that tell its state, as it is to be.
func wantedFlags(_ uint32, b lb.Backend) uint16 {
	if b.NotServing {
		return datapath.BackendNotServing
	}
	return 0
}

// slots counts the slots of a ring once.
func (l *looks) slots(of *datapath.Served) map[uint32]int {
	n, known := l.rings[of]
	if !known {
		n = countSlots(of)
		l.rings[of] = n
	}
	return n
}

// services sums up the backends of a frontend by backendRef, and has those without any
// backend, too.
func services(f *lb.Frontend, backends []BackendStatus) []ServiceStatus {
	sums := map[lb.ServicePort]*ServiceStatus{}
	of := func(p lb.ServicePort) *ServiceStatus {
		s := sums[p]
		if s == nil {
			s = &ServiceStatus{Service: p.Service, Port: p.Port}
			sums[p] = s
		}
		return s
	}
	for _, p := range f.Refs {
		of(p)
	}
	for i := range backends {
		b := &backends[i]
		s := of(lb.ServicePort{Service: b.Service, Port: b.ServicePort})
		if b.State == lb.StateServing {
			s.Ready++
		} else {
			s.Draining++
		}
		s.RingShare += b.RingShare
		s.NewFlows += b.NewFlows
		s.ActiveFlows += b.ActiveFlows
	}
	all := make([]ServiceStatus, 0, len(sums))
	for _, s := range sums {
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b ServiceStatus) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), cmp.Compare(a.Port, b.Port))
	})
	return all
}

// limit leaves out all but some backends: those that are not well stay.
func (f *FrontendStatus) limit(n int) {
	if len(f.Backends) <= n {
		return
	}
	slices.SortStableFunc(f.Backends, func(a, b BackendStatus) int { return lb.StateRank(a.State) - lb.StateRank(b.State) })
	f.MoreBackends = len(f.Backends) - n
	f.Backends = slices.Clone(f.Backends[:n])
}

// backendFlows returns what reads how many new flows backends have got: some, or all of
// many.
func (w *Writer) backendFlows(of []*ServedFrontend) (func(id uint32) (uint64, error), error) {
	n, ids := 0, uint32(0)
	for _, f := range of {
		n += len(f.served.IDs)
	}
	if n <= fewBackends {
		return w.tables.BackendFlows, nil
	}
	for _, f := range of {
		for _, id := range f.served.IDs {
			ids = max(ids, id+1)
		}
	}
	all, err := w.tables.FirstBackendFlows(int(ids))
	return func(id uint32) (n uint64, _ error) {
		if int(id) < len(all) {
			n = all[id]
		}
		return n, nil
	}, err
}

// refs returns what was counted of the backendRefs of frontends.
func (w *Writer) refs(of []*ServedFrontend) (all []RefStatus) {
	seen := map[lb.BackendRef]bool{}
	add := func(ref lb.BackendRef) {
		if seen[ref] || ref == (lb.BackendRef{}) {
			return
		}
		seen[ref] = true
		if r, known := w.ref(ref); known {
			all = append(all, r)
		}
	}
	for _, f := range of {
		for _, p := range f.Refs {
			add(f.Ref(p))
		}
		for i := 0; len(f.Refs) == 0 && i < len(f.Backends); i++ { // an operator of an earlier version does not tell
			add(f.RefOf(&f.Backends[i]))
		}
	}
	return all
}

// RefIDs returns the ids of backendRefs in ref_stats by their lb.BackendRef.Hash, and how
// many ids there are; 0: the program does not count by backendRef.
func RefIDs(t Tables) (ids map[uint64]uint32, size int, err error) {
	keys, err := t.RefKeys()
	if err != nil {
		return nil, 0, fmt.Errorf("read ref_stats: %w", err)
	}
	used := 0
	for _, key := range keys {
		if key != 0 {
			used++
		}
	}
	ids = make(map[uint64]uint32, used) // scrapes are frequent
	for id, key := range keys {
		if key != 0 {
			ids[key] = uint32(id)
		}
	}
	return ids, len(keys), nil
}

func (w *Writer) ref(ref lb.BackendRef) (RefStatus, bool) {
	hash := ref.Hash()
	id, known := w.looks.refs[hash]
	if !known {
		return RefStatus{}, false
	}
	c, known := w.tables.RefCounters(id, hash)
	r := RefStatus{
		Gateway: ref.Gateway, Route: ref.Route, Service: ref.Service, Port: ref.Port, Protocol: strings.ToLower(ref.Protocol.String()),
		Flows: c.Flows, Refused: c.Reset + c.Unreachable, Unanswered: datapath.Unanswered(c),
	}
	if c.Connect != (datapath.Latency{}) {
		r.Connects, r.ConnectSum = slices.Clone(c.Connect.Counts[:]), float64(c.Connect.Sum)/datapath.LatencyUnitsPerSecond
	}
	return r, known
}
