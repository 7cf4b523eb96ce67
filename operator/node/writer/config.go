// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// mergeOptions returns the config with what the options say; what a state says
// and whether it drains is left as it is.
func (a *Writer) mergeOptions(c datapath.Config) datapath.Config {
	c.SnatMin, c.SnatMax = a.o.SNAT.First, a.o.SNAT.Last
	c.Node4, c.Node6 = datapath.ToAddr(a.o.Node4), datapath.ToAddr(a.o.Node6)
	return c
}

// ours tells whether the maps still hold what was applied last.
func (a *Writer) ours() (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c, err := a.tables.Config()
	if err != nil {
		return false, fmt.Errorf("read config: %w", err)
	}
	if a.record.Hash == "" { // nothing was applied yet
		return true, nil
	}
	same := hashText(c.StateHash) == a.record.Hash && a.mergeOptions(c) == c &&
		lb.Version{Epoch: c.Epoch, Sequence: c.Sequence} == a.record.Version
	if same && a.image != nil {
		if same, err = a.image.Same(a.tables, a.o.Clock()); err != nil {
			return false, fmt.Errorf("read maps: %w", err)
		}
	}
	if !same {
		a.image = nil
	}
	return same, nil
}
