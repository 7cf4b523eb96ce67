// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/standalone"
	"github.com/kubernetes-sigs/blixt/operator/phrase"
)

// drainReport is what blixt drain and undrain print.
type drainReport struct {
	Name string `json:"name"`
	// Runs is true if the process of the load balancer has answered; otherwise its next
	// start obeys. Serves is true if the kernel serves.
	Runs   bool `json:"runs"`
	Serves bool `json:"serves"`
	// Flows are those that are left.
	Flows   uint64          `json:"flows"`
	Drained []drainedReport `json:"drained"`
}

// drainedReport is an address.
type drainedReport struct {
	Address string `json:"address"`
	// Drained is nil if it is not drained any more.
	*lb.Drained
	Flows    uint64           `json:"flows"`
	Backends []drainedBackend `json:"backends"`
}

// drainedBackend is a backend of a frontend with its flows.
type drainedBackend struct {
	Backend  string `json:"backend"`
	Frontend string `json:"frontend"`
	Service  string `json:"service,omitempty"`
	State    string `json:"state"`
	Flows    uint64 `json:"flows"`
}

func newDrainReport(name string, now served, set lb.DrainedSet, targets []netip.AddrPort) *drainReport {
	r := &drainReport{Name: name, Runs: now.runs, Serves: now.status != nil, Drained: []drainedReport{}}
	for _, at := range targets {
		one := drainedReport{Address: standalone.DrainedName(at), Drained: set[at], Backends: []drainedBackend{}}
		for b := range now.of([]netip.AddrPort{at}) {
			one.Backends = append(one.Backends, drainedBackend{b.Address, b.frontend.Frontend, b.Service, b.State, b.ActiveFlows})
			one.Flows += b.ActiveFlows
		}
		r.Flows += one.Flows
		r.Drained = append(r.Drained, one)
	}
	return r
}

// table prints what is drained for people.
func (r *drainReport) table(out io.Writer) {
	p := printer{out}
	for _, d := range r.Drained {
		what := ""
		if len(d.Backends) == 0 && r.Serves {
			what = "; it is no backend now"
		}
		p.printf("%s is drained %s%s\n", d.Address, d.Drained, what)
	}
	switch left := phrase.Count(int(r.Flows), "flow") + " left"; {
	case r.Flows > 0:
		p.printf("%s with load balancer %s on this host:\n\n", left, r.Name)
		r.flows(out)
	case r.Serves:
		p.printf("%s with load balancer %s on this host\n", left, r.Name)
	}
	r.process(p)
}

// undrainedTable prints what is drained no more.
func (r *drainReport) undrainedTable(out io.Writer) {
	p := printer{out}
	for _, d := range r.Drained {
		p.printf("%s is drained no more", d.Address)
		states := map[string]int{}
		for _, b := range d.Backends {
			states[b.State]++
		}
		switch n := states[lb.StateServing]; {
		case len(d.Backends) == 0 && r.Serves:
			p.printf("; it is no backend now\n")
		case !r.Runs || n == len(d.Backends): // who does not run has not changed it
			p.printf("\n")
		case n > 0:
			p.printf("; it serves in %d of %d frontends\n", n, len(d.Backends))
		default:
			p.printf("; it gets no new flows, as its endpoint is not ready, or its weight is 0\n")
		}
	}
	r.process(p)
}

// flows prints where flows are left.
func (r *drainReport) flows(out io.Writer) {
	t, flush := newTable(out)
	t.printf("BACKEND\tFRONTEND\tSERVICE\tFLOWS\n")
	for _, d := range r.Drained {
		for _, b := range d.Backends {
			if b.Flows > 0 {
				t.printf("%s\t%s\t%s\t%d\n", b.Backend, b.Frontend, b.Service, b.Flows)
			}
		}
	}
	flush()
}

// process says who obeys.
func (r *drainReport) process(p printer) {
	switch {
	case r.Runs || len(r.Drained) == 0:
	case r.Serves:
		p.printf("No process of load balancer %s answers: this takes effect with the next blixt run. Until then the kernel serves what it did.\n", r.Name)
	default:
		p.printf("Nothing is to be seen of load balancer %s on this host: this takes effect with the next blixt run.\n", r.Name)
	}
}
