// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Metrics are the part of Status that costs little: they may be asked for often, by
// anybody who may scrape.
type Metrics struct {
	Version   lb.Version
	StateHash string
	// Applied is when the writer has written that state; zero: it is not known.
	Applied   time.Time
	Draining  bool
	SNAT      lb.PortRange
	FlowQuota FlowQuota
	Tables    map[string]lb.Use
	Frontends []ServedFrontend
	// Names is another number whenever Frontends may name something else.
	Names uint64
	// Flows are those of the last sweep.
	Flows    FlowCounts
	Counters map[string]uint64
	// Policies are the restrictions of all frontends.
	Policies []PolicyStatus
}

// ServedFrontend is a frontend in the maps.
type ServedFrontend struct {
	// Frontend is what is wanted by now, and must not be modified.
	*lb.Frontend
	// Index is where its numbers are.
	Index uint32
	// Established is how many established flows it has.
	Established uint64

	served     *datapath.Served
	generation uint32 // of its ring
}

// Metrics reads the config and counters. What the maps hold it takes from memory,
// as it was last: it waits for nobody who writes.
func (w *Writer) Metrics() (m Metrics, err error) {
	w.counts.Lock()
	m.Flows = w.counts.flows
	w.counts.Unlock()
	c, err := w.tables.Config()
	if err != nil {
		return m, fmt.Errorf("read config: %w", err)
	}
	m.Version, m.StateHash, m.Draining = versionOf(c), hashText(c.StateHash), c.Flags&datapath.ConfigDrain != 0
	m.SNAT = lb.PortRange{First: c.SnatMin, Last: c.SnatMax}
	m.FlowQuota = FlowQuota{NearlyFull: c.FlowsNearlyFull, Share: c.FlowsShare}
	w.refreshMetrics(w.mu.TryLock)
	w.metrics.Lock()
	frontends, policies := w.metrics.frontends, w.metrics.policies
	m.Names = w.metrics.names
	if w.metrics.record.Hash == m.StateHash {
		m.Applied = w.metrics.record.Time
	}
	if w.metrics.names > 0 {
		m.Tables = tableUse(w.metrics.used, w.tables.Sizes(), m.Flows)
	}
	w.metrics.Unlock()
	established := w.tables.Established()
	m.Frontends = slices.Clone(frontends)
	for i := range m.Frontends {
		f := &m.Frontends[i]
		f.Established = uint64(max(int32(established[1+f.Index]), 0))
	}
	if m.Policies, err = countPolicies(w.tables, policies); err != nil {
		return m, err
	}
	m.Counters, err = counters(w.tables)
	return m, err
}

// refreshMetrics takes what the maps hold from memory, if it has changed, and if lock gets
// hold of w.mu.
func (w *Writer) refreshMetrics(lock func() bool) {
	changes := w.changes.Load()
	w.metrics.Lock()
	same := w.metrics.names == changes
	w.metrics.Unlock()
	if same {
		return
	}
	frontends, policies, used, record, changes := w.served(lock)
	if changes == 0 {
		return
	}
	slices.SortFunc(frontends, func(a, b ServedFrontend) int { return a.Key().Compare(b.Key()) })
	w.metrics.Lock()
	defer w.metrics.Unlock()
	w.metrics.used, w.metrics.frontends, w.metrics.policies, w.metrics.record, w.metrics.names = used, frontends, policies, record, changes
}

// served returns what the maps hold, and how many changes have led to it; 0: somebody
// writes, or they were not read yet.
func (w *Writer) served(lock func() bool) (frontends []ServedFrontend, policies []PolicyStatus, used datapath.Sizes, record Record, changes uint64) {
	if !lock() {
		return nil, nil, used, record, 0
	}
	defer w.mu.Unlock()
	if w.contents == nil {
		return nil, nil, used, record, 0
	}
	frontends = make([]ServedFrontend, 0, len(w.contents.Frontends))
	for key, served := range w.contents.Frontends {
		if f := w.target.Frontend(key); f != nil {
			frontends = append(frontends, ServedFrontend{
				Frontend: f, Index: served.Entry.Index, served: served, generation: w.contents.RingRef(served.Entry.Index).Generation(),
			})
		}
	}
	policies = heldPolicies(w.contents, func(yield func(*lb.Frontend) bool) {
		for i := range frontends {
			if !yield(frontends[i].Frontend) {
				return
			}
		}
	})
	return frontends, policies, w.contents.Use(), w.record, w.changes.Load()
}
