// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// served is a frontend of a node.
type served struct {
	node string
	*writer.FrontendStatus
}

// gateways returns those that were chosen, with what nodes have counted. The one that is
// open comes first, so that its backends find room.
func (b *build) gateways() []Gateway {
	frontends := map[string][]served{}
	refs := map[string]map[refName]*refSum{}
	for _, node := range b.nodes() {
		r := b.Reports[node]
		for i := range r.Frontends {
			frontends[r.Frontends[i].Gateway] = append(frontends[r.Frontends[i].Gateway], served{node, &r.Frontends[i]})
		}
		for i := range r.Refs {
			b.addRef(refs, node, &r.Refs[i])
		}
	}
	all := make([]Gateway, len(b.Choice.Gateways))
	order := make([]int, 0, len(all))
	for i, d := range b.Choice.Gateways {
		if d.Name == b.Choice.Open {
			order = slices.Insert(order, 0, i)
		} else {
			order = append(order, i)
		}
	}
	for _, i := range order {
		d := b.Choice.Gateways[i]
		all[i] = b.gateway(d, frontends[d.Name], refs[d.Name], b.Choice.Open == d.Name)
	}
	return all
}

func (b *build) gateway(d Declared, frontends []served, refs map[refName]*refSum, open bool) Gateway {
	g := Gateway{Declared: d}
	byListener := map[string][]served{}
	var names []string
	for _, l := range d.Listeners {
		if byListener[l.Name] == nil {
			byListener[l.Name] = []served{}
			names = append(names, l.Name)
		}
	}
	for _, f := range frontends {
		if byListener[f.Listener] == nil {
			names = append(names, f.Listener)
		}
		byListener[f.Listener] = append(byListener[f.Listener], f)
		b.traffic(&g.Traffic, f, "gateway")
	}
	some, more := limit(names, mostListeners)
	g.MoreListeners, g.Listeners = more, make([]Listener, 0, len(some))
	for _, name := range some {
		l := DeclaredListener{Name: name}
		if i := slices.IndexFunc(d.Listeners, func(l DeclaredListener) bool { return l.Name == name }); i >= 0 {
			l = d.Listeners[i]
		}
		g.Listeners = append(g.Listeners, b.listener(l, byListener[name], refs, open))
	}
	return g
}

// traffic adds that of a frontend. of says for what: each sum has counters of its own.
func (b *build) traffic(t *Traffic, f served, of string) {
	t.Active += f.ActiveFlows
	of = of + " " + f.Frontend
	b.rate(&t.NewFlows, counter{f.node, of, "flows", f.Index}, f.NewFlows)
	b.rate(&t.Rejected, counter{f.node, of, "rejected", f.Index}, f.Rejected)
	b.rate(&t.BytesIn, counter{f.node, of, "in", f.Index}, f.Bytes)
	b.rate(&t.BytesOut, counter{f.node, of, "out", f.Index}, f.ReplyBytes)
}

// listener sums up the frontends of a listener: one for each address and node.
func (b *build) listener(d DeclaredListener, frontends []served, refs map[refName]*refSum, open bool) Listener {
	l := Listener{DeclaredListener: d, Addresses: []string{}}
	sums := map[string]*serviceSum{}
	for _, f := range frontends {
		if !slices.Contains(l.Addresses, f.Frontend) {
			l.Addresses = append(l.Addresses, f.Frontend)
		}
		l.Route = cmp.Or(l.Route, f.Route)
		l.HostListens = l.HostListens || f.HostListens
		l.RejectShare += f.RejectShare / float64(len(frontends))
		b.traffic(&l.Traffic, f, "listener")
		for i := range f.Backends {
			b.addBackend(sums, f, &f.Backends[i], len(frontends))
		}
	}
	slices.Sort(l.Addresses)
	total := uint64(0)
	for _, s := range sums {
		total += s.flows
	}
	services := make([]*serviceSum, 0, len(sums))
	for _, s := range sums {
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b *serviceSum) int { return strings.Compare(a.Name, b.Name) })
	some, _ := limit(services, mostServices)
	l.Services = make([]Service, 0, len(some))
	for _, s := range some {
		if r := refs[refName{l.Route, s.Name}]; r != nil {
			s.Refused, s.Unanswered, s.Connect = r.refused, r.unanswered, r.connect()
		}
		l.Services = append(l.Services, b.service(s, total, open))
	}
	if l.Problem == "" && len(frontends) > 0 && l.RejectShare == 1 {
		l.Problem = "no backend serves: new connections are refused"
	}
	return l
}

// serviceSum is a Service in progress.
type serviceSum struct {
	Service
	flows    uint64
	backends map[string]*backendSum
}

type backendSum struct {
	Backend
	flows uint64
}

// addBackend adds a backend of a frontend, of so many of a listener.
func (b *build) addBackend(sums map[string]*serviceSum, f served, is *writer.BackendStatus, frontends int) {
	s := sums[is.Service]
	if s == nil {
		s = &serviceSum{Service: Service{Name: is.Service}, backends: map[string]*backendSum{}}
		sums[is.Service] = s
	}
	to := s.backends[is.Address]
	if to == nil {
		to = &backendSum{Backend: Backend{Address: is.Address, State: is.State, Drained: is.Drained, Local: is.Local, Weight: is.Weight}}
		s.backends[is.Address] = to
	}
	if is.State == "serving" { // for another address of the Gateway, or another node
		to.State = is.State
	}
	wanted := is.RingShare / float64(frontends)
	to.Wanted, s.Wanted = to.Wanted+wanted, s.Wanted+wanted
	to.Active, s.Active = to.Active+is.ActiveFlows, s.Active+is.ActiveFlows
	to.flows, s.flows = to.flows+is.NewFlows, s.flows+is.NewFlows
	of := f.Frontend + " " + is.Address
	b.rate(&to.NewFlows, counter{f.node, of, "backend", is.ID}, is.NewFlows)
	b.rate(&s.NewFlows, counter{f.node, of, "service", is.ID}, is.NewFlows)
}

// service returns a Service with its backends; total is how many flows its listener had.
func (b *build) service(s *serviceSum, total uint64, open bool) Service {
	if total > 0 {
		s.Seen = float64(s.flows) / float64(total)
	}
	all := make([]*backendSum, 0, len(s.backends))
	for _, one := range s.backends {
		if one.State == "serving" {
			s.Ready++
		} else {
			s.Draining++
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b *backendSum) int {
		return cmp.Or(cmp.Compare(stateRank(a.State), stateRank(b.State)), strings.Compare(a.Address, b.Address))
	})
	most := mostBackends
	if open {
		most = openBackends
	}
	some, more := limit(all, min(most, b.room))
	b.room -= len(some)
	s.MoreBackends, s.Backends = more, make([]Backend, 0, len(some))
	for _, one := range some {
		if total > 0 {
			one.Seen = float64(one.flows) / float64(total)
		}
		s.Backends = append(s.Backends, one.Backend)
	}
	return s.Service
}

// stateRank is smaller the more a backend deserves a look.
func stateRank(state string) int {
	switch state {
	case "not-serving":
		return 0
	case "serving":
		return 2
	}
	return 1
}

// refName names a backendRef of a Gateway, without its port.
type refName struct{ route, service string }

// refSum sums up what nodes have counted of a backendRef.
type refSum struct {
	refused, unanswered Rate
	// recent are the connections since the View before, all those so far.
	recent, all durations
}

// durations are how long connections took: see top.Ref.
type durations struct {
	counts  [slots]uint64
	count   uint64
	seconds float64
}

// slots is how many elements top.Ref.Connects has.
const slots = 21

func (b *build) addRef(all map[string]map[refName]*refSum, node string, r *top.Ref) {
	of := all[r.Gateway]
	if of == nil {
		of = map[refName]*refSum{}
		all[r.Gateway] = of
	}
	name := refName{r.Route, r.Service}
	s := of[name]
	if s == nil {
		s = &refSum{}
		of[name] = s
	}
	key := counter{node: node, of: r.Gateway + " " + r.Route + " " + r.Service + " " + r.Protocol, id: uint32(r.Port)}
	since := func(what string, value uint64) uint64 {
		key.what = what
		return b.since(key, value)
	}
	key.what = "refused"
	b.rate(&s.refused, key, r.Refused)
	key.what = "unanswered"
	b.rate(&s.unanswered, key, r.Unanswered)
	for i, n := range r.Connects[:min(len(r.Connects), slots)] {
		s.all.add(i, n)
		s.recent.add(i, since(slotNames[i], n))
	}
	s.all.seconds += r.ConnectSum
	s.recent.seconds += float64(since("connect", uint64(r.ConnectSum*1e6))) / 1e6
}

var slotNames = func() (names [slots]string) {
	for i := range names {
		names[i] = fmt.Sprintf("connect %d", i)
	}
	return names
}()

func (d *durations) add(slot int, n uint64) {
	d.counts[slot] += n
	d.count += n
}

// connect returns how long connections took; nil: there was none.
func (s *refSum) connect() *Connect {
	d := &s.recent
	if d.count == 0 {
		d = &s.all
	}
	if d.count == 0 {
		return nil
	}
	return &Connect{Mean: d.seconds / float64(d.count), P50: d.quantile(0.5), P99: d.quantile(0.99)}
}

// quantile returns the upper bound of the slot that a quantile is in.
func (d *durations) quantile(q float64) float64 {
	before := uint64(0)
	for slot, n := range d.counts {
		if before += n; float64(before) >= q*float64(d.count) {
			return math.Ldexp(1, slot-14)
		}
	}
	return math.Ldexp(1, slots-1-14)
}
