// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// share is a route's promise: which part of connections each backend gets.
type share struct {
	name     string
	refs     []lab.Ref
	expected map[string]float64
}

var shares = []share{
	{"3 to 1", []lab.Ref{{Service: "one", Weight: 3}, {Service: "two", Weight: 1}},
		map[string]float64{"backend-1": .75, "backend-2": .25}},
	{"70, 30 and 0", []lab.Ref{{Service: "one", Weight: 70}, {Service: "two", Weight: 30}, {Service: "three", Weight: 0}},
		map[string]float64{"backend-1": .7, "backend-2": .3}},
	{"a weight is divided among endpoints", []lab.Ref{{Service: "one", Weight: 1}, {Service: "pair", Weight: 1}},
		map[string]float64{"backend-1": .5, "backend-3": .25, "backend-4": .25}},
	{"a Service twice", []lab.Ref{{Service: "one", Weight: 1}, {Service: "two", Weight: 1}, {Service: "one", Weight: 2}},
		map[string]float64{"backend-1": .75, "backend-2": .25}},
	{"half of it leads nowhere", []lab.Ref{{Service: "one", Weight: 1}, {Service: "missing", Weight: 1}},
		map[string]float64{"backend-1": .5, labtest.Refused: .5}},
	{"all of it leads nowhere", []lab.Ref{{Service: "missing", Weight: 1}}, map[string]float64{labtest.Refused: 1}},
	{"a Service without endpoints", []lab.Ref{{Service: "empty", Weight: 1}}, map[string]float64{labtest.Refused: 1}},
	{"one of two without endpoints", []lab.Ref{{Service: "one", Weight: 3}, {Service: "empty", Weight: 1}},
		map[string]float64{"backend-1": .75, labtest.Refused: .25}},
	{"weight 0 alone", []lab.Ref{{Service: "one", Weight: 0}}, map[string]float64{labtest.Refused: 1}},
	{"draining and serving", []lab.Ref{{Service: "draining", Weight: 1}}, map[string]float64{"backend-2": 1}},
	{"none but terminating", []lab.Ref{{Service: "leaving", Weight: 1}}, map[string]float64{"backend-3": 1}},
}

func sharesConfig(w *labtest.World) *lab.Config {
	b := w.Backends
	with := func(conditions string, endpoints []lab.Endpoint) []lab.Endpoint {
		for i := range endpoints {
			endpoints[i].Conditions = conditions
		}
		return endpoints
	}
	c := &lab.Config{Services: []lab.Service{
		{Name: "one", Endpoints: lab.Endpoints(8080, b[0])},
		{Name: "two", Endpoints: lab.Endpoints(8080, b[1])},
		{Name: "three", Endpoints: lab.Endpoints(8080, b[2])},
		{Name: "pair", Endpoints: lab.Endpoints(8080, b[2], b[3])},
		{Name: "empty"},
		{Name: "draining", Endpoints: append(with("{ready: false}", lab.Endpoints(8080, b[0])), lab.Endpoints(8080, b[1])...)},
		{Name: "leaving", Endpoints: append(with("{ready: false}", lab.Endpoints(8080, b[0])),
			with("{ready: false, serving: true, terminating: true}", lab.Endpoints(8080, b[2]))...)},
	}}
	g := lab.Gateway{Name: "g", Addresses: []string{lab.VIP4, lab.VIP6}}
	for i, s := range shares {
		for _, protocol := range []string{"TCP", "UDP"} {
			l := lab.Listener{Protocol: protocol, Port: 1000 + i}
			g.Listeners = append(g.Listeners, l)
			c.Routes = append(c.Routes, lab.Route{Name: fmt.Sprintf("r-%d", i), Gateway: "g", Listener: l, Refs: s.refs})
		}
	}
	c.Gateways = []lab.Gateway{g}
	return c
}

// TestDefect10_SharesFollowTheWeights opens connections and counts which backend
// answers. Connections that are to be refused have to be refused at once.
func TestDefect10_SharesFollowTheWeights(t *testing.T) {
	w := labtest.New(t, "shares", 4, 0)
	w.StartBlixt(sharesConfig(w), "eth0", "eth1")
	for i, s := range shares {
		t.Run(s.name, func(t *testing.T) { checkShares(w.In(t), s, 1000+i) })
	}
}

const connections = 800

func checkShares(w *labtest.World, s share, port int) {
	before := w.Status()
	got := w.Tally(connections, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, port)) })
	after := w.Status()

	for name, n := range got {
		if s.expected[name] == 0 {
			w.Errorf("%s got %d connections", name, n)
		}
	}
	for name, p := range s.expected {
		// Five standard deviations, and one percent for the rounding of a ring.
		bound := connections * (5*math.Sqrt(p*(1-p)/connections) + .01*p*(1-p))
		if n := got[name]; math.Abs(float64(n)-p*connections) > bound {
			w.Errorf("%s got %d of %d connections, want %.0f ± %.0f", name, n, connections, p*connections, bound)
		}
	}

	var flows, rejected uint64
	for _, family := range []int{4, 6} {
		f, g := w.Frontend(before, "tcp", labtest.VIP(family, port)), w.Frontend(after, "tcp", labtest.VIP(family, port))
		flows += g.NewFlows - f.NewFlows
		rejected += g.Rejected - f.Rejected
	}
	if want := uint64(connections - got[labtest.Refused]); flows != want || rejected != uint64(got[labtest.Refused]) {
		w.Errorf("Blixt counts %d flows and %d rejects, want %d and %d", flows, rejected, want, got[labtest.Refused])
	}
	if s.expected[labtest.Refused] == 1 {
		checkSilent(w, port)
	}
}

// checkSilent fails the test if a datagram that is to be rejected is answered.
func checkSilent(w *labtest.World, port int) {
	for _, family := range []int{4, 6} {
		c := w.Dial(w.Client, "udp", labtest.VIP(family, port))
		if a, err := lab.Ask(c, "hello", 50*time.Millisecond); err == nil {
			w.Errorf("%s answers a datagram that leads nowhere", a.Server)
		}
		if n := w.Frontend(w.Status(), "udp", labtest.VIP(family, port)).Rejected; n != 1 {
			w.Errorf("Blixt counts %d datagrams refused, want 1", n)
		}
	}
}
