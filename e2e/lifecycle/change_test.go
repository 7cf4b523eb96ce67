// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

var (
	tcp80 = lab.Listener{Protocol: "TCP", Port: 80}
	udp80 = lab.Listener{Protocol: "UDP", Port: 80}
	tcp81 = lab.Listener{Protocol: "TCP", Port: 81}
	tcp82 = lab.Listener{Protocol: "TCP", Port: 82}
)

// changingConfig serves one Service by TCP and UDP, a second one on a listener of its
// own, and a third in another namespace.
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

// with returns the endpoints with conditions.
func with(conditions string, endpoints []lab.Endpoint) []lab.Endpoint {
	for i := range endpoints {
		endpoints[i].Conditions = conditions
	}
	return endpoints
}

const (
	notReady   = "{ready: false}"
	notServing = "{ready: false, serving: false}"
	leaving    = "{ready: false, serving: true, terminating: true}"
)

// TestDefect7_ChangesUnderLoad changes the configuration in every way while 200 TCP
// connections and 40 UDP sockets are in use. Only those may notice whose backend or
// permission is gone.
func TestDefect7_ChangesUnderLoad(t *testing.T) {
	w := labtest.New(t, "change", 4, 0)
	b := w.Backends
	w.StartBlixt(changingConfig(lab.Endpoints(8080, b[:3]...), b), "eth0", "eth1")
	idle := w.Dial(w.Client, "tcp", labtest.VIP(4, 80))
	idler := w.Ask(idle, "remember me").Server

	web := w.StartClients(140, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	datagrams := w.StartClients(40, "udp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	second := w.StartClients(30, "tcp", labtest.VIP(4, 81), labtest.VIP(6, 81))
	granted := w.StartClients(30, "tcp", labtest.VIP(4, 82), labtest.VIP(6, 82))
	all := []*labtest.Clients{web, datagrams, second, granted}

	// Each step starts from the state that the previous one has left.
	step := func(name string, f func(w *labtest.World)) {
		if !t.Failed() { // one failure causes more
			t.Run(name, func(t *testing.T) {
				for _, c := range all {
					c.World = w.In(t)
				}
				f(w.In(t))
			})
		}
	}
	unharmed := func(what string) {
		t.Helper()
		for _, c := range all {
			c.CheckUnharmed(what)
		}
	}
	change := func(w *labtest.World, endpoints ...[]lab.Endpoint) {
		w.Helper()
		*w.Config = *changingConfig(slices.Concat(endpoints...), b)
		w.Check(w.Blixt.Apply(w.Config))
	}
	// newcomers fails the test unless new connections reach exactly these backends.
	newcomers := func(w *labtest.World, want ...string) {
		w.Helper()
		got := w.Tally(120, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, 80)) })
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

	step("a backend is added", func(w *labtest.World) {
		newcomers(w, "backend-1", "backend-2", "backend-3")
		change(w, lab.Endpoints(8080, b...))
		unharmed("adding a backend")
		newcomers(w, "backend-1", "backend-2", "backend-3", "backend-4")
	})
	step("weights change", func(w *labtest.World) {
		*w.Config = *changingConfig(lab.Endpoints(8080, b...), b)
		for i := range w.Config.Routes[:2] {
			w.Config.Routes[i].Refs = []lab.Ref{{Service: "web", Weight: 1}, {Service: "second", Weight: 100}, {Service: "web", Weight: 7}}
		}
		w.Check(w.Blixt.Apply(w.Config))
		unharmed("changing weights")
		change(w, lab.Endpoints(8080, b...))
		unharmed("changing weights back")
	})
	step("a backend is not ready", func(w *labtest.World) {
		change(w, with(notReady, lab.Endpoints(8080, b[0])), lab.Endpoints(8080, b[1:]...))
		unharmed("a backend that is not ready")
		newcomers(w, "backend-2", "backend-3", "backend-4")
	})
	step("a backend does not serve", func(w *labtest.World) {
		if datagrams.ByServer()["backend-1"] == 0 {
			w.Fatal("no UDP client has backend-1")
		}
		change(w, with(notServing, lab.Endpoints(8080, b[0])), lab.Endpoints(8080, b[1:]...))
		w.Check(lab.Eventually(labtest.Patience, func() error {
			if n := datagrams.ByServer()["backend-1"]; n > 0 {
				return fmt.Errorf("%d UDP clients are with backend-1", n)
			}
			return nil
		}))
		if moved, unanswered := datagrams.Moved(); moved == 0 || unanswered > moved {
			w.Errorf("%d UDP clients got another server, %d datagrams had no answer", moved, unanswered)
		}
		unharmed("a backend that does not serve") // TCP clients of that backend neither
		newcomers(w, "backend-2", "backend-3", "backend-4")
	})
	step("none but a terminating one", func(w *labtest.World) {
		change(w, with(notReady, lab.Endpoints(8080, b[:3]...)), with(leaving, lab.Endpoints(8080, b[3])))
		unharmed("terminating backends")
		newcomers(w, "backend-4")
	})
	step("none at all", func(w *labtest.World) {
		change(w, with(notReady, lab.Endpoints(8080, b...)))
		unharmed("draining all")
		newcomers(w, labtest.Refused)
	})
	step("all are back", func(w *labtest.World) {
		change(w, lab.Endpoints(8080, b...))
		unharmed("backends that are ready again")
		newcomers(w, "backend-1", "backend-2", "backend-3", "backend-4")
	})
	step("a backend is removed", func(w *labtest.World) {
		gone := "backend-2"
		if idler == gone {
			gone = "backend-3"
		}
		stay := slices.DeleteFunc(slices.Clone(b), func(n *lab.Node) bool { return n.Name == gone })
		had, sockets := web.ByServer()[gone], datagrams.ByServer()[gone]
		before := w.Status()
		change(w, lab.Endpoints(8080, stay...))
		web.AwaitRound()
		for server, errs := range web.Lost() {
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
		if moved, _ := web.Moved(); moved > 0 {
			w.Errorf("%d connections got another server", moved)
		}
		datagrams.AwaitRound()
		// The answer of a backend that is gone meanwhile is not delivered.
		moved, unheard := datagrams.Moved()
		if lost := datagrams.Lost(); moved != sockets || unheard > sockets || len(lost) > 0 {
			w.Errorf("of %d UDP sockets of %s %d got another server, with %d answers lost; %v broke",
				sockets, gone, moved, unheard, lost)
		}
		second.CheckUnharmed("removing a backend of another Service")
		granted.CheckUnharmed("removing a backend of another Service")
		if n := labtest.Rise(before, w.Status(), "reject_backend_gone"); n < uint64(had) {
			w.Errorf("reject_backend_gone rose by %d, want %d at least", n, had)
		}
	})
	step("a grant is withdrawn", func(w *labtest.World) {
		w.Config.Grants = nil
		checkAllReset(w, granted, web, datagrams, second)
		if _, err := w.Client.Dial("tcp", "", labtest.VIP(4, 82), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("a new connection without permission: %v", err)
		}
	})
	step("a listener is removed", func(w *labtest.World) {
		w.Config.Gateways[0].Listeners = []lab.Listener{tcp80, udp80, tcp82}
		checkAllReset(w, second, web, datagrams)
		if _, err := w.Client.Dial("tcp", "", labtest.VIP(6, 81), labtest.Patience); !errors.Is(err, syscall.ECONNREFUSED) {
			w.Errorf("a new connection to a listener that is gone: %v", err)
		}
	})
	step("an idle connection has survived it all", func(w *labtest.World) {
		if a := w.Ask(idle, "still there?"); a.Server != idler {
			w.Errorf("%s answers, not %s", a.Server, idler)
		}
	})
	for _, c := range all {
		c.Stop()
	}
}

// checkAllReset applies the configuration. All connections of some clients have to be
// reset, and none of the others.
func checkAllReset(w *labtest.World, gone *labtest.Clients, others ...*labtest.Clients) {
	w.Helper()
	had := 0
	for _, n := range gone.ByServer() {
		had += n
	}
	w.Check(w.Blixt.Apply(w.Config))
	gone.AwaitRound()
	lost := 0
	for _, errs := range gone.Lost() {
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
		c.CheckUnharmed("what is no concern of theirs")
	}
}
