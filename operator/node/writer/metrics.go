// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Metrics are the part of Status that costs little: they may be asked for often, by
// anybody who may scrape.
type Metrics struct {
	Version   lb.Version
	Draining  bool
	FlowQuota FlowQuota
	Tables    map[string]lb.Use
	Frontends []FrontendFlows
	Counters  map[string]uint64
}

// FrontendFlows is how many established flows a frontend has.
type FrontendFlows struct {
	Key               lb.Key
	Gateway, Listener string
	Established       uint64
}

// indexedFrontend is a frontend, and where its numbers are.
type indexedFrontend struct {
	FrontendFlows
	index uint32
}

// Metrics reads the config and counters. What the maps hold it takes from memory,
// as it was last: it waits for nobody who writes.
func (w *Writer) Metrics() (Metrics, error) {
	w.counts.Lock()
	flows := w.counts.flows
	w.counts.Unlock()
	w.refreshMetrics(flows)
	c, err := w.tables.Config()
	if err != nil {
		return Metrics{}, fmt.Errorf("read config: %w", err)
	}
	m := Metrics{
		Version: lb.Version{Epoch: c.Epoch, Sequence: c.Sequence}, Draining: c.Flags&datapath.ConfigDrain != 0,
		FlowQuota: FlowQuota{NearlyFull: c.FlowsNearlyFull, Share: c.FlowsShare},
	}
	w.metrics.Lock()
	frontends := w.metrics.frontends
	m.Tables = w.metrics.tables
	w.metrics.Unlock()
	established := w.tables.Established()
	m.Frontends = make([]FrontendFlows, len(frontends))
	for i, f := range frontends {
		m.Frontends[i] = f.FrontendFlows
		m.Frontends[i].Established = uint64(max(int32(established[1+f.index]), 0))
	}
	m.Counters, err = counters(w.tables)
	return m, err
}

// refreshMetrics takes what the maps hold from memory, unless somebody writes.
func (w *Writer) refreshMetrics(flows FlowCounts) {
	if !w.mu.TryLock() {
		return
	}
	defer w.mu.Unlock()
	if w.contents == nil {
		return
	}
	tables := tableUse(w.contents, flows)
	frontends := make([]indexedFrontend, 0, len(w.contents.Frontends))
	state := w.target.State()
	for i := range state.Frontends {
		f := &state.Frontends[i]
		if served := w.contents.Frontends[f.Key()]; served != nil {
			frontends = append(frontends, indexedFrontend{FrontendFlows{Key: f.Key(), Gateway: f.Gateway, Listener: f.Listener}, served.Entry.Index})
		}
	}
	w.metrics.Lock()
	defer w.metrics.Unlock()
	w.metrics.tables, w.metrics.frontends = tables, frontends
}
