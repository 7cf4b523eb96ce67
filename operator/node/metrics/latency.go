// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"math"

	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// A latency's slots are powers of two of seconds, which are the buckets of a native
// histogram of schema 0: bucket k is of what is above 2^(k-1) s, and at most 2^k s. Slot 0
// is its zero bucket.
//
// lowest is the bucket of slot 1: above LATENCY_FIRST, and up to twice that.
const lowest = 6 + 1 - 20

var (
	schema        = int32(0)
	zeroThreshold = math.Ldexp(1, lowest-1)
)

// Classic buckets are few, as each is a series: 122 us, and four times as much each, up
// to 2 s.
const (
	firstBound = -13
	lastBound  = 1
	boundStep  = 2
)

var classicBounds = func() (all [(lastBound-firstBound)/boundStep + 1]float64) {
	for i := range all {
		all[i] = math.Ldexp(1, firstBound+i*boundStep)
	}
	return all
}()

// histogram is all that a dto.Histogram points to: there are thousands, each of one
// allocation.
type histogram struct {
	dto.Histogram
	total, zero uint64
	sum         float64
	classic     [len(classicBounds)]dto.Bucket
	pointers    [len(classicBounds)]*dto.Bucket
	counts      [len(classicBounds)]uint64
	span        dto.BucketSpan
	spans       [1]*dto.BucketSpan
	offset      int32
	length      uint32
	deltas      [len(datapath.Latency{}.Counts) - 1]int64
}

// newLatency returns a histogram in both forms: scrapers take what they know.
func newLatency(l datapath.Latency) *dto.Histogram {
	h := &histogram{zero: l.Counts[0], sum: float64(l.Sum) / datapath.LatencyUnitsPerSecond}
	h.Schema, h.ZeroThreshold, h.ZeroCount = &schema, &zeroThreshold, &h.zero
	h.SampleSum, h.SampleCount = &h.sum, &h.total
	first, last := 0, 0 // of the slots that are not empty, without slot 0
	for slot, n := range l.Counts {
		h.total += n
		if at := slot + lowest - 1 - firstBound; at >= 0 && at%boundStep == 0 && at/boundStep < len(h.classic) {
			i := at / boundStep
			h.counts[i] = h.total
			h.classic[i].UpperBound, h.classic[i].CumulativeCount = &classicBounds[i], &h.counts[i]
			h.pointers[i] = &h.classic[i]
		}
		if slot > 0 && n > 0 {
			if last = slot; first == 0 {
				first = slot
			}
		}
	}
	h.Bucket = h.pointers[:]
	if first == 0 {
		return &h.Histogram
	}
	h.offset, h.length = int32(first-1+lowest), uint32(last-first+1)
	h.span.Offset, h.span.Length = &h.offset, &h.length
	h.spans[0] = &h.span
	before := int64(0)
	for i, n := range l.Counts[first : last+1] {
		h.deltas[i] = int64(n) - before
		before = int64(n)
	}
	h.PositiveSpan, h.PositiveDelta = h.spans[:], h.deltas[:h.length]
	return &h.Histogram
}
