// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

const (
	// defaultEvery is Options.Every of those who say nothing.
	defaultEvery = 2 * time.Second
	// remembered is how long the counters of a View are kept when its last reader has
	// gone: the next one, as after a reload, has rates at once.
	remembered = time.Minute
	// mostViews are remembered, and more if they have readers.
	mostViews = 64
	// mostFlows is how many flows a View has.
	mostFlows = 30
)

// watch reads a Source while somebody looks, once for all who do.
type watch struct {
	source Source
	every  time.Duration
	// patience is how long a read may take. Nodes that have not answered by then are left
	// out of a View: one that hangs does not slow down all others.
	patience time.Duration
	log      *slog.Logger

	overview shared[*Overview]
	flows    shared[lastEnded]

	mu       sync.Mutex
	statuses map[string]*shared[reports] // by scope
	views    map[viewKey]*viewing
	failure  string // why no View could be made last, or ""
}

// viewKey is what readers of the same View have in common.
type viewKey struct {
	Selection
	flows bool // may be seen
}

// viewing makes the Views of some readers.
type viewing struct {
	*watch
	viewKey
	builder Builder
	turn    sync.Mutex // of the loop

	// The mutex of watch is held for all below.
	readers map[*reader]bool
	stop    context.CancelFunc // nil: nobody reads
	left    time.Time          // when the last reader did
	last    event
}

// The events of a stream.
const (
	eventView = "view" // a View
	// eventTrouble says why there is no View: a string.
	eventTrouble = "trouble"
)

// event is what a reader gets.
type event struct {
	name string // "": there was none
	data []byte // JSON
	at   time.Time
}

// reader has room for one event. A newer one takes its place, so that nobody waits for
// readers.
type reader struct{ events chan event }

func newWatch(source Source, every time.Duration, log *slog.Logger) *watch {
	every = cmp.Or(every, defaultEvery)
	return &watch{
		source: source, every: every, patience: max(every*3/4, time.Second), log: log, statuses: map[string]*shared[reports]{}, views: map[viewKey]*viewing{},
	}
}

// join returns a reader, who gets an event soon, and then another one each interval, until
// leave is called.
func (w *watch) join(key viewKey) (r *reader, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v := w.views[key]
	if v == nil {
		w.forget(time.Now())
		v = &viewing{watch: w, viewKey: key, builder: Builder{Every: w.every}, readers: map[*reader]bool{}}
		w.views[key] = v
	}
	r = &reader{make(chan event, 1)}
	v.readers[r] = true
	if v.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		v.stop = cancel
		if time.Since(v.last.at) >= w.fresh() {
			v.last = event{}
		}
		go v.run(ctx, v.last.name == "")
	}
	if v.last.name != "" {
		r.events <- v.last
	}
	return r, func() { w.leave(v, r) }
}

// forget removes what nobody has read for a while, or makes room. The caller holds w.mu.
func (w *watch) forget(now time.Time) {
	var oldest *viewing
	for key, v := range w.views {
		switch {
		case len(v.readers) > 0:
		case now.Sub(v.left) > remembered:
			delete(w.views, key)
		case oldest == nil || v.left.Before(oldest.left):
			oldest = v
		}
	}
	if oldest != nil && len(w.views) > mostViews {
		delete(w.views, oldest.viewKey)
	}
}

func (w *watch) leave(v *viewing, r *reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(v.readers, r); len(v.readers) == 0 && v.stop != nil {
		v.stop()
		v.stop, v.left = nil, time.Now()
	}
}

// run sends events until nobody reads any more, the first one now or soon. Those of all
// selections are made at the same times, so that they share what is read.
func (v *viewing) run(ctx context.Context, now bool) {
	v.turn.Lock() // a loop that nobody reads any more may still be making its last View
	defer v.turn.Unlock()
	wait := v.soon() // rates need two looks
	if now {
		v.send(ctx, v.next())
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		v.send(ctx, v.next())
		at := time.Now()
		every := v.builder.Every
		if wait = at.Truncate(every).Add(every).Sub(at); wait < v.soon() {
			wait += every
		}
	}
}

// nodesATime is how many nodes may be read at each interval: a reader of a large cluster
// is to cost less than 1 % of a core.
const nodesATime = 100

// interval returns how long two Views of so many nodes are apart.
func (w *watch) interval(nodes int) time.Duration {
	return w.every * time.Duration(1+nodes/nodesATime)
}

// soon is how long two looks are apart at least. Rates of a shorter time tell nothing.
func (w *watch) soon() time.Duration { return min(w.every/2, time.Second) }

// fresh is how long what was read is used again.
func (w *watch) fresh() time.Duration { return w.soon() * 9 / 10 }

// send gives an event to all readers, without waiting for any.
func (v *viewing) send(ctx context.Context, e event) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	v.last = e
	for r := range v.readers {
		select {
		case <-r.events:
		default:
		}
		r.events <- e
	}
}

// next returns the next View, or says why there is none.
func (v *viewing) next() event {
	view, err := guarded(context.Background(), func(context.Context) (*View, error) { return v.look() })
	var data []byte
	if err == nil {
		data, err = json.Marshal(view)
	}
	if err == nil {
		v.failed("")
		return event{eventView, data, time.Now()}
	}
	v.failed(err.Error())
	text, _, _ := strings.Cut(err.Error(), "\n") // the stack is for the log
	data, _ = json.Marshal(text)                 // a string can be
	return event{eventTrouble, data, time.Now()}
}

// failed logs why no View can be made, once while that stays the same; "": one can.
func (w *watch) failed(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if why != w.failure && why != "" {
		w.log.Warn("the page cannot be made", "error", why)
	}
	w.failure = why
}

// look reads what a View needs, and makes it.
func (v *viewing) look() (*View, error) {
	// The overview of a cluster may take longer than the answer of a node.
	o, at, err := v.overview.get(v.fresh(), 2*v.patience, v.source.Overview)
	if err != nil {
		return nil, err
	}
	s := &Sample{Overview: o, Choice: v.Choose(o.Gateways)}
	r, asked, err := v.status(s.Choice.Names())
	if s.Reports, s.Unanswered, s.Time = r.of, unanswered(o, r, err), asked; asked.IsZero() {
		s.Time = at
	}
	if v.viewKey.flows {
		f, _, err := v.watch.flows.get(v.fresh(), v.patience, v.lastFlows)
		if s.Flows, s.FlowsNote = f.records, f.note; err != nil && len(f.records) == 0 && f.note == "" {
			s.FlowsNote = "the last flows are not known: " + err.Error()
		}
	} else {
		s.FlowsNote = "you may not see flows, as they have the addresses of clients"
	}
	v.builder.Every = v.interval(len(o.Nodes))
	return v.builder.View(s), nil
}

// reports are what nodes report, and why others do not.
type reports struct {
	of  map[string]top.Report
	bad map[string]string
}

// status asks nodes for some Gateways.
func (w *watch) status(gateways []string) (reports, time.Time, error) {
	slices.Sort(gateways)
	scope := strings.Join(gateways, " ")
	w.mu.Lock()
	for key, s := range w.statuses {
		if s.isOld(4 * w.every) {
			delete(w.statuses, key)
		}
	}
	s := w.statuses[scope]
	if s == nil {
		s = &shared[reports]{}
		w.statuses[scope] = s
	}
	w.mu.Unlock()
	return s.get(w.fresh(), w.patience, func(ctx context.Context) (reports, error) {
		r := reports{map[string]top.Report{}, map[string]string{}}
		err := w.source.Ask(ctx, observe.Query{Status: &observe.StatusQuery{Scope: &observe.Scope{Gateways: gateways}}}, func(node string, piece json.RawMessage) error {
			var report top.Report
			if err := json.Unmarshal(piece, &report); err != nil {
				r.bad[node] = "its answer cannot be read: " + err.Error()
				return nil // of the others
			}
			r.of[node] = report
			return nil
		})
		return r, err
	})
}

// unanswered returns which nodes have not reported, and why; nil: all have.
func unanswered(o *Overview, r reports, err error) map[string]string {
	reasons := map[string]string{}
	maps.Copy(reasons, r.bad)
	if failed, is := errors.AsType[*observe.NodesError](err); is {
		maps.Copy(reasons, failed.Reasons)
	} else if err != nil {
		for _, n := range o.Nodes {
			if _, is := r.of[n.Name]; !is {
				reasons[n.Name] = err.Error()
			}
		}
		if len(reasons) == 0 {
			reasons[o.Name] = err.Error()
		}
	}
	return reasons
}

// lastEnded are the flows that have ended last, the newest first, or why there are none.
type lastEnded struct {
	records []observe.Record
	note    string
}

// lastFlows asks nodes for the flows that have ended last.
func (w *watch) lastFlows(ctx context.Context) (last lastEnded, err error) {
	recording := map[string]bool{}
	q := observe.FlowsQuery{Last: mostFlows, Filter: observe.Filter{Events: []observe.Event{observe.EventEnd}}}
	err = w.source.Ask(ctx, observe.Query{Flows: &q}, func(node string, piece json.RawMessage) error {
		var p observe.FlowsPiece
		if err := json.Unmarshal(piece, &p); err != nil {
			return err
		}
		if p.Memory != nil {
			recording[p.Memory.Recording] = true
		}
		if p.Record != nil {
			p.Record.Node = cmp.Or(p.Record.Node, node)
			last.records = append(last.records, *p.Record)
		}
		return nil
	})
	slices.SortStableFunc(last.records, func(a, b observe.Record) int { return b.Time.Compare(a.Time) })
	last.records, _ = limit(last.records, mostFlows)
	if len(last.records) == 0 {
		last.note = noFlows(recording)
	}
	return last, err
}

// noFlows says why there are no records of flows; "": it is not known.
func noFlows(recording map[string]bool) string {
	switch {
	case recording[observe.RecordingAll]:
		return "no flow has ended yet"
	case recording[observe.RecordingSome]:
		return "no flow of a Gateway with flow records has ended yet"
	case recording[observe.RecordingOff]:
		return "flows are not recorded: blixt run --flow-records, or a BlixtGatewayConfig with flowRecords: Enabled, has them recorded"
	case recording[observe.RecordingNot]:
		return "flows are not recorded: the program in the kernel is of an earlier version"
	}
	return ""
}
