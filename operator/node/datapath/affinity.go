// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// AffinityKey is a key of `affinity_backends`: the index of a frontend that remembers
// its clients, and the address of a backend that gets new flows.
type AffinityKey struct {
	Frontend uint32
	Addr     netip.Addr
}

// setAffinity sets what an entry of `frontends` says about affinity.
func setAffinity(e *bpf.BlixtFrontend, f *lb.Frontend) {
	e.Affinity, e.AffinityTicks, e.AffinityBits = 0, 0, 0
	e.Flags &^= FrontendAffinity
	a := f.Affinity
	if a == nil {
		return
	}
	e.Flags |= FrontendAffinity
	e.AffinityBits = uint8(a.Bits6)
	if f.Addr.Is4() {
		e.AffinityBits = uint8(96 + a.Bits4)
	}
	if a.Timeout > 0 {
		e.Affinity, e.AffinityTicks = affinityID(a.Group), Ticks(a.Timeout)
	}
}

// affinityID returns the id of a group, never 0. Two groups with the same id would
// forget each other's clients, and no more: a client of one meets no backend of the
// other, as its address is not in `affinity_backends` for that frontend.
func affinityID(group string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(group))
	return max(h.Sum32(), 1)
}

// slotsOf returns a frontend's ring, in members.
func slotsOf(f *lb.Frontend, members []ring.Member, backends int) []uint32 {
	if f.Affinity != nil {
		return ring.SlotsByAddr(members, backends)
	}
	return ring.Slots(f.Key(), members, backends)
}

// remembers reports whether clients of a frontend are remembered.
func remembers(f *lb.Frontend) bool { return f.Affinity != nil && f.Affinity.Timeout > 0 }

// keeps reports whether a client that had the backend before gets it again.
func keeps(b *lb.Backend) bool {
	return b.Weight > 0 && !b.NotServing && !b.Standby && b.Ejected == nil
}

// affinities plans which backends a client that had them before gets again. Those that
// get no new flows any more go before the ring that leaves them out is published.
func (p *planner) affinities(f *lb.Frontend, old, next *Served) {
	if remembers(f) {
		next.Kept = map[netip.Addr]uint32{}
		for i := range f.Backends {
			b := &f.Backends[i]
			if _, has := next.Kept[b.Addr.Addr()]; !has && keeps(b) { // of several ports the first
				next.Kept[b.Addr.Addr()] = next.IDs[keyOf(*b)]
			}
		}
	}
	var had map[netip.Addr]uint32
	if old != nil {
		had = old.Kept
	}
	if maps.Equal(had, next.Kept) {
		next.Kept = had
		return
	}
	for _, addr := range slices.SortedFunc(maps.Keys(had), netip.Addr.Compare) {
		if _, stays := next.Kept[addr]; !stays {
			p.add(stepForget, deleteAffinity{AffinityKey{next.Entry.Index, addr}})
		}
	}
	for _, addr := range slices.SortedFunc(maps.Keys(next.Kept), netip.Addr.Compare) {
		if id := next.Kept[addr]; had[addr] != id {
			p.add(stepKeep, putAffinity{AffinityKey{next.Entry.Index, addr}, id})
		}
	}
}

// forgetAffinities plans that nobody is led to a frontend's backends any more.
func (p *planner) forgetAffinities(s *Served) {
	for _, addr := range slices.SortedFunc(maps.Keys(s.Kept), netip.Addr.Compare) {
		p.add(stepForget, deleteAffinity{AffinityKey{s.Entry.Index, addr}})
	}
}

// readAffinities gives frontends what they keep. What is of no frontend is a stray.
func (c *Contents) readAffinities(all map[AffinityKey]uint32) {
	byIndex := make(map[uint32]*Served, len(c.Frontends))
	for _, s := range c.Frontends {
		byIndex[s.Entry.Index] = s
	}
	for key, id := range all {
		s := byIndex[key.Frontend]
		if s == nil {
			c.strayAffinities = append(c.strayAffinities, key)
			continue
		}
		if s.Kept == nil {
			s.Kept = map[netip.Addr]uint32{}
		}
		s.Kept[key.Addr] = id
	}
}

// sameAffinities reports whether the tables hold what the contents say.
func (c *Contents) sameAffinities(all map[AffinityKey]uint32) bool {
	n := len(c.strayAffinities)
	for _, s := range c.Frontends {
		n += len(s.Kept)
		for addr, id := range s.Kept {
			if got, ok := all[AffinityKey{s.Entry.Index, addr}]; !ok || got != id {
				return false
			}
		}
	}
	return n == len(all)
}

// putAffinity leads clients that had the address before to a backend.
type putAffinity struct {
	key AffinityKey
	id  uint32
}

func (o putAffinity) write(t Tables) error        { return t.PutAffinityBackend(o.key, o.id) }
func (o putAffinity) record(*Contents, time.Time) {} // Apply records Served as a whole
func (o putAffinity) count(w *Written)            { w.Affinities++ }
func (o putAffinity) String() string {
	return fmt.Sprintf("keep backend %d %s for clients of frontend %d", o.id, o.key.Addr, o.key.Frontend)
}

type deleteAffinity struct{ key AffinityKey }

func (o deleteAffinity) write(t Tables) error        { return t.DeleteAffinityBackend(o.key) }
func (o deleteAffinity) record(*Contents, time.Time) {}
func (o deleteAffinity) count(w *Written)            { w.Affinities++ }
func (o deleteAffinity) String() string {
	return fmt.Sprintf("keep %s for no client of frontend %d", o.key.Addr, o.key.Frontend)
}
