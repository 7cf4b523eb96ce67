// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/observe"
)

const aTrace = "/trace?client=192.0.2.1:1&server=192.0.2.2:2"

func TestTrace(t *testing.T) {
	h := newHandler(t, Options{})
	for path, want := range map[string]string{
		aTrace: "192.0.2.1:1", "/trace?client=%5B2001:db8::1%5D:1&server=%5B::1%5D:80&protocol=UDP&bytes=1000&interface=eth0": "[2001:db8::1]:1", "/trace?client=%5B::ffff:192.0.2.1%5D:1&server=192.0.2.2:80": "192.0.2.1:1",
	} {
		w := get(h, path)
		if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != fmt.Sprintf(`{"answers":[{"node":"","answer":{"traced":%q}}]}`, want) || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", path, w.Code, got)
		}
	}
	source := &fake{}
	h = newHandler(t, Options{Source: source})
	for _, query := range []string{
		"", "client=192.0.2.1:1", "server=192.0.2.1:1", "client=x&server=y", "client=192.0.2.1&server=192.0.2.2:2", "client=192.0.2.1:1&server=192.0.2.2:99999", "client=2001:db8::1:1&server=192.0.2.2:2",
		"client=192.0.2.1:1&server=192.0.2.2:2&protocol=icmp", "client=192.0.2.1:1&server=192.0.2.2:2&bytes=x", "client=192.0.2.1:1&server=192.0.2.2:2&node=x", "client=192.0.2.1:1&client=192.0.2.1:1&server=192.0.2.2:2",
		"client=192.0.2.1:1&server=192.0.2.2:2&interface=" + strings.Repeat("x", 200), "client=%zz", "client=192.0.2.1:1;server=192.0.2.2:2",
	} {
		if w := get(h, "/trace?"+query); w.Code != http.StatusBadRequest || w.Body.Len() > 400 {
			t.Errorf("%.80s: %d %.300s", query, w.Code, w.Body)
		}
	}
	if n := source.asked(); n != 0 {
		t.Errorf("the source was asked %d times", n)
	}
}

func TestTraceThatFails(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code int
		want string
	}{
		"all":   {errors.New("nothing is served yet"), http.StatusServiceUnavailable, "nothing is served yet\n"},
		"nodes": {&observe.NodesError{Reasons: map[string]string{"n1": "gone"}}, http.StatusOK, `{"answers":[],"unanswered":{"n1":"gone"}}` + "\n"},
	} {
		w := get(newHandler(t, Options{Source: &fake{ask: func(context.Context, observe.Query) error { return c.err }}}), aTrace)
		if w.Code != c.code || w.Body.String() != c.want {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	w := get(newHandler(t, Options{Source: &fake{ask: func(context.Context, observe.Query) error { panic("a mistake") }}}), aTrace)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "a mistake") || strings.Contains(w.Body.String(), "goroutine") {
		t.Errorf("a panic: %d %s", w.Code, w.Body)
	}
}

// Traces that hang take no more than their places, and readers go on.
func TestTracesAreLimited(t *testing.T) {
	leaksNothing(t)
	hang, free := hanging(t)
	source := &fake{ask: func(_ context.Context, q observe.Query) error {
		if q.Trace != nil {
			hang()
		}
		return nil
	}}
	h := newHandler(t, Options{Source: source})
	for range mostTraces {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			eventually(t, "it is asked", func() bool { return source.traces.Load() > 0 })
			cancel() // the browser goes, the source stays
		}()
		get(h, aTrace, func(r *http.Request) { *r = *r.WithContext(ctx) })
	}
	eventually(t, "both are asked", func() bool { return source.traces.Load() == mostTraces })
	for range 5 {
		if w := get(h, aTrace); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "try again") {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if n := source.traces.Load(); n != mostTraces {
		t.Errorf("%d traces", n)
	}
	if w := get(h, "/api/view"); w.Code != http.StatusOK {
		t.Errorf("a View meanwhile: %d %s", w.Code, w.Body)
	}
	free()
	eventually(t, "there is room again", func() bool { return get(h, aTrace).Code == http.StatusOK })
}

// crowdOfNodes answers a trace for many nodes.
type crowdOfNodes struct {
	fake
	nodes, size int
}

func (c *crowdOfNodes) Ask(_ context.Context, _ observe.Query, got func(string, json.RawMessage) error) error {
	for n := range c.nodes {
		if err := got(fmt.Sprint("n", n), json.RawMessage(`"`+strings.Repeat("x", c.size)+`"`)); err != nil {
			return err
		}
	}
	return nil
}

func TestTraceOfManyNodesIsBounded(t *testing.T) {
	for _, c := range []*crowdOfNodes{{nodes: 2000, size: 10}, {nodes: 200, size: 1 << 20}} {
		w := get(newHandler(t, Options{Source: c}), aTrace)
		var got traced
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Body.Len() > largestAnswers+1<<20 || len(got.Answers) == 0 || len(got.Answers)+got.More != c.nodes {
			t.Errorf("%d bytes, %d answers and %d more, %v", w.Body.Len(), len(got.Answers), got.More, err)
		}
	}
}
