// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kubernetes-sigs/blixt/operator/node/flowlog"
	"github.com/kubernetes-sigs/blixt/operator/scrape"
)

var (
	descRecords     = describe("flow_records_total", "Records that were remembered: of flows, of attempts to begin one, of packets that were rejected or dropped.", "result")
	descRecordsLost = describe("flow_records_lost_total", "Records that were lost: a ring buffer was full, there was no room for a record while its flow lasts (full), it was invalid, or lines were not written fast enough (log).", "where")
)

// AddRecords adds the metrics of a memory of flows to a page.
func AddRecords(page *scrape.Page, log *flowlog.Log) {
	page.Add("records", described{prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		stats, err := log.Stats()
		if err != nil {
			return nil, err
		}
		var c collected
		for result, n := range stats.Records {
			c.counter(descRecords, n, result)
		}
		for where, n := range stats.Lost {
			c.counter(descRecordsLost, n, where)
		}
		r := prometheus.NewRegistry()
		if err := r.Register(c); err != nil {
			return nil, err
		}
		return r.Gather()
	})})
}
