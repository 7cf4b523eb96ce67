// SPDX-License-Identifier: Apache-2.0

package traffic

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kubernetes-sigs/blixt/e2e/lib/lab"
	"github.com/kubernetes-sigs/blixt/e2e/lib/labtest"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

const pageAddress = "127.0.0.1:8460"

// reader reads the Views of a stream, and adds up what their rates stand for.
type reader struct {
	w      *labtest.World
	mu     sync.Mutex
	last   *page.View
	views  int
	sums   map[string]float64
	broken error // what no View may be
	end    func()
}

// read reads a stream until end is called, or the process ends.
func read(w *labtest.World) *reader {
	w.Helper()
	r := &reader{w: w, sums: map[string]float64{}}
	ctx, cancel := context.WithCancel(context.Background())
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return w.Balancer.Dial("tcp", "", pageAddress, labtest.Patience)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pageAddress+"/events", nil)
	w.Check(err)
	answer, err := client.Do(request)
	w.Check(err)
	if answer.StatusCode != http.StatusOK {
		w.Fatalf("the stream is answered with %s", answer.Status)
	}
	var done sync.WaitGroup
	done.Go(func() {
		defer answer.Body.Close()
		lines := bufio.NewReader(answer.Body)
		for event := ""; ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if name, is := strings.CutPrefix(line, "event: "); is {
				event = strings.TrimSpace(name)
			}
			if text, is := strings.CutPrefix(line, "data: "); is && event == "view" {
				r.add([]byte(text))
			}
		}
	})
	r.end = func() { cancel(); done.Wait() }
	w.Cleanup(r.end)
	return r
}

func (r *reader) add(text []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var v page.View
	if err := json.Unmarshal(text, &v); err != nil {
		r.broken = errors.Join(r.broken, err)
		return
	}
	r.last, r.views = &v, r.views+1
	count := func(what string, rate page.Rate) {
		if rate == nil {
			return
		}
		if *rate < 0 || *rate > 1e15 {
			r.broken = errors.Join(r.broken, fmt.Errorf("%s: a rate of %v", what, *rate))
		}
		r.sums[what] += *rate * v.Seconds
	}
	count("flows", v.Totals.NewFlows)
	count("bytes in", v.Totals.BytesIn)
	count("bytes out", v.Totals.BytesOut)
	for _, d := range v.Drops {
		count(d.Name, d.PerSecond)
	}
	for _, g := range v.Gateways {
		count(g.Name, g.NewFlows)
		for _, l := range g.Listeners {
			count(g.Name+" "+l.Name, l.NewFlows)
			for _, s := range l.Services {
				count(s.Name+" of "+l.Name, s.NewFlows)
				count(s.Name+" refused of "+l.Name, s.Refused)
				for _, b := range s.Backends {
					count(b.Address+" of "+l.Name, b.NewFlows)
				}
			}
		}
	}
}

// shows waits until a View is as it should be. check returns what is wrong.
func (r *reader) shows(check func(v *page.View, sums map[string]float64) error) *page.View {
	r.w.Helper()
	var v *page.View
	r.w.Check(lab.Eventually(6*labtest.Patience, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.broken != nil || r.last == nil {
			return cmp.Or(r.broken, errors.New("there is no View yet"))
		}
		v = r.last
		return check(v, r.sums)
	}))
	return v
}

// counted returns an error unless rates have added up to numbers.
func counted(sums map[string]float64, want map[string]float64) error {
	for what, n := range want {
		if math.Abs(sums[what]-n) > 0.01 {
			return fmt.Errorf("%s: the rates of all Views come to %v, want %v; there are %v", what, sums[what], n, sums)
		}
	}
	return nil
}

// listener returns a listener of a View.
func listenerOf(v *page.View, name string) (page.Listener, error) {
	for _, g := range v.Gateways {
		for _, l := range g.Listeners {
			if l.Name == name {
				return l, nil
			}
		}
	}
	return page.Listener{}, fmt.Errorf("there is no listener %s", name)
}

// TestPage_ShowsWhatClientsDo has clients connect, be refused and rejected, a backend drain
// and the process killed, while somebody looks.
func TestPage_ShowsWhatClientsDo(t *testing.T) {
	w := labtest.New(t, "page", 2, 0)
	services := map[int][]lab.Endpoint{toRemote: lab.Endpoints(8080, w.Backends...), 9000: lab.Endpoints(9999, w.Backends...)}
	config := labtest.ConfigOf(services)
	b, err := w.Standard.Blixt(w.Balancer, labtest.Binary, config)
	w.Check(err)
	b.Args = append(b.Args, "--flow-records", "--http-address", pageAddress)
	w.Blixt, w.Config = b, config
	w.Check(b.Start())
	r := read(w)
	tcp := fmt.Sprintf("tcp-%d", toRemote)
	first := r.shows(func(v *page.View, _ map[string]float64) error {
		if l, err := listenerOf(v, tcp); err != nil || len(l.Services) != 1 || l.Services[0].Ready != 4 || v.Seconds == 0 {
			return fmt.Errorf("%+v, %w", l, err)
		}
		return nil
	})
	if first.Totals.Frontends != 8 || len(first.Drops) > 0 || len(first.Flows) > 0 || len(first.Unanswered) > 0 {
		t.Errorf("before anybody connects: %+v, drops %+v, flows %+v", first.Totals, first.Drops, first.Flows)
	}

	// As many flows as clients make, no more and no less, by listener, Service and backend.
	const connections, refused, rejected = 24, 5, 3
	var clients []string
	for range connections {
		c := w.Dial(w.Client, "tcp", labtest.VIP(4, toRemote))
		w.Ask(c, "who serves?")
		clients = append(clients, c.LocalAddr().String())
		w.Check(c.(*net.TCPConn).CloseWrite())
		_, err := io.Copy(io.Discard, c)
		w.Check(err)
		w.Check(c.Close())
	}
	for range refused {
		if c, err := w.Client.Dial("tcp", "", labtest.VIP(4, 9000), labtest.Patience); err == nil {
			c.Close()
			t.Error("a port without a listener is connected")
		}
	}
	for range rejected {
		if c, err := w.Client.Dial("tcp", "", labtest.VIP(4, 7), labtest.Patience); err == nil {
			c.Close()
			t.Error("a port without a frontend is connected")
		}
	}
	service := fmt.Sprintf("default/service-%d", toRemote)
	want := map[string]float64{
		"flows": connections + refused, "default/vip": connections + refused, "default/vip " + tcp: connections, service + " of " + tcp: connections,
		"default/vip tcp-9000": refused, "default/service-9000 refused of tcp-9000": refused, "reject_unserved": rejected,
	}
	v := r.shows(func(v *page.View, sums map[string]float64) error {
		if len(v.Flows) < connections+refused {
			return fmt.Errorf("%d flows have ended", len(v.Flows))
		}
		return counted(sums, want)
	})
	l, err := listenerOf(v, tcp)
	w.Check(err)
	seen, shares := l.Services[0], 0.0
	for _, backend := range seen.Backends {
		shares += backend.Seen
	}
	if math.Abs(shares-1) > 1e-9 || seen.Seen != 1 || seen.Connect == nil || seen.Connect.P50 <= 0 || seen.Connect.P99 < seen.Connect.P50 || seen.Connect.Mean <= 0 || seen.Connect.Mean > 1 {
		t.Errorf("the Service is %+v, shares of its backends come to %v, connect times are %+v", seen, shares, seen.Connect)
	}
	for _, f := range v.Flows {
		if f.Server.String() == labtest.VIP(4, toRemote) {
			i := slices.Index(clients, f.Client.String())
			if i < 0 {
				t.Errorf("nobody has made the flow of %s", f.Client)
				continue
			}
			clients = slices.Delete(clients, i, i+1)
		}
	}
	if len(clients) > 0 {
		t.Errorf("flows of %v are missing", clients)
	}
	if i := slices.IndexFunc(v.Drops, func(d page.Drop) bool { return d.Name == "reject_unserved" }); i < 0 || v.Drops[i].Packets != rejected || v.Drops[i].Cure == "" {
		t.Errorf("drops %+v", v.Drops)
	}
	status := w.Status()
	bytes := 0.0
	for _, f := range status.Frontends {
		bytes += float64(f.Bytes)
	}
	r.shows(func(_ *page.View, sums map[string]float64) error {
		return counted(sums, map[string]float64{"bytes in": bytes})
	})

	// A backend drains while a connection lasts.
	lasts := w.Dial(w.Client, "tcp", labtest.VIP(4, toRemote))
	serves := w.Ask(lasts, "who serves?").Server
	for i, e := range services[toRemote] {
		if strings.HasPrefix(serves, w.Backends[i/2].Name) || e.Addr == serves {
			services[toRemote][i].Conditions = "{ready: false, serving: true, terminating: true}"
		}
	}
	w.Check(b.Apply(labtest.ConfigOf(services)))
	r.shows(func(v *page.View, _ map[string]float64) error {
		l, err := listenerOf(v, tcp)
		if err != nil || len(l.Services) != 1 {
			return fmt.Errorf("%+v, %w", l, err)
		}
		s := l.Services[0]
		if s.Draining == 0 || s.Backends[0].State != "draining" || l.Active != 1 || s.Wanted < 0.99 {
			return fmt.Errorf("active %d, Service %+v", l.Active, s)
		}
		return nil
	})

	// The process is killed, and the next one takes over: its page has no rates of what was
	// before, and goes on counting.
	w.Check(b.Kill())
	r.end()
	w.Check(b.Start())
	r = read(w)
	r.shows(func(v *page.View, sums map[string]float64) error {
		if v.Seconds == 0 || v.Totals.Frontends != 8 {
			return fmt.Errorf("totals %+v", v.Totals)
		}
		return counted(sums, map[string]float64{"flows": 0})
	})
	w.Ask(lasts, "are you still there?")
	w.Ask(w.Dial(w.Client, "tcp", labtest.VIP(4, toRemote)), "and you?")
	r.shows(func(_ *page.View, sums map[string]float64) error {
		return counted(sums, map[string]float64{"flows": 1})
	})
}
