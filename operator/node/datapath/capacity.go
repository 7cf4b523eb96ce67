// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"

	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// check returns a TableFullError if the tables cannot hold the state, however
// long one waits, and another error if the state is not normalized.
func (c *Contents) check(want lb.State) error {
	full := func(table string, size, needed int) error {
		if needed > size {
			return &lb.TableFullError{Table: table, Size: size, Needed: needed}
		}
		return nil
	}
	if err := full("addresses", c.Sizes.Addresses, len(want.Addresses)); err != nil {
		return err
	}
	if err := full("frontends", c.Sizes.Frontends, len(want.Frontends)); err != nil {
		return err
	}
	backends, slots, largest := 0, uint64(0), uint64(0)
	keys := make(map[lb.Key]bool, len(want.Frontends))
	for _, f := range want.Frontends {
		if keys[f.Key()] {
			return fmt.Errorf("state: frontend %s twice", f.Key())
		}
		keys[f.Key()] = true
		for i := 1; i < len(f.Backends); i++ {
			if f.Backends[i-1].Addr.Compare(f.Backends[i].Addr) >= 0 {
				return fmt.Errorf("state: backends of %s are not in order, or %s is there twice", f.Key(), f.Backends[i].Addr)
			}
		}
		backends += len(f.Backends)
		size := uint64(ring.Size(len(f.Backends)))
		slots += size
		largest = max(largest, size)
	}
	// Id 0 is BACKEND_REJECT.
	if err := full("backends", c.Sizes.Backends-1, backends); err != nil {
		return err
	}
	// A ring is written beside the one that it replaces. So there must be room
	// for one more of the largest size, or nothing could change any more.
	return full("rings", c.Sizes.RingSlots, int(slots+largest))
}
