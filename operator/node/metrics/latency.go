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
const (
	unitsPerSecond = 1 << 20
	// lowest is the bucket of slot 1: above LATENCY_FIRST, and up to twice that.
	lowest = 6 + 1 - 20
)

var zeroThreshold = math.Ldexp(1, lowest-1)

// Classic buckets are few, as each is a series: 122 us, and four times as much each, up
// to 2 s.
const (
	firstBound = -13
	lastBound  = 1
	boundStep  = 2
)

// newLatency returns a histogram in both forms: scrapers take what they know.
func newLatency(l datapath.Latency) *dto.Histogram {
	h := &dto.Histogram{
		Schema: new(int32(0)), ZeroThreshold: &zeroThreshold, ZeroCount: new(l.Counts[0]),
		SampleSum: new(float64(l.Sum) / unitsPerSecond),
	}
	total, bound := uint64(0), firstBound
	bounds := make([]dto.Bucket, 0, (lastBound-firstBound)/boundStep+1)
	for slot, n := range l.Counts {
		total += n
		if slot+lowest-1 == bound && bound <= lastBound {
			bounds = append(bounds, dto.Bucket{UpperBound: new(math.Ldexp(1, bound)), CumulativeCount: new(total)})
			bound += boundStep
		}
	}
	for i := range bounds {
		h.Bucket = append(h.Bucket, &bounds[i])
	}
	h.SampleCount = &total
	first, last := 0, 0
	for slot, n := range l.Counts[1:] {
		if n > 0 {
			if first == 0 {
				first = slot + 1
			}
			last = slot + 1
		}
	}
	if first == 0 {
		return h
	}
	h.PositiveSpan = []*dto.BucketSpan{{Offset: new(int32(first - 1 + lowest)), Length: new(uint32(last - first + 1))}}
	before := int64(0)
	for _, n := range l.Counts[first : last+1] {
		h.PositiveDelta = append(h.PositiveDelta, int64(n)-before)
		before = int64(n)
	}
	return h
}
