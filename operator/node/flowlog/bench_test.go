// SPDX-License-Identifier: Apache-2.0

package flowlog

import (
	"context"
	"testing"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/observe"
)

// BenchmarkRemember measures what a record costs from the ring buffer's bytes on.
func BenchmarkRemember(b *testing.B) {
	l := New(Options{})
	l.names.replace([]*lb.Frontend{frontend}, at)
	sample := bytesOf(ended(40000))
	batch := make([]entry, 0, chunk)
	b.ReportAllocs()
	for b.Loop() {
		e, _ := decode(sample)
		if batch = append(batch, e); len(batch) == cap(batch) {
			l.add(batch)
			batch = batch[:0]
		}
	}
}

// BenchmarkLine measures what a line of JSON costs besides.
func BenchmarkLine(b *testing.B) {
	l := New(Options{})
	l.names.replace([]*lb.Frontend{frontend}, at)
	l.add([]entry{{r: ended(40000)}})
	e := l.memory.parts[partFlows].all[0]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Line(l.record(&e)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAsk measures a question that one of a full memory's records answers.
func BenchmarkAsk(b *testing.B) {
	l := New(Options{})
	l.names.replace([]*lb.Frontend{frontend}, at)
	for i := range partSizes[partFlows] {
		l.add([]entry{{r: ended(uint16(i))}})
	}
	client, err := observe.ParseMatch("198.51.100.7:40000")
	if err != nil {
		b.Fatal(err)
	}
	q := observe.FlowsQuery{Filter: observe.Filter{Clients: []observe.Match{client}}}
	b.ReportAllocs()
	for b.Loop() {
		if err := l.Flows(context.Background(), q, func(any) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkLast measures a page's question for the last flows, of a full memory.
func BenchmarkLast(b *testing.B) {
	l := New(Options{})
	l.names.replace([]*lb.Frontend{frontend}, at)
	for i := range partSizes[partFlows] {
		l.add([]entry{{r: ended(uint16(i))}})
	}
	q := observe.FlowsQuery{Last: 30, Filter: observe.Filter{Events: []observe.Event{observe.EventEnd}}}
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		if err := l.Flows(context.Background(), q, func(any) error { n++; return nil }); err != nil || n != 31 {
			b.Fatal(n, err)
		}
	}
}
