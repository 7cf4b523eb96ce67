// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Summary is a short form of Status that reads little.
type Summary struct {
	Version   lb.Version
	StateHash string
	Draining  bool
	SNAT      lb.PortRange
	// Flows is the number of active flows at the last sweep.
	Flows  uint64
	Tables map[string]lb.Use
	// HostListens are the frontends at which a socket of the host listens.
	HostListens []lb.Key
	// Sources are addresses to which sources of flows are translated, as of the last
	// sweep.
	Sources []netip.Addr
	// Foreign is when another writer was last noticed; zero: never.
	Foreign time.Time
}

// Summary reads the config, and where the host listens. It reads the other maps only if the writer does not
// know what they hold.
func (w *Writer) Summary() (Summary, error) {
	w.counts.Lock()
	flows := w.counts.flows
	w.counts.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.tables.Config()
	if err != nil {
		return Summary{}, fmt.Errorf("read config: %w", err)
	}
	if w.contents == nil {
		if w.contents, err = datapath.Read(w.tables, w.o.Clock()); err != nil {
			return Summary{}, fmt.Errorf("read maps: %w", err)
		}
	}
	listens, err := hostListens(w.tables, w.contents, w.o.Ticks())
	if err != nil {
		return Summary{}, err
	}
	return Summary{
		Version: versionOf(c), StateHash: hashText(c.StateHash),
		Draining: c.Flags&datapath.ConfigDrain != 0, SNAT: lb.PortRange{First: c.SnatMin, Last: c.SnatMax},
		Flows: flows.Total(), HostListens: listens, Sources: flows.sources(),
		Tables: tableUse(w.contents.Use(), w.contents.Sizes, flows), Foreign: w.foreign,
	}, nil
}
