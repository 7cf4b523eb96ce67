// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

var (
	tcp80 = lab.Listener{Protocol: "TCP", Port: 80}
	udp80 = lab.Listener{Protocol: "UDP", Port: 80}
	tcp81 = lab.Listener{Protocol: "TCP", Port: 81}
	tcp82 = lab.Listener{Protocol: "TCP", Port: 82}
)

// changingConfig is one Service by TCP and UDP, a second one on a listener of
// its own, and a third in another namespace.
func changingConfig(endpoints []lab.Endpoint, b []*lab.Node) *lab.Config {
	return &lab.Config{
		Gateways: []lab.Gateway{{
			Name: "g", Addresses: []string{lab.VIP4, lab.VIP6}, Listeners: []lab.Listener{tcp80, udp80, tcp81, tcp82},
		}},
		Routes: []lab.Route{
			{Name: "web", Gateway: "g", Listener: tcp80, Refs: []lab.Ref{{Service: "web", Weight: 1}}},
			{Name: "web", Gateway: "g", Listener: udp80, Refs: []lab.Ref{{Service: "web", Weight: 1}}},
			{Name: "second", Gateway: "g", Listener: tcp81, Refs: []lab.Ref{{Service: "second", Weight: 1}}},
			{Name: "granted", Gateway: "g", Listener: tcp82, Refs: []lab.Ref{{Namespace: "other", Service: "web", Weight: 1}}},
		},
		Services: []lab.Service{
			{Name: "web", Endpoints: endpoints},
			{Name: "second", Endpoints: lab.Endpoints(8080, b...)},
			{Namespace: "other", Name: "web", Endpoints: lab.Endpoints(8080, b...)},
		},
		Grants: []lab.Grant{{From: "default", To: "other"}},
	}
}

// with returns endpoints with conditions.
func with(conditions string, endpoints []lab.Endpoint) []lab.Endpoint {
	for i := range endpoints {
		endpoints[i].Conditions = conditions
	}
	return endpoints
}

const (
	notReady = "{ready: false}"
	leaving  = "{ready: false, serving: true, terminating: true}"
)

// TestDefect7_ChangesUnderLoad changes the configuration in every way while 200 TCP
// connections and 40 UDP sockets are in use all the time. Nobody may notice but
// those whose backend or permission has gone.
func TestDefect7_ChangesUnderLoad(t *testing.T) {
	w := newWorld(t, "change", 4, 0)
	b := w.Backends
	w.run(changingConfig(lab.Endpoints(8080, b[:3]...), b), "eth0", "eth1")
	idle := w.dial(w.Client, "tcp", vip(4, 80))
	idler := w.ask(idle, "remember me").Server

	web := w.newCrowd(140, "tcp", vip(4, 80), vip(6, 80))
	datagrams := w.newCrowd(40, "udp", vip(4, 80), vip(6, 80))
	second := w.newCrowd(30, "tcp", vip(4, 81), vip(6, 81))
	granted := w.newCrowd(30, "tcp", vip(4, 82), vip(6, 82))
	all := []*crowd{web, datagrams, second, granted}

	// Each step begins where the one before has ended.
	step := func(name string, f func(w *world)) {
		if !t.Failed() { // one breakage makes many
			t.Run(name, func(t *testing.T) {
				for _, c := range all {
					c.w = w.in(t)
				}
				f(w.in(t))
			})
		}
	}
	unharmed := func(what string) {
		t.Helper()
		for _, c := range all {
			c.unharmed(what)
		}
	}
	change := func(w *world, endpoints ...[]lab.Endpoint) {
		w.Helper()
		*w.config = *changingConfig(slices.Concat(endpoints...), b)
		w.check(w.blixt.Apply(w.config))
	}
	// newcomers fails the test unless new connections go to these backends, and all of them.
	newcomers := func(w *world, want ...string) {
		w.Helper()
		got := w.count(120, func(i int) (string, error) { return w.answerer(vip(4+i%2*2, 80)) })
		for _, name := range want {
			if got[name] == 0 {
				w.Errorf("no new connection reached %s: %v", name, got)
			}
			delete(got, name)
		}
		if len(got) > 0 {
			w.Errorf("new connections reached others than %v: %v", want, got)
		}
	}

	step("a backend is added", func(w *world) {
		newcomers(w, "backend-1", "backend-2", "backend-3")
		change(w, lab.Endpoints(8080, b...))
		unharmed("adding a backend")
		newcomers(w, "backend-1", "backend-2", "backend-3", "backend-4")
	})
	step("weights change", func(w *world) {
		*w.config = *changingConfig(lab.Endpoints(8080, b...), b)
		for i := range w.config.Routes[:2] {
			w.config.Routes[i].Refs = []lab.Ref{{Service: "web", Weight: 1}, {Service: "second", Weight: 100}, {Service: "web", Weight: 7}}
		}
		w.check(w.blixt.Apply(w.config))
		unharmed("changing weights")
		change(w, lab.Endpoints(8080, b...))
		unharmed("changing weights back")
	})
	step("a backend is not ready", func(w *world) {
		change(w, with(notReady, lab.Endpoints(8080, b[0])), lab.Endpoints(8080, b[1:]...))
		unharmed("a backend that is not ready")
		newcomers(w, "backend-2", "backend-3", "backend-4")
	})
	step("none but a terminating one", func(w *world) {
		change(w, with(notReady, lab.Endpoints(8080, b[:3]...)), with(leaving, lab.Endpoints(8080, b[3])))
		unharmed("terminating backends")
		newcomers(w, "backend-4")
	})
	step("none at all", func(w *world) {
		change(w, with(notReady, lab.Endpoints(8080, b...)))
		unharmed("draining all")
		newcomers(w, refused)
	})
	step("all are back", func(w *world) {
		change(w, lab.Endpoints(8080, b...))
		unharmed("backends that are ready again")
		newcomers(w, "backend-1", "backend-2", "backend-3", "backend-4")
	})
	step("a backend is removed", func(w *world) {
		gone := "backend-2"
		if idler == gone {
			gone = "backend-3"
		}
		stay := slices.DeleteFunc(slices.Clone(b), func(n *lab.Node) bool { return n.Name == gone })
		had, sockets := web.with()[gone], datagrams.with()[gone]
		before := w.status()
		change(w, lab.Endpoints(8080, stay...))
		web.round()
		for server, errs := range web.losses() {
			if server != gone {
				w.Errorf("%d connections of %s broke: %v", len(errs), server, errs[0])
			} else if len(errs) != had || had == 0 {
				w.Errorf("%d of %d connections of %s broke", len(errs), had, gone)
			}
			for _, err := range errs {
				if !errors.Is(err, syscall.ECONNRESET) {
					w.Errorf("a connection was not reset but: %v", err)
				}
			}
		}
		if moved, _ := web.moves(); moved > 0 {
			w.Errorf("%d connections got another server", moved)
		}
		datagrams.round()
		// An answer under way from a backend that is gone is not delivered: nobody vouches for it.
		moved, unheard := datagrams.moves()
		if lost := datagrams.losses(); moved != sockets || unheard > sockets || len(lost) > 0 {
			w.Errorf("of %d UDP sockets of %s %d got another server, with %d answers lost; %v broke",
				sockets, gone, moved, unheard, lost)
		}
		second.unharmed("removing a backend of another Service")
		granted.unharmed("removing a backend of another Service")
		if n := rise(before, w.status(), "reject_backend_gone"); n < uint64(had) {
			w.Errorf("reject_backend_gone rose by %d, want %d at least", n, had)
		}
	})
	step("a grant is withdrawn", func(w *world) {
		w.config.Grants = nil
		w.endsAll(granted, web, datagrams, second)
		if _, err := w.Client.Dial("tcp", "", vip(4, 82), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("a new connection without permission: %v", err)
		}
	})
	step("a listener is removed", func(w *world) {
		w.config.Gateways[0].Listeners = []lab.Listener{tcp80, udp80, tcp82}
		w.endsAll(second, web, datagrams)
		if _, err := w.Client.Dial("tcp", "", vip(6, 81), patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("a new connection to a listener that is gone: %v", err)
		}
	})
	step("an idle connection has survived it all", func(w *world) {
		if a := w.ask(idle, "still there?"); a.Server != idler {
			w.Errorf("%s answers, not %s", a.Server, idler)
		}
	})
	for _, c := range all {
		c.end()
	}
}

// endsAll applies the configuration: all connections of one crowd are reset,
// none of the others.
func (w *world) endsAll(gone *crowd, others ...*crowd) {
	w.Helper()
	had := 0
	for _, n := range gone.with() {
		had += n
	}
	w.check(w.blixt.Apply(w.config))
	gone.round()
	lost := 0
	for _, errs := range gone.losses() {
		lost += len(errs)
		for _, err := range errs {
			if !errors.Is(err, syscall.ECONNRESET) {
				w.Errorf("a connection was not reset but: %v", err)
			}
		}
	}
	if lost != had || had == 0 {
		w.Errorf("%d of %d connections were reset", lost, had)
	}
	for _, c := range others {
		c.unharmed("what is no concern of theirs")
	}
}
