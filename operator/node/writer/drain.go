// SPDX-License-Identifier: Apache-2.0

package writer

import (
	"errors"
	"fmt"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/node/datapath"
)

// Linger is how long a data plane is still needed after the last packet of its
// last flow, and after it was told to drain: for retransmissions, and for flows
// that have begun but are not established yet.
const Linger = 5 * time.Second

// Drain makes the data plane serve only the flows that it knows, and leave all
// others to the next program; or, if on is false, serve all flows again.
func (w *Writer) Drain(on bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	c, err := w.tables.Config()
	if err != nil {
		return fmt.Errorf("read config: %w", err)
	}
	c.Flags &^= datapath.ConfigDrain
	if on {
		c.Flags |= datapath.ConfigDrain
	}
	if err := w.tables.SetConfig(c); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return nil
}

// Unfinished returns how many flows would break without this data plane: the
// established TCP flows and the UDP flows that have not ended, or ended less than
// Linger ago. Those that it does not change are not among them: any other program
// lets their packets pass as well.
func Unfinished(t Tables) (uint64, error) { return unfinished(t, ticks) }

func unfinished(t Tables, clock func() uint32) (uint64, error) {
	backends, err := t.Backends()
	if err != nil {
		return 0, fmt.Errorf("read backends: %w", err)
	}
	linger := datapath.Ticks(Linger)
	s := sweeper{flows: t, ticks: clock, backends: backends, pauses: pauses{datapath.Ticks(transitoryFor), linger, linger}}
	// A reset may be recorded in the reply's entry alone, so find those first.
	ended := map[datapath.FlowKey]bool{} // by forward key
	err = s.each(func(_ datapath.FlowEntry, forward datapath.FlowKey, why end) {
		if why > vanished {
			ended[forward] = true
		}
	})
	if err != nil {
		return 0, err
	}
	n := uint64(0)
	err = s.each(func(e datapath.FlowEntry, _ datapath.FlowKey, why end) {
		if e.Value.Flags&(datapath.FlowReply|datapath.FlowPlain) == 0 && why == lives && !ended[e.Key] {
			n++
		}
	})
	return n, err
}

// each calls f with every entry, the forward key of its flow, and whether and
// why the flow has ended.
func (s *sweeper) each(f func(e datapath.FlowEntry, forward datapath.FlowKey, why end)) error {
	var failed error
	err := s.flows.EachFlow(func(entries []datapath.FlowEntry) bool {
		for _, e := range entries {
			both, why, err := s.classify(e)
			if failed = err; err != nil {
				return false
			}
			f(e, both.forward, why)
		}
		return true
	})
	return errors.Join(failed, err)
}
