// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
)

// judged is a Gateway with a route of TCP and of UDP, both to all backends, and a policy for each.
func judged(spec string, endpoints []lab.Endpoint, more ...lab.Service) *lab.Config {
	c := &lab.Config{Services: append([]lab.Service{{Name: "all", Endpoints: endpoints}}, more...)}
	g := lab.Gateway{Name: "g", Addresses: []string{lab.VIP4, lab.VIP6}}
	refs := []lab.Ref{{Service: "all", Weight: 1}}
	for _, s := range more {
		refs = append(refs, lab.Ref{Service: s.Name, Weight: 1})
	}
	for _, protocol := range []string{"TCP", "UDP"} {
		l := lab.Listener{Protocol: protocol, Port: 80}
		name := strings.ToLower(protocol)
		g.Listeners = append(g.Listeners, l)
		c.Routes = append(c.Routes, lab.Route{Name: name, Gateway: "g", Listener: l, Refs: refs})
		c.Policies = append(c.Policies, lab.Policy{Name: name, Targets: []string{protocol + "Route " + name}, Spec: spec})
	}
	c.Gateways = []lab.Gateway{g}
	return c
}

// twoPrefixes gives the client addresses of another /24 and /64, and returns all of a family.
func twoPrefixes(w *labtest.World) map[int][]string {
	w.Client.IP("address add 10.67.0.2/32 dev eth0", "address add fd67::2/128 dev eth0 nodad")
	w.Balancer.IP("route add 10.67.0.0/24 via "+lab.Client4, "route add fd67::/64 via "+lab.Client6)
	w.Check(w.Err())
	return map[int][]string{4: {lab.Client4, "10.67.0.2"}, 6: {lab.Client6, "fd67::2"}}
}

// connections are made all the time, and counted by who answers.
type connecting struct {
	mu     sync.Mutex
	stop   chan struct{}
	wg     sync.WaitGroup
	failed []error
	slow   time.Duration  // the longest that one took to be made
	by     map[string]int // since the last call of take

	between sync.RWMutex // held by each connection until it is answered
}

// connect has the client make connections to the VIPs from all of its addresses, and expects an answer to each.
func connect(w *labtest.World, network string, from map[int][]string) *connecting {
	c := &connecting{stop: make(chan struct{}), by: map[string]int{}}
	for family, addrs := range from {
		for i := range 12 { // each waits for its answer: several have to fail at the same time
			addr := addrs[i%len(addrs)]
			c.wg.Go(func() {
				for {
					select {
					case <-c.stop:
						return
					case <-time.After(50 * time.Millisecond):
					}
					c.between.RLock()
					began := time.Now()
					port := 0
					if network == "udp" {
						port = int(labtest.NewPort())
					}
					name, err := connectAndAsk(w, network, labtest.At(addr, port), labtest.VIP(family, 80))
					c.between.RUnlock()
					c.mu.Lock()
					c.by[name]++
					c.slow = max(c.slow, time.Since(began))
					if err != nil {
						c.failed = append(c.failed, fmt.Errorf("from %s: %w", addr, err))
					}
					c.mu.Unlock()
				}
			})
		}
	}
	w.Cleanup(c.end)
	return c
}

func connectAndAsk(w *labtest.World, network, from, to string) (string, error) {
	conn, err := w.Client.Dial(network, from, to, 20*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	a, err := lab.Ask(conn, "who?", labtest.Patience)
	return a.Server, err
}

// whileNone does something while there is no connection: nobody saves one whose backend dies before it answers.
func (c *connecting) whileNone(do func()) {
	c.between.Lock()
	defer c.between.Unlock()
	do()
}

func (c *connecting) end() {
	select {
	case <-c.stop:
	default:
		close(c.stop)
	}
	c.wg.Wait()
}

// take returns who has answered since the last call, how long it took at most, and what has failed.
func (c *connecting) take() (by map[string]int, slow time.Duration, failed []error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by, slow, failed = c.by, c.slow, c.failed
	c.by, c.slow, c.failed = map[string]int{}, 0, nil
	return by, slow, failed
}

// silence has a node drop what it would answer, or not any more: no RST, no ICMP error.
func silence(w *labtest.World, n *lab.Node, protocol string, on bool) {
	verb := map[bool]string{true: "add", false: "del"}[on]
	for _, family := range []string{"-4", "-6"} {
		_, err := n.Run(labtest.Patience, "ip", family, "rule", verb, "pref", "10", "ipproto", protocol, "sport", "8080", "blackhole")
		w.Check(err)
	}
}

const quickPassive = "health: {passive: {consecutive: 3, baseEjection: 4s, maxEjection: 60s}}"

// TestBlackHoleIsEjected: a backend does not answer any more, without a word. Within five seconds it gets no new
// connections, none has failed, and later ones do not wait. When it answers again, it is found out by a trial.
func TestBlackHoleIsEjected(t *testing.T) {
	w := labtest.New(t, "blackhole", 3, 0)
	from := twoPrefixes(w)
	w.StartBlixt(judged(quickPassive, lab.Endpoints(8080, w.Backends...)))
	c := connect(w, "tcp", from)
	time.Sleep(2 * time.Second)
	if by, _, failed := c.take(); len(by) != 3 || len(failed) > 0 {
		t.Fatalf("before: %v, failed: %v", by, failed)
	}
	c.whileNone(func() { silence(w, w.Backends[0], "tcp", true) })
	began := time.Now()
	w.Check(lab.Eventually(5*time.Second, func() error {
		for _, backend := range []string{w.Backends[0].IPv4 + ":8080", "[" + w.Backends[0].IPv6 + "]:8080"} {
			if !strings.Contains(w.Blixt.Log(), "backend "+backend+" (TCP) is ejected by policy default/tcp: ") {
				return fmt.Errorf("%s is not ejected", backend)
			}
		}
		return nil
	}))
	t.Logf("ejected after %v", time.Since(began))
	if out, err := w.Blixt.Run("status"); !strings.Contains(out, "ejected until ") {
		t.Errorf("status does not say that it is ejected, %v:\n%s", err, out)
	}
	time.Sleep(2 * time.Second) // those whose SYN was lost have gone elsewhere
	if by, slow, failed := c.take(); len(failed) > 0 {
		t.Errorf("%d connections failed, the first: %v; %v, slowest %v", len(failed), failed[0], by, slow)
	} else {
		t.Logf("during: %v, the slowest after %v", by, slow)
	}
	time.Sleep(500 * time.Millisecond)
	if by, slow, failed := c.take(); by["backend-1"] > 0 || len(failed) > 0 || slow > time.Second/2 {
		t.Errorf("afterwards: %v, slowest %v, failed: %v", by, slow, failed)
	}
	// It fails on trial, which costs one connection a second or so, and none fails.
	time.Sleep(8 * time.Second)
	if by, slow, failed := c.take(); len(failed) > 0 || by["backend-1"] > 0 {
		t.Errorf("on trial: %v, slowest %v, failed: %v", by, slow, failed)
	}
	if !strings.Contains(w.Blixt.Log(), "backend has failed on trial") {
		t.Error("it was not tried")
	}
	silence(w, w.Backends[0], "tcp", false)
	w.Check(lab.Eventually(25*time.Second, func() error {
		by, _, failed := c.take()
		if len(failed) > 0 {
			t.Errorf("afterwards failed: %v", failed)
		}
		if by["backend-1"] < 3 {
			return fmt.Errorf("the backend that answers again gets no connections: %v", by)
		}
		time.Sleep(time.Second)
		return nil
	}))
	c.end()
	if out, err := w.Blixt.Run("status"); err != nil || strings.Contains(out, "is ejected") {
		t.Errorf("status, %v:\n%s", err, out)
	}
	w.CheckChecksums()
}

// TestRefusedDatagramsEject: an ICMP error ejects a backend of UDP; silence never does.
func TestRefusedDatagramsEject(t *testing.T) {
	w := labtest.New(t, "udprefused", 3, 0)
	servers, err := w.Backends[0].ServeBoth("backend-1", 8081)
	w.Check(err)
	w.StartBlixt(judged(quickPassive, append(lab.Endpoints(8080, w.Backends[1:]...), lab.Endpoints(8081, w.Backends[0])...)))
	from := map[int][]string{4: {lab.Client4}, 6: {lab.Client6}}
	silence(w, w.Backends[1], "udp", true) // one that listens, and never answers
	var wg sync.WaitGroup
	send := func(n int) (refused int) {
		var mu sync.Mutex
		for family, addrs := range from {
			wg.Go(func() {
				for range n {
					_, err := askSoon(w, labtest.At(addrs[0], int(labtest.NewPort())), labtest.VIP(family, 80))
					if errors.Is(err, syscall.ECONNREFUSED) {
						mu.Lock()
						refused++
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		return refused
	}
	if n := send(40); n > 0 {
		t.Errorf("%d datagrams were refused", n)
	}
	for _, server := range servers { // so that the host refuses
		w.Check(server.Close())
	}
	send(30)
	w.Check(lab.Eventually(5*time.Second, func() error {
		for _, backend := range []string{w.Backends[0].IPv4 + ":8081", "[" + w.Backends[0].IPv6 + "]:8081"} {
			if !strings.Contains(w.Blixt.Log(), "backend "+backend+" (UDP) is ejected by policy default/udp: ") {
				return fmt.Errorf("%s is not ejected", backend)
			}
		}
		return nil
	}))
	time.Sleep(300 * time.Millisecond)
	if n := send(15); n > 0 {
		t.Errorf("%d datagrams were refused after the backend was ejected", n)
	}
	if strings.Contains(w.Blixt.Log(), w.Backends[1].IPv4+":8080 (UDP) is ejected") {
		t.Error("a backend that is silent is ejected")
	}
}

func askSoon(w *labtest.World, from, to string) (string, error) {
	conn, err := w.Client.Dial("udp", from, to, labtest.Patience)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	a, err := lab.Ask(conn, "who?", 100*time.Millisecond)
	return a.Server, err
}

// says waits until blixt status of the host says so, or does not any more.
func says(w *labtest.World, text string, want bool) {
	w.Helper()
	w.Check(lab.Eventually(labtest.Patience, func() error {
		// It exits with 1 if anything on the host is not well, also of others.
		if out, err := w.Balancer.Run(10*time.Second, w.Blixt.Binary, "status", "host", "-o", "json"); strings.Contains(out, text) != want {
			return fmt.Errorf("blixt status says %q: %t, want %t: %s\n%s", text, !want, want, fmt.Sprint(err), out)
		}
		return nil
	}))
}

// TestActiveChecks checks by TCP, UDP and HTTP from the process itself, at a port beside the one that is served.
func TestActiveChecks(t *testing.T) {
	for name, c := range map[string]struct {
		spec string
		// serve begins to answer checks at a node's address, and returns how to end it.
		serve func(w *labtest.World, n *lab.Node, ip string) func()
		why   string
	}{
		"tcp":  {"type: TCP", serveTCP, "connection refused"},
		"udp":  {"type: UDP, udp: {payload: cGluZw==, expect: cG9uZw==}", serveUDP, "connection refused"},
		"http": {"type: HTTP, http: {path: /healthz}", serveHTTP, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			w := labtest.New(t, "active"+name, 2, 0)
			stops := map[*lab.Node][]func(){}
			for _, n := range w.Backends {
				for _, ip := range []string{n.IPv4, n.IPv6} {
					stops[n] = append(stops[n], c.serve(w, n, ip))
				}
			}
			w.StartBlixt(judged("health: {active: {"+c.spec+", port: 9000, interval: 1s, timeout: 500ms, rise: 1, fall: 2}}", lab.Endpoints(8080, w.Backends...)))
			tally := func() map[string]int {
				return w.Tally(80, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, 80)) })
			}
			if got := tally(); got["backend-1"] == 0 || got["backend-2"] == 0 {
				t.Fatalf("at first: %v", got)
			}
			for _, stop := range stops[w.Backends[0]] {
				stop()
			}
			w.Check(lab.Eventually(2*labtest.Patience, func() error {
				if got := tally(); got["backend-1"] > 0 {
					return fmt.Errorf("a backend that is down: %v", got)
				}
				return nil
			}))
			if !strings.Contains(w.Blixt.Log(), strings.ToUpper(name)+" check of "+w.Backends[0].IPv4+":9000: "+c.why) {
				t.Errorf("the log does not say why")
			}
			// All at once: the check is suspected, and all serve.
			for _, stop := range stops[w.Backends[1]] {
				stop()
			}
			w.Check(lab.Eventually(2*labtest.Patience, func() error {
				if n := strings.Count(w.Blixt.Log(), "WARN policy default/"); n < 4 {
					return fmt.Errorf("the log says of %d of 4 frontends that the check is suspected", n)
				}
				return nil
			}))
			w.Check(lab.Eventually(labtest.Patience, func() error {
				if got := tally(); got["backend-1"] == 0 || got["backend-2"] == 0 || got[labtest.Refused] > 0 {
					return fmt.Errorf("all checks fail: %v", got)
				}
				return nil
			}))
			suspected := strings.ToUpper(name) + " check fails for all 2 backends"
			says(w, suspected, true)
			for _, ip := range []string{w.Backends[0].IPv4, w.Backends[0].IPv6} {
				c.serve(w, w.Backends[0], ip)
			}
			w.Check(lab.Eventually(2*labtest.Patience, func() error {
				if got := tally(); got["backend-2"] > 0 {
					return fmt.Errorf("one is up again: %v", got)
				}
				return nil
			}))
			says(w, suspected, false)
		})
	}
}

func serveTCP(w *labtest.World, n *lab.Node, ip string) func() {
	ln, err := n.Listen("tcp", labtest.At(ip, 9000))
	w.Check(err)
	w.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	return func() { ln.Close() }
}

func serveUDP(w *labtest.World, n *lab.Node, ip string) func() {
	c, err := n.ListenPacket("udp", labtest.At(ip, 9000))
	w.Check(err)
	w.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if string(b[:n]) == "ping" {
				_, _ = c.WriteTo([]byte("pong"), from)
			}
		}
	}()
	return func() { c.Close() }
}

func serveHTTP(w *labtest.World, n *lab.Node, ip string) func() {
	ln, err := n.Listen("tcp", labtest.At(ip, 9000))
	w.Check(err)
	s := &http.Server{Handler: http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/healthz" {
			res.WriteHeader(http.StatusInternalServerError)
		}
	})}
	go func() { _ = s.Serve(ln) }()
	w.Cleanup(func() { s.Close() })
	return func() { s.Close() }
}

// TestFailover: when no backend of the first group is ready, the second one serves at once, and gives back when enough of
// the first have been ready for a while. Connections stay where they are.
func TestFailover(t *testing.T) {
	w := labtest.New(t, "failover", 3, 0)
	config := func(ready bool) *lab.Config {
		first := lab.Endpoints(8080, w.Backends[:2]...)
		for i := range first {
			first[i].Conditions = fmt.Sprintf("{ready: %v}", ready)
		}
		c := judged("failover: {backends: [{name: standby, priority: 1}], holdTime: 3s}", first, lab.Service{Name: "standby", Endpoints: lab.Endpoints(8080, w.Backends[2])})
		return c
	}
	w.StartBlixt(config(true))
	tally := func() map[string]int {
		return w.Tally(80, func(i int) (string, error) { return w.Answerer(labtest.VIP(4+i%2*2, 80)) })
	}
	if got := tally(); got["backend-3"] > 0 || got["backend-1"] == 0 || got["backend-2"] == 0 {
		t.Fatalf("at first: %v", got)
	}
	old := w.StartClients(8, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	w.Check(w.Blixt.AwaitLog("serving", labtest.Patience, func() error { return w.Blixt.Apply(config(false)) }))
	if got := tally(); got["backend-3"] != 80 {
		t.Fatalf("the first group is away: %v", got)
	}
	young := w.StartClients(8, "tcp", labtest.VIP(4, 80), labtest.VIP(6, 80))
	back := time.Now()
	w.Check(w.Blixt.Apply(config(true)))
	time.Sleep(time.Second)
	if got := tally(); got["backend-3"] != 80 {
		t.Fatalf("too soon, %v after the first group is back: %v", time.Since(back), got)
	}
	w.Check(lab.Eventually(2*labtest.Patience, func() error {
		if got := tally(); got["backend-3"] > 0 {
			return fmt.Errorf("the first group is back: %v", got)
		}
		return nil
	}))
	if took := time.Since(back); took < 3*time.Second {
		t.Errorf("it took %v, less than holdTime", took)
	}
	for _, c := range []*labtest.Clients{old, young} {
		c.Stop()
		for m := range c.Alive {
			if c == young && m.Server != "backend-3" {
				t.Errorf("a connection of backend-3 is with %s", m.Server)
			}
		}
		if len(c.Alive) != 8 {
			t.Errorf("%d of 8 connections live", len(c.Alive))
		}
	}
}

// TestFailoverByClients: only clients' connections find out that the first group answers no more, and that it does
// again. Meanwhile the second one serves, and a connection at a time tries the first.
func TestFailoverByClients(t *testing.T) {
	w := labtest.New(t, "failoverpassive", 2, 0)
	from := twoPrefixes(w)
	spec := strings.TrimSuffix(quickPassive, "}}") + ", maxEjectedPercent: 100}}\nfailover: {backends: [{name: standby, priority: 1}], holdTime: 1s}"
	w.StartBlixt(judged(spec, lab.Endpoints(8080, w.Backends[0]), lab.Service{Name: "standby", Endpoints: lab.Endpoints(8080, w.Backends[1])}))
	c := connect(w, "tcp", from)
	time.Sleep(time.Second)
	if by, _, failed := c.take(); len(by) != 1 || by["backend-1"] == 0 || len(failed) > 0 {
		t.Fatalf("before: %v, failed: %v, want backend-1 alone", by, failed)
	}
	c.whileNone(func() { silence(w, w.Backends[0], "tcp", true) })
	only := func(name string, wait time.Duration) {
		t.Helper()
		w.Check(lab.Eventually(wait, func() error {
			c.take()
			time.Sleep(time.Second)
			if by, _, failed := c.take(); len(by) != 1 || by[name] == 0 || len(failed) > 0 {
				return fmt.Errorf("%v, failed: %v, want %s alone", by, failed, name)
			}
			return nil
		}))
	}
	only("backend-2", 12*time.Second)
	w.Check(lab.Eventually(12*time.Second, func() error {
		if !strings.Contains(w.Blixt.Log(), "backend has failed on trial") {
			return errors.New("the first group was not tried")
		}
		return nil
	}))
	silence(w, w.Backends[0], "tcp", false)
	only("backend-1", 25*time.Second)
	c.end()
}
