// SPDX-License-Identifier: Apache-2.0

// Package top tells who is busy: frontends, backends and clients, by rates between two
// looks at the counters.
package top

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// Report is what a node tells: the answer to an observe.StatusQuery.
type Report struct {
	writer.Status
	// Clients are those with most flows; ClientsLost is by how much each number may be
	// too small.
	Clients     []Client `json:"clients,omitempty"`
	ClientsLost uint64   `json:"clientsLost,omitempty"`
	// Totals and Refs are there if an observe.Scope was asked for.
	Totals *Totals `json:"totals,omitempty"`
	Refs   []Ref   `json:"refs,omitempty"`
}

// Totals are of all frontends of a node.
type Totals = writer.Totals

// Ref is what a node has counted of a backendRef.
type Ref = writer.RefStatus

// Node is what a node's answers are made from.
type Node struct {
	Writer *writer.Writer
	Tables writer.Tables
}

// Answer returns what observe.Answers.Status of a node is. with calls its function while
// the maps are open.
func Answer(with func(func(Node) error) error) func(context.Context, observe.StatusQuery, func(any) error) error {
	return func(_ context.Context, q observe.StatusQuery, send func(any) error) error {
		var r Report
		err := with(func(n Node) (err error) {
			if err = r.read(n.Writer, q.Scope); err == nil && q.Clients > 0 {
				err = r.AddClients(n.Tables, q.Clients)
			}
			if err == nil && q.Count {
				err = r.CountRemaining(n.Tables)
			}
			return err
		})
		if err != nil {
			return err
		}
		return send(r) // the maps may be closed meanwhile: who has asked may be slow
	}
}

// read reads the status, in a scope unless that is nil.
func (r *Report) read(w *writer.Writer, scope *observe.Scope) (err error) {
	if scope == nil {
		r.Status, err = w.Status()
		return err
	}
	look, err := w.Look(scope.Gateways, scope.Backends)
	r.Status, r.Totals, r.Refs = look.Status, &look.Totals, look.Refs
	return err
}

// maxWanted is how many clients a node names at most.
const maxWanted = 1000

// AddClients adds the n clients with most flows.
func (r *Report) AddClients(t Tables, n int) error {
	c, err := CountClients(t)
	if err == nil {
		r.Clients, r.ClientsLost = c.Top(min(n, maxWanted))
	}
	return err
}

// Sample is what was counted at one moment, by the clock of whoever has read it.
type Sample struct {
	Time time.Time
	Report
}

// Rate is per second; nil: not known, as this is the first look, or the counter began anew.
type Rate *float64

// Frontend is a frontend. Packets and bytes are from clients (In) and to them (Out).
type Frontend struct {
	Frontend    string `json:"frontend"`
	Gateway     string `json:"gateway,omitempty"`
	Route       string `json:"route,omitempty"`
	Active      uint64 `json:"activeFlows"`
	Connections Rate   `json:"connectionsPerSecond"`
	Rejected    Rate   `json:"rejectedPerSecond"`
	PacketsIn   Rate   `json:"packetsInPerSecond"`
	PacketsOut  Rate   `json:"packetsOutPerSecond"`
	BytesIn     Rate   `json:"bytesInPerSecond"`
	BytesOut    Rate   `json:"bytesOutPerSecond"`
}

// Backend is a backend of a frontend.
type Backend struct {
	Backend  string `json:"backend"`
	Frontend string `json:"frontend"`
	Service  string `json:"service,omitempty"`
	State    string `json:"state"`
	// Drained is set if somebody has drained it by hand.
	Drained     *lb.Drained `json:"drained,omitempty"`
	Active      uint64      `json:"activeFlows"`
	Connections Rate        `json:"connectionsPerSecond"`
}

// StateText returns the state in words: drained is that of somebody's hand.
func (b *Backend) StateText() string {
	if b.Drained != nil {
		return "drained"
	}
	return b.State
}

// View is what blixt top shows.
type View struct {
	Time time.Time `json:"time"`
	// Seconds is the time between the two looks; 0: there was one.
	Seconds   float64    `json:"seconds"`
	Frontends []Frontend `json:"frontends,omitempty"`
	Backends  []Backend  `json:"backends,omitempty"`
	Clients   []Client   `json:"clients,omitempty"`
	// ClientsLost is by how much the numbers of clients may be too small: there were more
	// clients than are counted.
	ClientsLost uint64 `json:"clientsLost,omitempty"`
}

// identity is what keeps its counters: an index or an id may be given to another.
type identity struct {
	name string
	id   uint32
}

// New returns what was between two samples; of the first one was is nil. Of frontends and
// backends it has the n busiest; 0: all.
func New(was *Sample, now Sample, n int) View {
	v := View{Time: now.Time, Clients: now.Clients, ClientsLost: now.ClientsLost}
	frontends, backends := map[identity]writer.FrontendStatus{}, map[identity]uint64{}
	if was != nil {
		v.Seconds = now.Time.Sub(was.Time).Seconds()
		for _, f := range was.Status.Frontends {
			frontends[identity{f.Frontend, f.Index}] = f
			for _, b := range f.Backends {
				backends[identity{f.Frontend + " " + b.Address, b.ID}] = b.NewFlows
			}
		}
	}
	rate := func(known bool, was, now uint64) Rate {
		if !known || v.Seconds <= 0 || now < was {
			return nil
		}
		r := float64(now-was) / v.Seconds
		return &r
	}
	for _, f := range now.Status.Frontends {
		w, known := frontends[identity{f.Frontend, f.Index}]
		v.Frontends = append(v.Frontends, Frontend{
			Frontend: f.Frontend, Gateway: f.Gateway, Route: f.Route, Active: f.ActiveFlows,
			Connections: rate(known, w.NewFlows, f.NewFlows), Rejected: rate(known, w.Rejected, f.Rejected),
			PacketsIn: rate(known, w.Packets, f.Packets), PacketsOut: rate(known, w.ReplyPackets, f.ReplyPackets),
			BytesIn: rate(known, w.Bytes, f.Bytes), BytesOut: rate(known, w.ReplyBytes, f.ReplyBytes),
		})
		for _, b := range f.Backends {
			w, known := backends[identity{f.Frontend + " " + b.Address, b.ID}]
			v.Backends = append(v.Backends, Backend{
				Backend: b.Address, Frontend: f.Frontend, Service: b.Service, State: b.State, Drained: b.Drained, Active: b.ActiveFlows, Connections: rate(known, w, b.NewFlows),
			})
		}
	}
	v.sort(n)
	return v
}

// sort has the n busiest of each kind come first; 0: all.
func (v *View) sort(n int) {
	slices.SortStableFunc(v.Frontends, func(a, b Frontend) int {
		return cmp.Or(compare(b.Connections, a.Connections), compare(b.BytesOut, a.BytesOut), cmp.Compare(b.Active, a.Active), strings.Compare(a.Frontend, b.Frontend))
	})
	slices.SortStableFunc(v.Backends, func(a, b Backend) int {
		return cmp.Or(compare(b.Connections, a.Connections), cmp.Compare(b.Active, a.Active), strings.Compare(a.Frontend, b.Frontend), strings.Compare(a.Backend, b.Backend))
	})
	slices.SortStableFunc(v.Clients, func(a, b Client) int {
		return cmp.Or(cmp.Compare(b.Flows+b.Opening, a.Flows+a.Opening), a.Client.Compare(b.Client))
	})
	if n > 0 {
		v.Frontends, v.Backends, v.Clients = first(n, v.Frontends), first(n, v.Backends), first(n, v.Clients)
	}
}

func first[T any](n int, all []T) []T { return all[:min(n, len(all))] }

// Merge returns the sum of the views of several nodes.
func Merge(views []View, n int) View {
	var sum View
	frontends, backends, clients := map[string]*Frontend{}, map[string]*Backend{}, map[netip.Addr]*Client{}
	for _, v := range views {
		if v.Time.After(sum.Time) {
			sum.Time = v.Time
		}
		sum.Seconds, sum.ClientsLost = max(sum.Seconds, v.Seconds), sum.ClientsLost+v.ClientsLost
		for _, f := range v.Frontends {
			s := frontends[f.Frontend]
			if s == nil {
				frontends[f.Frontend] = &f
				continue
			}
			s.Active += f.Active
			for to, r := range map[*Rate]Rate{
				&s.Connections: f.Connections, &s.Rejected: f.Rejected, &s.PacketsIn: f.PacketsIn, &s.PacketsOut: f.PacketsOut, &s.BytesIn: f.BytesIn, &s.BytesOut: f.BytesOut,
			} {
				*to = Add(*to, r)
			}
		}
		for _, b := range v.Backends {
			key := b.Frontend + " " + b.Backend
			if s := backends[key]; s != nil {
				s.Active, s.Connections = s.Active+b.Active, Add(s.Connections, b.Connections)
			} else {
				backends[key] = &b
			}
		}
		for _, c := range v.Clients {
			if s := clients[c.Client]; s != nil {
				s.Flows, s.Opening = s.Flows+c.Flows, s.Opening+c.Opening
			} else {
				clients[c.Client] = &c
			}
		}
	}
	for _, f := range frontends {
		sum.Frontends = append(sum.Frontends, *f)
	}
	for _, b := range backends {
		sum.Backends = append(sum.Backends, *b)
	}
	for _, c := range clients {
		sum.Clients = append(sum.Clients, *c)
	}
	sum.sort(n)
	return sum
}

// Add adds rates; one that is not known counts as 0 beside one that is.
func Add(a, b Rate) Rate {
	if a == nil || b == nil {
		return cmp.Or(a, b)
	}
	sum := *a + *b
	return &sum
}

// compare compares rates; one that is not known counts as 0.
func compare(a, b Rate) int {
	value := func(r Rate) float64 {
		if r == nil {
			return 0
		}
		return *r
	}
	return cmp.Compare(value(a), value(b))
}
