// SPDX-License-Identifier: Apache-2.0

package page

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// fake is a Source whose Gateway a/web gets 10 flows between two looks.
type fake struct {
	overviews, statuses, flows, traces atomic.Int64
	// overview and ask, if they are set, come before the answers.
	overview func(context.Context) error
	ask      func(context.Context, observe.Query) error
}

func (f *fake) Overview(ctx context.Context) (*Overview, error) {
	f.overviews.Add(1)
	if f.overview != nil {
		if err := f.overview(ctx); err != nil {
			return nil, err
		}
	}
	return &Overview{
		Kind: "host", Name: "default", Version: "v1", Status: Status{Verdict: finding.OK},
		Gateways: []Declared{{Name: "a/web", Verdict: finding.OK}, {Name: "b/other", Verdict: finding.OK}},
	}, nil
}

func (f *fake) Ask(ctx context.Context, q observe.Query, got func(string, json.RawMessage) error) error {
	var answer any
	switch {
	case q.Status != nil:
		answer = web(10 * uint64(f.statuses.Add(1)))
	case q.Flows != nil:
		f.flows.Add(1)
		answer = observe.FlowsPiece{Record: &observe.Record{Event: observe.EventEnd, Time: time.Now()}}
	case q.Trace != nil:
		f.traces.Add(1)
		answer = map[string]any{"packet": q.Trace}
	}
	if f.ask != nil {
		if err := f.ask(ctx, q); err != nil {
			return err
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	return got("", text)
}

var _ Source = (*fake)(nil)
var _ = top.Report{}

func newHandler(t *testing.T, o Options) *Handler {
	t.Helper()
	if o.Source == nil {
		o.Source = &fake{}
	}
	if o.Every == 0 {
		o.Every = 40 * time.Millisecond
	}
	h, err := NewHandler(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// get returns the answer to a request, as changed by a function.
func get(h http.Handler, path string, change ...func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host, r.RemoteAddr = "localhost:8460", "127.0.0.1:5000"
	for _, f := range change {
		f(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestViewIsServed(t *testing.T) {
	h := newHandler(t, Options{})
	w := get(h, "/api/view?q=web")
	var v View
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || w.Code != http.StatusOK || len(v.Gateways) != 1 || v.Gateways[0].Name != "a/web" || len(v.Flows) != 1 {
		t.Errorf("%d %s %v", w.Code, w.Body, err)
	}
	t.Log(w.Body.String())
	t.Log(get(h, "/trace?client=1.1.1.1:2&server=2.2.2.2:3").Body.String())
	t.Log(get(h, "/").Body.String())
}
