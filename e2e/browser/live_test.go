// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
)

// edge is a host that serves: the real blixt run, with real clients and servers.
type edge struct {
	*testing.T
	*lab.Standard
	blixt *lab.Blixt
	// URL is that of its page.
	URL string
}

// pagePort is that of the page, in the namespace of the host.
const pagePort = "8460"

// A state is one of the shop.
type state int

const (
	well state = iota
	// drained: a backend of shop/web leaves.
	drained
	// ill: a route names a Service that there is not.
	ill
)

// shopConfig is a small shop: web with a canary, DNS and, if it is ill, a database.
func shopConfig(states ...state) *lab.Config {
	at := func(n int, conditions string) lab.Endpoint {
		return lab.Endpoint{Addr: fmt.Sprintf("10.77.0.%d:8080", 11+n), Conditions: conditions}
	}
	web, dns, sql := lab.Listener{Protocol: "TCP", Port: 80}, lab.Listener{Protocol: "UDP", Port: 53}, lab.Listener{Protocol: "TCP", Port: 5432}
	third := at(2, "")
	if slices.Contains(states, drained) {
		third.Conditions = "{ready: false, serving: true, terminating: true}"
	}
	c := &lab.Config{
		Gateways: []lab.Gateway{
			{Namespace: "shop", Name: "web", Addresses: []string{lab.VIP4, lab.VIP6}, Listeners: []lab.Listener{web}},
			{Namespace: "infra", Name: "dns", Addresses: []string{"198.51.100.53"}, Listeners: []lab.Listener{dns}},
		},
		Routes: []lab.Route{
			{Namespace: "shop", Name: "web", Gateway: "web", Listener: web, Refs: []lab.Ref{{Service: "web", Weight: 9}, {Service: "web-canary", Weight: 1}}},
			{Namespace: "infra", Name: "dns", Gateway: "dns", Listener: dns, Refs: []lab.Ref{{Service: "dns", Weight: 1}}},
		},
		Services: []lab.Service{
			{Namespace: "shop", Name: "web", Endpoints: []lab.Endpoint{at(0, ""), at(1, ""), third, {Addr: "[fd77::11]:8080"}}},
			{Namespace: "shop", Name: "web-canary", Endpoints: []lab.Endpoint{at(3, ""), {Addr: "[fd77::14]:8080"}}},
			{Namespace: "infra", Name: "dns", Endpoints: []lab.Endpoint{at(0, ""), at(1, "")}},
		},
	}
	if slices.Contains(states, ill) {
		c.Gateways = append(c.Gateways, lab.Gateway{Namespace: "shop", Name: "orders", Addresses: []string{"198.51.100.54"}, Listeners: []lab.Listener{sql}})
		c.Routes = append(c.Routes, lab.Route{Namespace: "shop", Name: "orders", Gateway: "orders", Listener: sql, Refs: []lab.Ref{{Service: "database", Weight: 1}}})
	}
	return c
}

// newEdge starts the host, its servers and its clients.
func newEdge(t *testing.T, states ...state) *edge {
	t.Helper()
	s, err := lab.NewStandard("blixt-edge", 4, 0)
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{T: t, Standard: s}
	t.Cleanup(func() {
		if t.Failed() && e.blixt != nil {
			t.Logf("blixt said:\n%s", e.blixt.Log())
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range s.Backends {
		if _, err := n.ServeBoth(n.Name, 8080); err != nil {
			t.Fatal(err)
		}
	}
	if e.blixt, err = s.Blixt(s.Balancer, binary, shopConfig(states...)); err != nil {
		t.Fatal(err)
	}
	e.blixt.Args = append(e.blixt.Args, "--http-address", "127.0.0.1:"+pagePort, "--flow-records")
	if err := e.blixt.Start(); err != nil {
		t.Fatal(err)
	}
	e.URL = e.forward()
	return e
}

// forward has the browser, which is in no namespace of the lab, reach the page. It returns
// the page's URL.
func (e *edge) forward() string {
	e.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.Fatal(err)
	}
	e.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := e.Balancer.Dial("tcp", "", "127.0.0.1:"+pagePort, patience)
			if err != nil {
				_ = from.Close()
				continue
			}
			pipe := func(a, b net.Conn) {
				_, _ = io.Copy(a, b)
				_, _ = a.Close(), b.Close()
			}
			go pipe(from, to)
			go pipe(to, from)
		}
	}()
	return "http://" + l.Addr().String() + "/"
}

// traffic has clients ask all the time, until the test ends: some keep their connections,
// others connect anew for each question, and some ask where nobody serves.
func (e *edge) traffic() {
	e.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	e.Cleanup(func() { close(stop); wg.Wait() })
	ask := func(network, addr string, pause time.Duration, size int) {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(pause):
				}
				c, err := e.Client.Dial(network, "", addr, time.Second)
				if err != nil {
					continue // where nobody serves
				}
				_, _ = lab.Ask(c, strings.Repeat("x", size), time.Second)
				_ = c.Close()
			}
		})
	}
	for i := range 3 {
		ask("tcp", lab.VIP4+":80", time.Duration(20+15*i)*time.Millisecond, 20_000)
	}
	ask("tcp", "["+lab.VIP6+"]:80", 50*time.Millisecond, 3_000)
	ask("udp", "198.51.100.53:53", 40*time.Millisecond, 40)
	ask("tcp", "198.51.100.54:5432", 200*time.Millisecond, 1) // served if the shop is ill, and then refused
	for range 25 {                                            // these stay
		c, err := e.Client.Dial("tcp", "", lab.VIP4+":80", patience)
		if err != nil {
			e.Fatal(err)
		}
		if _, err := lab.Ask(c, "hello", patience); err != nil {
			e.Fatal(err)
		}
		e.Cleanup(func() { _ = c.Close() })
	}
}

// The page of a host that runs shows what it does.
func TestHost(t *testing.T) {
	e := newEdge(t, ill)
	e.traffic()
	w := newTab(t)
	w.open(e.URL)
	w.awaitText("blixt-edge", "shop/web", "infra/dns", "shop/orders")
	w.inOrder(eval[string](w, text), "NOT WELL", "database", "shop/orders")
	w.click("shop/web")
	w.awaitText("10.77.0.11:8080", "10.77.0.14:8080", "web-canary")
	w.click("The same as tables")
	w.check(e.blixt.Apply(shopConfig(drained, ill)))
	w.awaitText("draining")
	await(w, "rates, shares and connect times", `document.querySelector('tr.detail').innerText`, func(seen string) bool {
		return strings.Contains(seen, "10 %") && strings.Contains(seen, "90 %") && strings.Contains(seen, "µs") && !strings.Contains(seen, "\t–\t–\t")
	})
	w.awaitText("reject_no_backend", lab.Client4+":")
	w.checkTrace(e)
}

// checkTrace fails the test unless the form answers what blixt trace does.
func (w *tab) checkTrace(e *edge) {
	w.Helper()
	out, err := e.blixt.Run("trace", "10.66.0.2:4000", lab.VIP4+":80", "-o", "json")
	w.check(err)
	var want map[string]any
	w.check(json.Unmarshal([]byte(out), &want))
	var got struct {
		Answers []struct{ Answer map[string]any }
	}
	w.check(json.Unmarshal([]byte(eval[string](w, `fetch('trace?client=10.66.0.2:4000&server='+encodeURIComponent(%s)+'&protocol=tcp').then(r => r.text())`, lab.VIP4+":80")), &got))
	if len(got.Answers) != 1 {
		w.Fatalf("trace has %d answers: %+v", len(got.Answers), got)
	}
	a, _ := json.Marshal(want)
	b, _ := json.Marshal(got.Answers[0].Answer)
	if string(a) != string(b) {
		w.Errorf("blixt trace answers\n%s\nand the page\n%s", a, b)
	}
	w.click("Trace…")
	w.typeInto("Client", "10.66.0.2:4000")
	w.typeInto("Frontend", lab.VIP4+":80")
	w.key("\r")
	backend, _ := want["backend"].(map[string]any)
	await(w, fmt.Sprintf("the answer %v", want), `document.querySelector('#trace-answer').innerText`, func(seen string) bool {
		return strings.Contains(seen, fmt.Sprint(want["verdict"])) && strings.Contains(seen, fmt.Sprint(backend["address"])) && strings.Contains(seen, fmt.Sprint(want["counter"]))
	})
}
