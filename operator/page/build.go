// SPDX-License-Identifier: Apache-2.0

package page

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/finding"
	"github.com/kubernetes-sigs/blixt/operator/node/top"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// How much a View has: its size does not depend on what is served.
const (
	mostFindings  = 50
	mostNodes     = 250
	mostListeners = 64  // of a Gateway
	mostServices  = 32  // of a listener
	mostBackends  = 16  // of a Service
	openBackends  = 200 // of a Service of the Gateway that is open
	allBackends   = 600 // of all Gateways
	allServices   = 800 // of all listeners
)

// Sample is what was read for a View.
type Sample struct {
	Time     time.Time
	Overview *Overview
	Choice   Choice
	// Reports are answers to scoped questions, by node. One of a node of an earlier version
	// may have all frontends, and no totals.
	Reports map[string]top.Report
	// Unanswered says which nodes have not answered, and why.
	Unanswered map[string]string
	Flows      []observe.Record
	FlowsNote  string
}

// Builder makes the Views of one reader.
type Builder struct {
	// Every is how often a View is made.
	Every time.Duration
	// before is what nodes reported for the View before, at a time.
	before map[string]top.Report
	at     time.Time
}

// build is a View in progress.
type build struct {
	*Sample
	before  map[string]*past
	seconds float64
	// How many backends and Services may be added.
	room, serviceRoom int
}

// View returns the next View.
func (b *Builder) View(s *Sample) *View {
	s = s.sane()
	now := &build{Sample: s, before: pasts(b.before), room: allBackends, serviceRoom: allServices}
	if b.before != nil {
		now.seconds = max(0, s.Time.Sub(b.at).Seconds())
	}
	v := &View{
		V: ViewVersion, Time: s.Time, Seconds: now.seconds, Every: b.Every.Seconds(), Overview: *s.Overview,
		Page: s.Choice.Page, Pages: s.Choice.Pages, Matching: s.Choice.Matching, All: s.Choice.All,
		Gateways: now.gateways(), Drops: now.drops(), Flows: s.Flows, FlowsNote: s.FlowsNote, Unanswered: s.Unanswered,
		Totals: now.totals(), NodesAll: len(s.Overview.Nodes), Nodes: worst(s.Overview.Nodes), Versions: versions(s.Overview.Nodes),
	}
	if v.Flows == nil {
		v.Flows = []observe.Record{}
	}
	v.keepShares()
	v.Status.Findings, v.MoreFindings = limit(v.Status.Findings, mostFindings)
	v.shorten()
	b.before, b.at = s.Reports, s.Time
	return v
}

// limit returns the first n elements, never nil, and how many are left out.
func limit[T any](all []T, n int) (some []T, more int) {
	if all == nil {
		return []T{}, 0
	}
	n = min(n, len(all))
	return all[:n:n], len(all) - n
}

// nodes returns the names of the nodes that have answered, in order: sums of floating-point
// numbers are the same each time.
func (b *build) nodes() []string { return slices.Sorted(maps.Keys(b.Reports)) }

func (b *build) totals() Totals {
	t := Totals{Gateways: b.Choice.All}
	for _, node := range b.nodes() {
		of := totalsOf(b.Reports[node])
		was, known := b.before[node].totals()
		// All nodes serve the same.
		t.Frontends, t.Backends = max(t.Frontends, of.Frontends), max(t.Backends, of.Backends)
		t.Active += of.ActiveFlows
		for _, r := range []struct {
			sum        *Rate
			was, value uint64
		}{{&t.NewFlows, was.NewFlows, of.NewFlows}, {&t.Rejected, was.Rejected, of.Rejected}, {&t.BytesIn, was.Bytes, of.Bytes}, {&t.BytesOut, was.ReplyBytes, of.ReplyBytes}} {
			b.rate(r.sum, known, r.was, r.value)
		}
	}
	return t
}

// totalsOf returns the totals of a node, of an earlier version, too.
func totalsOf(r top.Report) (t top.Totals) {
	if r.Totals != nil {
		return *r.Totals
	}
	t.Frontends = len(r.Frontends)
	for i := range r.Frontends {
		f := &r.Frontends[i]
		t.Backends += len(f.Backends)
		t.NewFlows, t.ActiveFlows, t.Rejected = t.NewFlows+f.NewFlows, t.ActiveFlows+f.ActiveFlows, t.Rejected+f.Rejected
		t.Packets, t.Bytes, t.ReplyPackets, t.ReplyBytes = t.Packets+f.Packets, t.Bytes+f.Bytes, t.ReplyPackets+f.ReplyPackets, t.ReplyBytes+f.ReplyBytes
	}
	return t
}

// drops returns what was rejected or dropped so far, the busiest first.
func (b *build) drops() []Drop {
	sums := map[string]*Drop{}
	for _, node := range b.nodes() {
		for name, n := range b.Reports[node].Counters {
			if n == 0 || !strings.HasPrefix(name, "drop_") && !strings.HasPrefix(name, "reject_") {
				continue
			}
			d := sums[name]
			if d == nil {
				d = &Drop{Reason: observe.Reason{Name: name}}
				if i := slices.IndexFunc(observe.Reasons, func(r observe.Reason) bool { return r.Name == name }); i >= 0 {
					d.Reason = observe.Reasons[i]
				}
				sums[name] = d
			}
			d.Packets += n
			was, known := b.before[node].counter(name)
			b.rate(&d.PerSecond, known, was, n)
		}
	}
	all := make([]Drop, 0, len(sums))
	for _, d := range sums {
		all = append(all, *d)
	}
	slices.SortFunc(all, func(a, b Drop) int {
		return cmp.Or(cmp.Compare(value(b.PerSecond), value(a.PerSecond)), cmp.Compare(b.Packets, a.Packets), strings.Compare(a.Name, b.Name))
	})
	return all
}

// value returns a rate, 0 if it is not known.
func value(r Rate) float64 {
	if r == nil {
		return 0
	}
	return *r
}

// worst returns the nodes that are not well, and then others, up to a limit.
func worst(all []Node) []Node {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Node) int {
		return cmp.Or(slices.Index(finding.Levels, a.Verdict)-slices.Index(finding.Levels, b.Verdict), strings.Compare(a.Name, b.Name))
	})
	some, _ := limit(all, mostNodes)
	return some
}

func versions(all []Node) map[string]int {
	counts := map[string]int{}
	for i := range all {
		if all[i].Version != "" {
			counts[all[i].Version]++
		}
	}
	return counts
}
