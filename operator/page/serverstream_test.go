// SPDX-License-Identifier: Apache-2.0

package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// open opens a stream until the test ends, or close is called.
func open(t testing.TB, url string, change ...func(*http.Request)) (a *http.Response, closeIt func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(r)
	}
	a, err = http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Body.Close() })
	return a, cancel
}

func viewOf(t testing.TB, e event) (v View) {
	t.Helper()
	if err := json.Unmarshal(e.data, &v); err != nil || e.name != eventView {
		t.Fatalf("got %s %s, %v; want a View", e.name, e.data, err)
	}
	return v
}

func TestStreamHasAViewEachInterval(t *testing.T) {
	leaksNothing(t)
	address := serve(t, Endpoint{}, Options{})
	a, _ := open(t, "http://"+address+"/events?q=web")
	if kind, cache, buffer := a.Header.Get("Content-Type"), a.Header.Get("Cache-Control"), a.Header.Get("X-Accel-Buffering"); kind != "text/event-stream" || cache != "no-store" || buffer != "no" || a.Uncompressed {
		t.Errorf("headers %v", a.Header)
	}
	next := events(t, a.Body)
	first, second, third := viewOf(t, next()), viewOf(t, next()), viewOf(t, next())
	if first.Seconds != 0 || len(first.Gateways) != 1 {
		t.Errorf("first: %+v", first)
	}
	for _, v := range []View{second, third} {
		if v.Seconds < testEvery.Seconds()/4 || v.Totals.NewFlows == nil || *v.Totals.NewFlows <= 0 {
			t.Errorf("%v seconds, %+v", v.Seconds, v.Totals)
		}
	}
}

func TestStreamIsAliveWhileThereIsNothingNew(t *testing.T) {
	address := serve(t, Endpoint{}, Options{Every: time.Hour}, func(s *Server) { s.handler.aliveEvery = 20 * time.Millisecond })
	a, _ := open(t, "http://"+address+"/events")
	text := make([]byte, 0, 1<<16)
	for !bytes.Contains(text, []byte("\n\n:\n\n:\n\n:\n\n")) {
		n, err := a.Body.Read(text[len(text):cap(text)])
		if err != nil {
			t.Fatalf("%v after %s", err, text)
		}
		text = text[:len(text)+n]
	}
	if !bytes.HasPrefix(text, []byte("retry: 2000\n\n")) {
		t.Errorf("%.100s", text)
	}
}

// However many look, the source is asked as for one; and when nobody looks, not at all.
func TestSourceIsAskedOnceForAll(t *testing.T) {
	leaksNothing(t)
	source := &fake{}
	const every = 500 * time.Millisecond
	address := serve(t, Endpoint{}, Options{Source: source, Every: every})
	time.Sleep(every / 2)
	if n := source.asked(); n != 0 {
		t.Fatalf("asked %d times before anybody looks", n)
	}
	time.Sleep(time.Until(time.Now().Truncate(every).Add(every + every/10))) // all of them in one interval
	selections := []string{"", "?sort=name", "?sort=busy", "?q=other", "?q=web"}
	var closers []func()
	var nexts []func() event
	began := time.Now()
	for i := range 20 {
		a, closeIt := open(t, "http://"+address+"/events"+selections[i%len(selections)])
		closers, nexts = append(closers, closeIt), append(nexts, events(t, a.Body))
	}
	for range 4 {
		for _, next := range nexts {
			viewOf(t, next())
		}
	}
	// Three scopes: all, a/web and b/other.
	o, s, f := source.overviews.Load(), source.statuses.Load(), source.flows.Load()
	most := int64(time.Since(began)/every) + 2 // a slow machine looks more often
	if o < 4 || o > most || s < 12 || s > 3*most || f < 4 || f > most {
		t.Errorf("for 20 readers and 4 Views the source was asked for %d overviews, %d statuses and %d times for flows; want 4 to %d, 3 times as many, and as many", o, s, f, most)
	}
	for _, closeIt := range closers {
		closeIt()
	}
	eventually(t, "nobody asks after all have gone", func() bool {
		n := source.asked()
		time.Sleep(3 * every)
		return source.asked() == n
	})
}

// A source that fails says so on the page, which goes on when it answers again.
func TestTroubleIsTold(t *testing.T) {
	var log bytes.Buffer
	var mu sync.Mutex
	var trouble func(context.Context) error
	set := func(f func(context.Context) error) {
		mu.Lock()
		defer mu.Unlock()
		trouble = f
	}
	source := &fake{overview: func(ctx context.Context) error {
		mu.Lock()
		f := trouble
		mu.Unlock()
		if f == nil {
			return nil
		}
		return f(ctx)
	}}
	address := serve(t, Endpoint{}, Options{Source: source, Log: slog.New(slog.NewTextHandler(&log, nil))})
	set(func(context.Context) error { return errors.New("the API server\ndoes not answer: </script>") })
	a, _ := open(t, "http://"+address+"/events")
	next := events(t, a.Body)
	until := func(name, word string) {
		t.Helper()
		for range 200 {
			e := next()
			var text string
			if e.name == name && (name == eventView || json.Unmarshal(e.data, &text) == nil && strings.Contains(text, word)) {
				return
			}
			if e.name == "end" {
				break
			}
		}
		t.Fatalf("no %s %q", name, word)
	}
	until(eventTrouble, "the API server")
	if w, _ := open(t, "http://"+address+"/api/view"); w.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("/api/view: %s", w.Status)
	}
	set(nil)
	until(eventView, "")
	set(func(context.Context) error { panic("a mistake") })
	until(eventTrouble, "a mistake")
	set(nil)
	until(eventView, "")
	if text := log.String(); strings.Count(text, "the API server") != 1 || !strings.Contains(text, "serverstream_test.go") {
		t.Errorf("want each reason once, and where the panic was:\n%s", text)
	}
}

// hanging is a function that hangs, whatever its context says, until the test ends.
func hanging(t testing.TB) (hang func(), free func()) {
	end := make(chan struct{})
	free = sync.OnceFunc(func() { close(end) })
	t.Cleanup(free)
	return func() { <-end }, free
}

// A source that hangs, and knows no deadline, holds one goroutine, whoever looks and for
// how long, and no reader.
func TestSourceThatHangs(t *testing.T) {
	leaksNothing(t)
	hang, free := hanging(t)
	source := &fake{overview: func(context.Context) error { hang(); return nil }}
	address := serve(t, Endpoint{}, Options{Source: source}, func(s *Server) { s.handler.watch.patience = 100 * time.Millisecond })
	var nexts []func() event
	for i := range 5 {
		a, _ := open(t, fmt.Sprintf("http://%s/events?page=%d", address, i+1))
		nexts = append(nexts, events(t, a.Body))
	}
	for _, next := range nexts {
		for range 2 {
			if e := next(); e.name != eventTrouble || !bytes.Contains(e.data, []byte("no answer within 200ms")) {
				t.Errorf("%s %s", e.name, e.data)
			}
		}
	}
	if n := source.overviews.Load(); n != 1 {
		t.Errorf("a source that hangs was asked %d times", n)
	}
	free()
	eventually(t, "a View comes", func() bool { return nexts[0]().name == eventView })
}

// Nodes that do not answer are named, and the others are shown.
func TestNodesThatDoNotAnswerAreNamed(t *testing.T) {
	hang, _ := hanging(t)
	for name, c := range map[string]struct {
		err  error
		hang bool
		want string
	}{
		"some":     {err: &observe.NodesError{Reasons: map[string]string{"n7": "timeout"}}, want: "map[n7:timeout]"},
		"not yet":  {err: errors.New("nothing is served yet"), want: "map[default:nothing is served yet]"},
		"for ever": {hang: true, want: "map[default:there is no answer within 200ms]"},
		"all":      {want: "map[]"},
	} {
		source := &fake{ask: func(_ context.Context, q observe.Query) error {
			if q.Status != nil && c.hang {
				hang()
			}
			if q.Status != nil {
				return c.err
			}
			return nil
		}}
		h := newHandler(t, Options{Source: source})
		if c.hang {
			h.watch.patience = 200 * time.Millisecond
		}
		w := get(h, "/api/view")
		var v View
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || fmt.Sprint(v.Unanswered) != c.want || len(v.Gateways) != 2 {
			t.Errorf("%s: %d %v, %v, want %s", name, w.Code, v.Unanswered, err, c.want)
		}
	}
}

// answers is a source whose nodes answer what a test says.
type answers struct {
	fake
	pieces map[string]string
}

func (a *answers) Ask(_ context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	for node, piece := range a.pieces {
		if q.Status != nil == (node != "flows") {
			if err := got(node, json.RawMessage(piece)); err != nil {
				return err
			}
		}
	}
	return nil
}

// A node that answers nonsense is named; what it says is not believed.
func TestNodeThatAnswersNonsense(t *testing.T) {
	good, err := json.Marshal(web(10))
	if err != nil {
		t.Fatal(err)
	}
	source := &answers{pieces: map[string]string{"n1": string(good), "n2": `{"frontends": 7}`, "n3": `[`, "flows": `{"memory":{"recording":"off"}}`}}
	var v View
	if err := json.Unmarshal(get(newHandler(t, Options{Source: source}), "/api/view").Body.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Unanswered) != 2 || v.Unanswered["n2"] == "" || v.Unanswered["n3"] == "" || v.Totals.Active != 3 {
		t.Errorf("%v, %+v", v.Unanswered, v.Totals)
	}
	if !strings.Contains(v.FlowsNote, "--flow-records") {
		t.Errorf("note on flows: %q", v.FlowsNote)
	}
}

// A reader that takes nothing loses its stream, and delays nobody.
func TestReaderThatIsStuck(t *testing.T) {
	leaksNothing(t)
	source := &wide{gateways: 25, backends: 30} // about 100 kB
	address := serve(t, Endpoint{}, Options{Source: source, Every: 20 * time.Millisecond}, func(s *Server) { s.handler.writeTimeout = 200 * time.Millisecond })
	stuck, err := net.DialTCP("tcp", nil, tcpAddr(t, address))
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if err := stuck.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(stuck, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	a, _ := open(t, "http://"+address+"/events")
	next := events(t, a.Body)
	start := time.Now()
	n := 0
	for ; time.Since(start) < 15*time.Second; n++ {
		viewOf(t, next())
		if _, err := stuck.Write([]byte("x")); err != nil { // the server has ended it
			break
		}
	}
	if took := time.Since(start); took > 15*time.Second || n < 5 {
		t.Errorf("the stream of a reader that reads nothing is open after %s, %d Views of another one", took, n)
	}
}

func tcpAddr(t testing.TB, address string) *net.TCPAddr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestStreamsAreLimited(t *testing.T) {
	leaksNothing(t)
	address := serve(t, Endpoint{}, Options{})
	var closers []func()
	for i := range mostStreams {
		a, closeIt := open(t, fmt.Sprintf("http://%s/events?page=%d", address, i+1))
		if a.StatusCode != http.StatusOK {
			t.Fatalf("stream %d: %s", i, a.Status)
		}
		closers = append(closers, closeIt)
	}
	a, _ := open(t, "http://"+address+"/events")
	text, _ := io.ReadAll(a.Body)
	if a.StatusCode != http.StatusServiceUnavailable || !bytes.Contains(text, []byte("too many look at this page")) || a.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", a.Status, text)
	}
	if a, _ := open(t, "http://"+address+"/"); a.StatusCode != http.StatusOK {
		t.Errorf("the page itself: %s", a.Status)
	}
	closers[0]()
	eventually(t, "there is room again", func() bool {
		a, closeIt := open(t, "http://"+address+"/events")
		defer closeIt()
		return a.StatusCode == http.StatusOK
	})
	for _, closeIt := range closers {
		closeIt()
	}
	// One client elsewhere gets half of them.
	var s streams
	client := clientOf(&http.Request{RemoteAddr: "192.0.2.1:1"})
	for i := range clientStreams + 1 {
		if _, ok := s.enter(client); ok != (i < clientStreams) {
			t.Errorf("stream %d of a client: %v", i, ok)
		}
	}
	leave, ok := s.enter(clientOf(&http.Request{RemoteAddr: "192.0.2.2:1"}))
	if !ok {
		t.Fatal("another client gets none")
	}
	if leave(); s.all != clientStreams || len(s.of) != 1 {
		t.Errorf("%d streams of %d clients are left", s.all, len(s.of))
	}
}

// A stream ends some time, so that rights are checked again.
func TestStreamEndsAndRightsAreCheckedAgain(t *testing.T) {
	valid := right
	var mu sync.Mutex
	address := serve(t, Endpoint{}, Options{Access: token(func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		return valid, nil
	})}, func(s *Server) { s.handler.streamLasts = 300 * time.Millisecond })
	a, _ := open(t, "http://"+address+"/events", header("Authorization", "Bearer "+right))
	mu.Lock()
	valid = "x" + right
	mu.Unlock()
	next := events(t, a.Body)
	for e := next(); e.name != "end"; e = next() {
		viewOf(t, e)
	}
	if a, _ := open(t, "http://"+address+"/events", header("Authorization", "Bearer "+right)); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("again: %s", a.Status)
	}
}

// The server's timeouts are for requests, not for streams.
func TestStreamOutlivesTheTimeoutsOfTheServer(t *testing.T) {
	cert, pool := certificate(t)
	for name, e := range map[string]Endpoint{"HTTP/1.1": {}, "HTTP/2.0": {TLS: cert}} {
		t.Run(name, func(t *testing.T) {
			address := serve(t, e, Options{}, func(s *Server) {
				if s.http.ReadTimeout == 0 || s.http.WriteTimeout == 0 || s.http.ReadHeaderTimeout == 0 || s.http.IdleTimeout == 0 {
					t.Error("no timeouts")
				}
				s.http.ReadTimeout, s.http.ReadHeaderTimeout, s.http.WriteTimeout, s.http.IdleTimeout = 500*time.Millisecond, 500*time.Millisecond, 600*time.Millisecond, 600*time.Millisecond
			})
			client, scheme := http.DefaultClient, "http://"
			if e.TLS != nil {
				client, scheme = pool, "https://"
			}
			a, err := client.Get(scheme + address + "/events")
			if err != nil {
				t.Fatal(err)
			}
			defer a.Body.Close()
			if a.Proto != name {
				t.Errorf("got %s", a.Proto)
			}
			next := events(t, a.Body)
			for start := time.Now(); time.Since(start) < 1500*time.Millisecond; {
				viewOf(t, next())
			}
		})
	}
}

// The end of the process waits for no reader.
func TestStreamsEndWithTheServer(t *testing.T) {
	leaksNothing(t)
	hang, free := hanging(t)
	defer free()
	source := &fake{ask: func(_ context.Context, q observe.Query) error {
		if q.Trace != nil {
			hang()
		}
		return nil
	}}
	s, err := Listen(Endpoint{Address: "127.0.0.1:0"}, Options{Source: source, Every: testEvery})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var nexts []func() event
	for range 10 {
		a, _ := open(t, s.URL()+"events")
		nexts = append(nexts, events(t, a.Body))
		viewOf(t, nexts[len(nexts)-1]())
	}
	half, err := net.Dial("tcp", s.l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer half.Close()
	if _, err := io.WriteString(half, "GET / HTTP/1.1\r\nHo"); err != nil {
		t.Fatal(err)
	}
	go http.Get(s.URL() + "trace?client=192.0.2.1:1&server=192.0.2.2:2") //nolint:errcheck // it is to be cut off
	eventually(t, "the trace has begun", func() bool { return source.traces.Load() > 0 })
	start := time.Now()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the end took %s", took)
	}
	for _, next := range nexts {
		for e := next(); e.name != "end"; e = next() {
		}
	}
	// The address is free again.
	again, err := Listen(Endpoint{Address: s.l.Addr().String()}, Options{Source: source})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestSelectionsOfStrangers(t *testing.T) {
	source := &fake{}
	h := newHandler(t, Options{Source: source})
	for _, query := range []string{
		"x=1", "q=a&q=b", "q=" + strings.Repeat("a", 321), "q=%ff", "q=%zz", "page=0", "page=-1", "page=1e9", "page=99999999999999999999", "sort=;drop", "sort=", "page=", "q=a;b=c", "problems=1&problems=0",
		"open=" + strings.Repeat("a", 5000), "%00=", strings.Repeat("q=a&", 1000),
	} {
		w := get(h, "/events?"+query)
		if w.Code != http.StatusBadRequest || w.Header().Get("Content-Type") != "text/plain; charset=utf-8" || w.Body.Len() > 6000 {
			t.Errorf("%.60q: %d, %d bytes %.200s", query, w.Code, w.Body.Len(), w.Body)
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
	// What is valid, however odd, ends in a View that is JSON.
	for _, query := range []string{"q=%3Cscript%3E", "q=%0A%0Aevent:%20view", "open=%2e%2e%2f&page=999999", "q=%E2%80%A8", "problems=x"} {
		if w := get(h, "/api/view?"+query); w.Code != http.StatusOK || !json.Valid(w.Body.Bytes()) || bytes.Contains(w.Body.Bytes(), []byte("<")) {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
	if n := len(h.watch.views); n > 5 {
		t.Errorf("%d views", n)
	}
}

// Whoever changes the selection all the time leaves nothing behind.
func TestViewsOfThePastAreForgotten(t *testing.T) {
	h := newHandler(t, Options{Every: time.Millisecond})
	for i := range 200 {
		if w := get(h, fmt.Sprintf("/api/view?q=%d&open=x", i)); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	if views, statuses := len(h.watch.views), len(h.watch.statuses); views > mostViews+mostStreams || statuses > 20 {
		t.Errorf("%d views and %d statuses are remembered", views, statuses)
	}
}

// Names of objects are whatever somebody has written.
func TestNamesCannotEndAnEvent(t *testing.T) {
	const evil = "a\n\nevent: trouble\ndata: \"x\"\n\n\r\r<script>alert(1)</script>\u2028\x00"
	source := &named{name: evil}
	address := serve(t, Endpoint{}, Options{Source: source})
	a, _ := open(t, "http://"+address+"/events")
	next := events(t, a.Body)
	for range 2 {
		e := next()
		if v := viewOf(t, e); len(v.Gateways) != 1 || v.Gateways[0].Name != evil || v.Name != evil {
			t.Errorf("got %q", v.Name)
		}
		if bytes.ContainsAny(e.data, "<>\r\u2028\x00") {
			t.Errorf("%q", e.data)
		}
	}
}

type named struct {
	fake
	name string
}

func (n *named) Overview(context.Context) (*Overview, error) {
	return &Overview{Kind: "host", Name: n.name, Gateways: []Declared{{Name: n.name, Problem: n.name}}}, nil
}
