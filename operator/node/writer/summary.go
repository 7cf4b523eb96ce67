// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Summary is the short form of Status, by what the agent knows it has written.
type Summary struct {
	Version   lb.Version
	StateHash string
	Draining  bool
	SNAT      lb.PortRange
	Tables    map[string]lb.Use
	// Foreign is when the maps were last found to be written by another, zero:
	// never.
	Foreign time.Time
}

// Summary reads the config, and of the maps no more than the agent does not
// know.
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
	return Summary{
		Version: lb.Version{Epoch: c.Epoch, Sequence: c.Sequence}, StateHash: hashText(c.StateHash),
		Draining: c.Flags&datapath.ConfigDrain != 0, SNAT: lb.PortRange{First: c.SnatMin, Last: c.SnatMax},
		Tables: tableUse(w.contents, flows), Foreign: w.foreign,
	}, nil
}
