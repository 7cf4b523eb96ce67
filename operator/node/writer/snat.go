// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"fmt"
	"net/netip"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// SetSNAT changes the source ports and addresses of translated flows, as in
// Options. Existing flows keep theirs.
func (w *Writer) SetSNAT(ports lb.PortRange, hostAddresses []netip.Addr) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.SNAT, w.o.HostAddresses = ports, hostAddresses
	return w.writeOptions()
}

// SetMasqueradeMark changes the mark, as in Options.
func (w *Writer) SetMasqueradeMark(mark uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.MasqueradeMark = mark
	return w.writeOptions()
}

// SetUpgrading changes whether a previous program is there, as in Options.
func (w *Writer) SetUpgrading(on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Upgrading = on
	return w.writeOptions()
}

// SetSeed changes the seed, as in Options. Existing flows keep their backends.
func (w *Writer) SetSeed(seed uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Seed = &seed
	return w.writeOptions()
}

// writeOptions writes the config if options have changed it.
func (w *Writer) writeOptions() error {
	if err := w.announceHost(); err != nil {
		return err
	}
	c, err := w.tables.Config()
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	if merged := w.mergeOptions(c); merged != c {
		if err := w.tables.SetConfig(merged); err != nil {
			return fmt.Errorf("write config: %w", err)
		}
	}
	return nil
}
