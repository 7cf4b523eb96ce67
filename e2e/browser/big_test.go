// SPDX-License-Identifier: Apache-2.0

package browser_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/heapprofiler"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/cdproto/tracing"
	"github.com/chromedp/chromedp"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/page"
)

// large is a cluster of 200 nodes in an incident: 4,000 Gateways, of which some have a
// problem, and more findings than anybody reads.
func large() *source {
	s := newSource()
	s.overview.Kind, s.overview.Name = "cluster", "large"
	for i := range 4000 {
		d := s.add(fmt.Sprintf("team-%02d/gateway-%d", i%40, i), uint16(1+i), []string{fmt.Sprintf("team-%02d/service-%d", i%40, i), "shared/service"}, 8)
		if i%50 == 0 {
			d.Problem, d.Verdict = fmt.Sprintf("ResolvedRefs is False: Service shop/orders has no port %d", i), finding.Failed
			d.Listeners[0].Problem = d.Problem
			s.overview.Status.Findings = append(s.overview.Status.Findings, finding.Finding{Check: "routes", Verdict: finding.Failed, Object: "TCPRoute " + d.Name, Seen: d.Problem, Remedy: "Name a port that the Service has."})
		}
	}
	slices.SortFunc(s.overview.Gateways, func(a, b page.Declared) int { return compare(a.Name, b.Name) })
	s.overview.Status.Verdict = finding.Failed
	s.nodes = nil
	for i := range 200 {
		n := page.Node{Name: fmt.Sprintf("node-%03d", i), Verdict: finding.OK, Version: "v0.9.0", Kernel: "6.12.41", Frontends: 4000, Backends: 64000, Flows: uint64(1000 + i)}
		if i%20 == 0 {
			n.Verdict, n.Reason = finding.Failed, "no agent is connected"
		}
		s.overview.Nodes = append(s.overview.Nodes, n)
	}
	s.nodes = []string{"node-001", "node-002"} // the sums of all look the same
	for _, name := range []string{"drop_no_route", "drop_new_flow", "drop_fragment", "reject_no_backend", "reject_unserved", "reject_too_big", "drop_martian", "drop_no_flow"} {
		s.drops[name] = uint64(len(name))
	}
	for i := range 200 {
		s.flows = append(s.flows, s.flow(i))
	}
	return s
}

func compare(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// longestFrame is how long a page may take for an update: one that takes longer is felt.
const longestFrame = 50 * time.Millisecond

// A page of a large cluster stays smooth, and takes no more memory from update to update.
func TestLargeClusterIsSmooth(t *testing.T) {
	s := large()
	// As quick as the page can be served: hundreds of updates in some seconds.
	v := serve(t, s, func(o *page.Options) { o.Every = 25 * time.Millisecond })
	w := newTab(t)
	w.open(v.URL)
	w.awaitText("4,000 Gateways")
	w.click("team-00/gateway-0")
	w.awaitText("10.0.0.1:8080")
	w.click("The same as tables")
	draws := func() int { return eval[int](w, `watched.draws.length`) }
	awaitDraws := func(n int) {
		t.Helper()
		from := draws()
		for reached := from; reached < from+n; { // as long as there is one more, and another
			reached = await(w, "another update", `watched.draws.length`, func(seen int) bool { return seen > reached })
		}
	}
	awaitDraws(50)
	began := w.heap()
	elements := eval[int](w, `document.querySelectorAll('*').length`)
	stop := w.trace()
	awaitDraws(150)
	took := stop()
	t.Logf("150 updates: the slowest tasks take %s of a CPU; %d elements, %.1f MB", took[:5], elements, float64(began)/(1<<20))
	if took[10] > longestFrame { // a few may be slowed down by what else the machine does
		t.Errorf("one in 15 updates takes %s of a CPU or more, want at most %s; the slowest: %s", took[10], longestFrame, took[:10])
	}
	if after := eval[int](w, `document.querySelectorAll('*').length`); after > elements+elements/10 {
		t.Errorf("the page has %d elements after 150 updates, %d before", after, elements)
	}
	if after := w.heap(); after > began+8<<20 {
		t.Errorf("the page's heap has %.1f MB after 150 updates, %.1f before", float64(after)/(1<<20), float64(began)/(1<<20))
	}
	stop = w.trace()
	for _, do := range []string{"Flows", "Gateway", "Only problems", "Next ›"} { // what a reader does
		w.click(do)
		awaitDraws(3)
	}
	w.awaitText("of 4,000 Gateways", "Page 2 of 4")
	if took = stop(); took[4] > longestFrame { // each of them may take long once
		t.Errorf("the slowest tasks after a choice take %s of a CPU, want at most %s", took[:5], longestFrame)
	}
}

// thread is one of a process of the browser.
type thread struct{ Pid, Tid int }

// trace records how much of a CPU each task of the page's main thread takes, until stop is
// called, which returns them, the slowest first. Time of other processes does not count: the
// machine may be busy.
func (w *tab) trace() (stop func() []time.Duration) {
	w.Helper()
	var mu sync.Mutex
	tasks := map[thread][]time.Duration{}
	mains := map[thread]bool{}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(w.ctx)
	w.check(chromedp.Listen(ctx, func(event any) {
		switch e := event.(type) {
		case *tracing.EventDataCollected:
			mu.Lock()
			defer mu.Unlock()
			for _, raw := range e.Value {
				var one struct {
					thread
					Name string
					Tdur float64 // microseconds
					Args struct{ Name string }
				}
				if json.Unmarshal(raw, &one) != nil {
					continue
				}
				switch {
				case one.Name == "thread_name" && one.Args.Name == "CrRendererMain":
					mains[one.thread] = true
				case strings.HasSuffix(one.Name, "RunTask"):
					tasks[one.thread] = append(tasks[one.thread], time.Duration(one.Tdur)*time.Microsecond)
				}
			}
		case *tracing.EventTracingComplete:
			close(done)
		}
	}))
	call(w, tracing.Start, tracing.StartParams{TransferMode: tracing.StartTransferModeReportEvents, TraceConfig: &tracing.TraceConfig{
		IncludedCategories: []string{"disabled-by-default-devtools.timeline"}, ExcludedCategories: []string{"*"}}})
	return func() []time.Duration {
		w.Helper()
		defer cancel()
		call(w, tracing.End, cdp.Empty{})
		select {
		case <-done:
		case <-time.After(patience):
			w.Fatal("the trace does not end")
		}
		mu.Lock()
		defer mu.Unlock()
		var all []time.Duration
		for t := range mains {
			all = append(all, tasks[t]...)
		}
		slices.SortFunc(all, func(a, b time.Duration) int { return int(b - a) })
		if len(all) < 20 || all[0] == 0 {
			w.Fatalf("the trace has %d tasks of %d pages: has its form changed?", len(all), len(mains))
		}
		return all
	}
}

// heap returns how many bytes the page's objects take, once what nobody needs is gone.
func (w *tab) heap() int64 {
	w.Helper()
	call(w, heapprofiler.CollectGarbage, cdp.Empty{})
	return int64(call(w, runtime.GetHeapUsage, cdp.Empty{}).UsedSize)
}
