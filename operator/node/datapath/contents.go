// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// Contents is what the tables hold, and which ids and ranges are free. Apply
// keeps it up to date. After an error of Apply it must be read again.
type Contents struct {
	Sizes     Sizes
	Addresses map[netip.Addr]bpf.BlixtAddress
	Frontends map[lb.Key]*Served
	// Ranges are the ranges of ports by address and protocol: the port of a key is 0.
	Ranges map[lb.Key]bpf.BlixtPortRanges

	refs     []RingRef          // by frontend index
	backends []bpf.BlixtBackend // by id, up to the last that was ever in use
	// What a killed writer left: keys without an index of their own, and
	// backends of no frontend. Nothing refers to them. A second entry of one
	// endpoint (a twin) is nothing that a plan leaves, but a ring might refer
	// to it.
	strayFrontends  []lb.Key
	strayAffinities []AffinityKey
	orphans, twins  []uint32

	indexes, ids pool
	slab         slab
	refIDs       refIDs
	policies     heldPolicies
	policyIDs    pool
	// backendIDs and rings are what the frontends take.
	backendIDs int
	rings      rings
	// out are the new frontends that the last plan has left out.
	out map[lb.Key]bool
	// resize are the frontends whose ring should have another size.
	resize map[lb.Key]bool
	// fresh contents were read, and nothing was planned for them yet.
	fresh bool
}

// Served is a frontend in the tables. Once Contents have it, it is never modified, but
// replaced.
type Served struct {
	Entry bpf.BlixtFrontend
	// Slots is the ring, in backend ids.
	Slots []uint32
	// IDs are the ids of all backends, including those without slots.
	IDs map[BackendKey]uint32
	// Kept are the ids of the backends that clients get again that had them before, by
	// address.
	Kept map[netip.Addr]uint32
	// Source is what the ring was made from; nil if it was read from the
	// tables.
	Source *lb.Frontend
}

// BackendKey identifies a backend of a frontend: it keeps its id and its flows
// as long as none of this changes.
type BackendKey struct {
	Addr      netip.AddrPort
	Local     bool
	Protected bool
}

func keyOf(b lb.Backend) BackendKey { return BackendKey{b.Addr, b.Local, b.Protected} }

// Read returns the contents of tables in any state: what is usable is adopted
// and continues to serve; everything else is free, or a stray that the next
// plan removes.
func Read(t Tables, now time.Time) (*Contents, error) {
	c, err := ReadWithoutSources(t, now)
	if err != nil || !c.policies.enforces {
		return c, err
	}
	if err := c.policies.readSets(t, now); err != nil {
		return nil, err
	}
	return c, nil
}

// ReadWithoutSources is Read without the sets of sources. No plan can be made of that.
func ReadWithoutSources(t Tables, now time.Time) (*Contents, error) {
	c := &Contents{Sizes: t.Sizes(), Frontends: map[lb.Key]*Served{}, rings: rings{}, fresh: true}
	var err error
	if c.Addresses, err = t.Addresses(); err != nil {
		return nil, fmt.Errorf("read addresses: %w", err)
	}
	if c.refs, err = t.Published(); err != nil {
		return nil, fmt.Errorf("read published: %w", err)
	}
	if c.backends, err = t.Backends(); err != nil {
		return nil, fmt.Errorf("read backends: %w", err)
	}
	entries, err := t.Frontends()
	if err != nil {
		return nil, fmt.Errorf("read frontends: %w", err)
	}
	var zeros span
	zeros.offset, zeros.n, err = t.ZeroSlots()
	if err != nil {
		return nil, fmt.Errorf("read rings: %w", err)
	}
	if err := c.readFrontends(t, entries, now, zeros); err != nil {
		return nil, err
	}
	c.readBackends(now)
	kept, err := t.AffinityBackends()
	if err != nil {
		return nil, fmt.Errorf("read affinity_backends: %w", err)
	}
	c.readAffinities(kept)
	if c.Ranges, err = t.PortRanges(); err != nil {
		return nil, fmt.Errorf("read port_ranges: %w", err)
	}
	if c.Ranges == nil {
		c.Ranges = map[lb.Key]bpf.BlixtPortRanges{}
	}
	keys, err := t.RefKeys()
	if err != nil {
		return nil, fmt.Errorf("read ref_stats: %w", err)
	}
	c.readRefs(keys, now)
	if err := c.readPolicies(t, now); err != nil {
		return nil, err
	}
	for _, s := range c.Frontends {
		c.count(s, 1)
	}
	return c, nil
}

// Same reports whether the tables hold these contents: then nobody else has
// written them. It costs much less than Read.
func (c *Contents) Same(t Tables) (bool, error) {
	addresses, err := t.Addresses()
	if err != nil {
		return false, fmt.Errorf("read addresses: %w", err)
	}
	refs, err := t.Published()
	if err != nil {
		return false, fmt.Errorf("read published: %w", err)
	}
	backends, err := t.Backends()
	if err != nil {
		return false, fmt.Errorf("read backends: %w", err)
	}
	entries, err := t.Frontends()
	if err != nil {
		return false, fmt.Errorf("read frontends: %w", err)
	}
	kept, err := t.AffinityBackends()
	if err != nil {
		return false, fmt.Errorf("read affinity_backends: %w", err)
	}
	ranges, err := t.PortRanges()
	if err != nil {
		return false, fmt.Errorf("read port_ranges: %w", err)
	}
	if !maps.Equal(addresses, c.Addresses) || !maps.Equal(ranges, c.Ranges) || !c.sameAffinities(kept) || !slices.Equal(refs, c.refs) || !slices.Equal(backends, c.backends) ||
		len(entries) != len(c.Frontends)+len(c.strayFrontends) {
		return false, nil
	}
	for key, s := range c.Frontends {
		if e, ok := entries[key]; !ok || e != s.Entry {
			return false, nil
		}
		if same, err := t.HasRing(refs[s.Entry.Index].Offset(), s.Slots); err != nil || !same {
			return false, err
		}
	}
	return c.policies.same(t)
}

// readFrontends adopts the frontends that share neither index nor ring with
// another one.
func (c *Contents) readFrontends(t Tables, entries map[lb.Key]bpf.BlixtFrontend, now time.Time, zeros span) error {
	byIndex := map[uint32]*Served{}
	var used []span
	for _, key := range slices.SortedFunc(maps.Keys(entries), lb.Key.Compare) {
		e := entries[key]
		if int(e.Index) >= c.Sizes.Frontends || byIndex[e.Index] != nil || c.overlaps(used, c.refs[e.Index]) {
			c.strayFrontends = append(c.strayFrontends, key)
			continue
		}
		s := &Served{Entry: e, IDs: map[BackendKey]uint32{}}
		if w := c.refs[e.Index]; w.Size() > 0 {
			var err error
			if s.Slots, err = t.Ring(w.Offset(), w.Size()); err != nil {
				return fmt.Errorf("read ring of %s: %w", key, err)
			}
			used = append(used, span{w.Offset(), w.Size()})
		}
		c.Frontends[key], byIndex[e.Index] = s, s
	}
	c.indexes = c.readPool(0, c.Sizes.Frontends, now, func(n uint32) (taken, virgin bool) {
		return byIndex[n] != nil, c.refs[n] == 0
	})
	size := uint32(c.Sizes.RingSlots)
	c.slab = newSlab(size, used, neverUsed(size, zeros), now)
	for id, b := range c.backends {
		if !inUse(b) {
			continue
		}
		s := byIndex[b.Frontend]
		if s == nil || id == 0 {
			c.orphans = append(c.orphans, uint32(id))
			continue
		}
		if _, twice := s.IDs[fromBackend(b)]; twice {
			c.twins = append(c.twins, uint32(id))
			continue
		}
		s.IDs[fromBackend(b)] = uint32(id)
	}
	return nil
}

func (c *Contents) overlaps(used []span, w RingRef) bool {
	if w.Size() == 0 {
		return false
	}
	if w.Offset()%2 != 0 || int(w.Offset()+w.Size()) > c.Sizes.RingSlots {
		return true
	}
	return slices.ContainsFunc(used, func(u span) bool {
		return w.Offset() < u.offset+even(u.n) && u.offset < w.Offset()+even(w.Size())
	})
}

// readBackends makes the pool of backend ids, without id 0, which is
// BACKEND_REJECT.
func (c *Contents) readBackends(now time.Time) {
	c.ids = c.readPool(1, c.Sizes.Backends, now, func(n uint32) (taken, virgin bool) {
		return inUse(c.Backend(n)), c.Backend(n).Generation == 0
	})
}

// readPool makes a pool of the free numbers. A number that was used before
// rests from now on, as it is not known since when it has been free.
func (c *Contents) readPool(start, end int, now time.Time, look func(n uint32) (taken, virgin bool)) pool {
	p := pool{next: uint32(start), end: uint32(end)}
	for n := p.next; n < p.end; n++ {
		if taken, virgin := look(n); taken || !virgin {
			p.next = n + 1
		}
	}
	for n := uint32(start); n < p.next; n++ {
		taken, virgin := look(n)
		switch {
		case taken:
		case virgin:
			p.resting = append([]restingNumber{{n, now}}, p.resting...)
		default:
			p.release(n, now)
		}
	}
	return p
}

// RingRef returns the published ring of a frontend index.
func (c *Contents) RingRef(index uint32) RingRef { return c.refs[index] }

// Backend returns an entry of `backends` by id.
func (c *Contents) Backend(id uint32) (b bpf.BlixtBackend) {
	if int(id) < len(c.backends) {
		b = c.backends[id]
	}
	return b
}

// count adds what a frontend takes, n times.
func (c *Contents) count(s *Served, n int) {
	if s != nil {
		c.backendIDs += n * len(s.IDs)
		c.rings.add(uint32(len(s.Slots)), n)
	}
}

// Use returns how much of each table is taken, without backends, slots and
// ids that rest.
func (c *Contents) Use() Sizes {
	return Sizes{Addresses: len(c.Addresses), Frontends: len(c.Frontends), Backends: c.backendIDs, RingSlots: c.rings.slots(), Refs: c.refIDs.inUse,
		Policies: len(c.policies.byKey), Sources: c.policies.sets.entries}
}
