// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
)

// served is a frontend of a node, and what it was before; nil: that is not known.
type served struct {
	*writer.FrontendStatus
	was *writer.FrontendStatus
}

// gateways returns those that were chosen, with what nodes have counted. The one that is
// open comes first, so that its backends find room.
func (b *build) gateways() []Gateway {
	frontends := map[string][]served{}
	refs := map[string]map[refName]*refSum{}
	for _, node := range b.nodes() {
		r, before := b.Reports[node], b.before[node]
		for i := range r.Frontends {
			f := &r.Frontends[i]
			frontends[f.Gateway] = append(frontends[f.Gateway], served{f, before.frontend(i, f)})
		}
		for i := range r.Refs {
			b.addRef(refs, &r.Refs[i], before.ref(i, &r.Refs[i]))
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
		b.traffic(&g.Traffic, f)
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

// unknown stands for what a frontend was before.
var unknown writer.FrontendStatus

// traffic adds that of a frontend.
func (b *build) traffic(t *Traffic, f served) {
	known, was := f.was != nil, cmp.Or(f.was, &unknown)
	t.Active += f.ActiveFlows
	b.rate(&t.NewFlows, known, was.NewFlows, f.NewFlows)
	b.rate(&t.Rejected, known, was.Rejected, f.Rejected)
	b.rate(&t.BytesIn, known, was.Bytes, f.Bytes)
	b.rate(&t.BytesOut, known, was.ReplyBytes, f.ReplyBytes)
}

// listener sums up the frontends of a listener: one for each address and node.
func (b *build) listener(d DeclaredListener, frontends []served, refs map[refName]*refSum, open bool) Listener {
	l := Listener{DeclaredListener: d, Addresses: []string{}}
	sums, attempts := serviceSums{}, uint64(0)
	for _, f := range frontends {
		attempts += f.NewFlows + f.Rejected
	}
	for _, f := range frontends {
		if !slices.Contains(l.Addresses, f.Frontend) {
			l.Addresses = append(l.Addresses, f.Frontend)
		}
		l.Route = cmp.Or(l.Route, f.Route)
		l.HostListens = l.HostListens || f.HostListens
		b.traffic(&l.Traffic, f)
		// What is wanted is compared with what was seen: each address of a Gateway may have
		// other backends, and more flows than others.
		part := 1 / float64(len(frontends))
		if attempts > 0 {
			part = float64(f.NewFlows+f.Rejected) / float64(attempts)
		}
		l.RejectShare += f.RejectShare * part
		sums.add(b, f, part)
	}
	slices.Sort(l.Addresses)
	total := uint64(0)
	services := make([]*serviceSum, 0, len(sums))
	for _, s := range sums {
		total += s.flows
		services = append(services, s)
	}
	slices.SortFunc(services, func(a, b *serviceSum) int { return strings.Compare(a.Name, b.Name) })
	some, more := limit(services, min(mostServices, b.serviceRoom))
	b.serviceRoom -= len(some)
	l.MoreServices = more
	l.Services = make([]Service, 0, len(some))
	for _, s := range some {
		if r := refs[refName{l.Route, s.Name}]; r != nil {
			s.Refused, s.Unanswered, s.Connect = r.refused, r.unanswered, r.connect()
		}
		l.Services = append(l.Services, b.service(s, total, open))
	}
	if l.Problem == "" && !slices.ContainsFunc(frontends, func(f served) bool { return f.RejectShare < 1 }) && len(frontends) > 0 {
		l.Problem = "no backend serves: new connections are refused"
	}
	return l
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

// addRef adds what a node has counted of a backendRef, and had before; nil: that is not
// known.
func (b *build) addRef(all map[string]map[refName]*refSum, r, was *top.Ref) {
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
	known := was != nil
	if !known {
		was = r // nothing since
	}
	b.rate(&s.refused, known, was.Refused, r.Refused)
	b.rate(&s.unanswered, known, was.Unanswered, r.Unanswered)
	for i, n := range r.Connects[:min(len(r.Connects), slots)] {
		s.all.add(i, n)
		if i < len(was.Connects) {
			s.recent.add(i, since(was.Connects[i], n))
		}
	}
	s.all.seconds += r.ConnectSum
	s.recent.seconds += max(0, r.ConnectSum-was.ConnectSum)
}

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
