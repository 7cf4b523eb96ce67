// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"time"
)

// Written is the number of entries that Apply has written.
type Written struct {
	Addresses  int `json:"addresses,omitempty"`
	Frontends  int `json:"frontends,omitempty"`
	Backends   int `json:"backends,omitempty"`
	Words      int `json:"words,omitempty"`
	Slots      int `json:"slots,omitempty"`
	Refs       int `json:"refs,omitempty"`
	Policies   int `json:"policies,omitempty"`
	Sources    int `json:"sources,omitempty"`
	Ranges     int `json:"ranges,omitempty"`
	Affinities int `json:"affinities,omitempty"`
}

// Add adds o to w.
func (w *Written) Add(o Written) {
	w.Addresses += o.Addresses
	w.Frontends += o.Frontends
	w.Backends += o.Backends
	w.Words += o.Words
	w.Slots += o.Slots
	w.Refs += o.Refs
	w.Policies += o.Policies
	w.Sources += o.Sources
	w.Ranges += o.Ranges
	w.Affinities += o.Affinities
}

// Apply carries out a plan that was made from c, and keeps c up to date. After
// an error, each frontend in the tables is whole, in its previous or its new
// form, but c must be read again.
func Apply(t Tables, c *Contents, p *Plan, clock func() time.Time) (Written, error) {
	var written Written
	c.indexes, c.ids, c.slab, c.policyIDs = p.indexes, p.ids, p.slab, p.policyIDs
	for _, op := range p.Ops {
		if err := op.write(t); err != nil {
			return written, fmt.Errorf("%s: %w", op, err)
		}
		op.record(c, clock())
		op.count(&written)
	}
	for key, next := range p.served {
		c.count(c.Frontends[key], -1)
		c.count(next, 1)
		c.Frontends[key] = next
	}
	c.out, c.resize, c.fresh = p.out, p.resize, false
	mark(p.target.staleFrontends, p.frontends)
	mark(p.target.staleAddresses, p.addresses)
	mark(p.target.policies.stale, p.policies)
	clear(p.target.policies.staleSets)
	p.target.staleFlags = false
	c.strayFrontends, c.strayAffinities, c.orphans, c.twins, c.policies.strays = nil, nil, nil, nil, nil
	return written, nil
}

// mark adds to a set what is true in changes, and removes what is false.
func mark[K comparable](set, changes map[K]bool) {
	for key, in := range changes {
		if in {
			set[key] = true
		} else {
			delete(set, key)
		}
	}
}
