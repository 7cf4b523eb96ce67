// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/writer"
	"github.com/kubernetes-sigs/blixt/operator/observe"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// inOrder fails the test unless a text has all parts, one after the other.
func (w *tab) inOrder(text string, parts ...string) {
	w.Helper()
	rest := text
	for _, p := range parts {
		_, after, found := strings.Cut(rest, p)
		if !found {
			w.Fatalf("want %q in this order, and do not see %q in:\n%s", parts, p, text)
		}
		rest = after
	}
}

// What is wrong comes before all else, the worst first, with its remedy.
func TestWhatIsWrongComesFirst(t *testing.T) {
	v := serve(t, shop())
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.inOrder(eval[string](w, text), "NOT WELL", "What is wrong",
		"TCPRoute shop/orders", "has no port 81", "Name a port that the Service has.", "Node node-c",
		"2 Gateways", "shop/orders", "has no port 81", "shop/web")
	if title := eval[string](w, `document.title`); !strings.Contains(title, "NOT WELL") || !strings.Contains(title, "prod") {
		t.Errorf("the title is %q: want the verdict and the cluster's name, which tell tabs apart", title)
	}
}

// A Gateway that is open is shown with listeners, routes, Services and backends: in a
// picture, and as text for those who do not see it.
func TestGatewayIsShownToItsBackends(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("10.0.0.1:8080")
	picture := await(w, "a picture of shop/web", `document.querySelector('svg.picture')?.textContent ?? ''`, func(seen string) bool {
		return strings.Contains(seen, "10.0.1.1:8080")
	})
	for _, part := range []string{"198.51.100.1", "80/tcp", "TCPRoute", "shop/web-canary", "draining", "3 ready, 1 draining"} {
		if !strings.Contains(picture, part) {
			t.Errorf("the picture has no %q: %s", part, picture)
		}
	}
	w.click("The same as tables")
	w.awaitText("10.0.0.4:8080")
	tables := eval[string](w, `document.querySelector('tr.detail').innerText`)
	// 12 ms for 10 connections; 9 of 10 took at most 1 ms (0.98), the slowest up to 7.8.
	for _, part := range []string{"1.2 ms", "7.8 ms", "draining", "10.0.1.4:8080"} {
		if !strings.Contains(tables, part) {
			t.Errorf("the tables have no %q: %s", part, tables)
		}
	}
}

// Rates come with the second View, and follow what is counted.
func TestRatesMove(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	rates := `document.querySelector('#totals').innerText`
	first := await(w, "a rate", rates, func(seen string) bool { return strings.Contains(seen, "B/s") })
	await(w, "another rate than "+first, rates, func(seen string) bool { return seen != first && strings.Contains(seen, "B/s") })
	s.change(func() {
		for name := range s.frontends {
			s.frontends[name] = slices.Clone(s.frontends[name])
			s.frontends[name][0].ReplyBytes = 0
		}
	})
	await(w, "bytes to clients that have fallen to 0", `[...document.querySelectorAll('#totals > *')].map(e => e.innerText).find(t => t.includes('To clients'))`,
		func(seen string) bool { return strings.Contains(seen, "\n0 B/s") || strings.Contains(seen, "\n0") })
}

// Reasons of rejected and dropped packets say what happened, why, and the cure.
func TestDropsHaveTheirCure(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("reject_no_backend", "drop_no_route")
	r := observe.ReasonOf("drop_no_route")
	eval[bool](w, `[...document.querySelectorAll('#drops summary')].find(e => e.innerText.includes('drop_no_route')).click() ?? true`)
	w.awaitText(r.Cause, r.Cure)
}

// A change of what is served is shown without a reload, and the page says so once to
// whoever listens.
func TestHealthIsTold(t *testing.T) {
	s := shop()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	status := `document.querySelector('[role=status]').textContent`
	await(w, "a status that tells the verdict", status, func(seen string) bool { return strings.Contains(seen, "NOT WELL") })
	eval[bool](w, `(() => { watched.told = []; new MutationObserver(() => watched.told.push(document.querySelector('[role=status]').textContent))
		.observe(document.querySelector('[role=status]'), {childList: true, characterData: true, subtree: true}); return true })()`)
	s.change(func() {
		s.overview.Status = page.Status{Verdict: finding.OK, Findings: []finding.Finding{}}
		d := slices.Clone(s.overview.Gateways)
		d[1].Problem, d[1].Verdict = "", finding.OK
		s.overview.Gateways = d
	})
	w.awaitText("WELL", "Nothing is wrong")
	looks := func() (n uint64) { s.change(func() { n = s.looks }); return n }
	from := looks()
	await(w, "three more Views", `true`, func(bool) bool { return looks() >= from+3 })
	if told := eval[[]string](w, `watched.told`); len(told) != 1 || told[0] != "WELL" {
		t.Errorf("the live region has said %q: want WELL, once", told)
	}
}

// The form of trace asks what people type, and shows what nodes answer.
func TestTraceForm(t *testing.T) {
	s := shop()
	s.nodes = []string{"node-a"}
	s.trace = map[string]any{
		"protocol": "tcp", "client": "203.0.113.9:4000", "server": "198.51.100.1:80", "verdict": "forwarded", "why": "a new flow begins",
		"address": map[string]any{"exclusive": true}, "frontend": map[string]any{"index": 3, "gateway": "shop/web", "listener": "tcp", "route": "TCPRoute/shop/web"},
		"backend": map[string]any{"address": "10.0.0.2:8080", "service": "shop/web"}, "counter": "new_flows",
	}
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("Trace…")
	w.typeInto("Client", "203.0.113.9:4000")
	w.typeInto("Frontend", "198.51.100.1:80")
	w.key("\r")
	answer := await(w, "an answer", `document.querySelector('#trace-answer').innerText`, func(seen string) bool { return seen != "" })
	w.inOrder(answer, "node-a", "forwarded, a new flow begins", "203.0.113.9:4000", "shop/web", "10.0.0.2:8080", "new_flows")
	s.change(func() {
		if len(s.traced) != 1 || s.traced[0].Client.String() != "203.0.113.9:4000" || s.traced[0].Server.String() != "198.51.100.1:80" || s.traced[0].Protocol != "tcp" {
			t.Errorf("the nodes were asked for %+v", s.traced)
		}
	})
	w.allow("400 (Bad Request)")
	w.typeInto("Client", "nonsense")
	w.key("\r")
	await(w, "a sentence about the client", `document.querySelector("#trace-answer").innerText`, func(seen string) bool { return strings.Contains(seen, `client`) && strings.Contains(seen, "port") })
	w.key("\x1b")
	await(w, "no dialog after Escape", `document.querySelector('dialog').open`, func(seen bool) bool { return !seen })
}

// The page says when there is nothing, when nodes do not answer, and when the source fails.
func TestTroubleIsSaid(t *testing.T) {
	s := newSource()
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("Nothing is served yet", "No packet has been rejected or dropped")
	s.change(func() { s.failing = &observe.NodesError{Reasons: map[string]string{"node-z": "no agent is connected"}} })
	w.awaitText("node-z", "no agent is connected")
	s.change(func() { s.failing = nil; s.broken = errors.New("the API server is away") })
	w.awaitText("the API server is away")
	s.change(func() { s.broken = nil })
	await(w, "no trouble any more", text, func(seen string) bool { return !strings.Contains(seen, "the API server is away") })
}

// stuck is a source that answers when it is let go.
type stuck struct {
	*source
	let chan struct{}
}

func (s stuck) Overview(ctx context.Context) (*page.Overview, error) {
	select {
	case <-s.let:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.source.Overview(ctx)
}

// What is old says so.
func TestStaleIsMarked(t *testing.T) {
	s := stuck{shop(), make(chan struct{})}
	v := serve(t, s)
	go func() { s.let <- struct{}{}; s.let <- struct{}{} }() // two Views, and no more
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.awaitText("No news")
	close(s.let)
	w.awaitText("Live")
}

// An empty table of backends is told: nothing serves.
func TestListenerWithoutBackends(t *testing.T) {
	s := newSource()
	s.add("shop/web", 80, []string{"shop/web"}, 0)
	s.frontends["shop/web"] = []writer.FrontendStatus{s.frontends["shop/web"][0]}
	s.frontends["shop/web"][0].RejectShare = 1
	v := serve(t, s)
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("shop/web")
	w.click("shop/web")
	w.awaitText("no backend serves")
}
