// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
	"github.com/kubernetes-sigs/blixt/operator/ring"
)

// Plan is the writes that lead to a state, in this order:
//
//  0. backends that a killed writer left: nothing refers to them any more
//  1. new backends: nothing refers to them yet
//  2. rings, beside those that serve: nothing refers to them yet
//  3. published rings: a known frontend switches here, by one store;
//     the index of a new one is not in use yet
//  4. flags of backends: the ring has other backends for the UDP flows of those
//     that do not serve any more
//  5. frontends: a new one is complete by now
//  6. addresses: only now does a packet to a new one look for frontends, and it
//     finds all of them: an exclusive address rejects what it does not find
//
// and then, in reverse, what is no longer wanted:
//
//  7. addresses, 8. frontends, 9. rings of frontends that are gone
//  10. backends: no ring refers to them any more; their flows are reset
//
// A plan may be the first of several: see Again.
type Plan struct {
	Ops []Op
	// Again is when to plan for the same state again, as ids or slots that it
	// needs still rest; zero: the plan is complete.
	Again time.Time

	served       map[lb.Key]*Served // the frontends when all is done
	indexes, ids pool
	slab         slab
	again        bool
}

// Empty reports whether there is nothing to write.
func (p *Plan) Empty() bool { return len(p.Ops) == 0 && !p.again }

// Complete reports whether the tables hold the state once the plan is carried
// out.
func (p *Plan) Complete() bool { return !p.again }

// planner collects the writes of a plan, by step.
type planner struct {
	have  *Contents
	now   time.Time
	plan  *Plan
	steps [stepFree + 1][]Op
	full  error // why there is no room now, unless this very plan makes some
}

const (
	stepOrphans = iota
	stepBackends
	stepRings
	stepPublish
	stepFlags
	stepFrontends
	stepAddresses
	stepGoneAddresses
	stepGoneFrontends
	stepRetire
	stepFree
)

// NewPlan returns the writes that lead from have to want, which must be
// normalized. It modifies neither. The contents after the plan refer to want,
// which must not be modified any more. It returns a TableFullError if want does
// not fit.
func NewPlan(have *Contents, want lb.State, now time.Time) (*Plan, error) {
	if err := have.check(want); err != nil {
		return nil, err
	}
	p := &planner{have: have, now: now, plan: &Plan{
		served: map[lb.Key]*Served{}, indexes: have.indexes, ids: have.ids, slab: have.slab.clone(),
	}}
	wanted := make(map[lb.Key]bool, len(want.Frontends))
	waiting := map[netip.Addr]bool{} // addresses of new frontends that must wait
	for i := range want.Frontends {
		f := &want.Frontends[i]
		wanted[f.Key()] = true
		if !p.serve(f) {
			waiting[f.Addr] = true
		}
	}
	p.removeFrontends(wanted)
	p.addresses(want.Addresses, waiting)
	for _, id := range have.orphans {
		p.free(stepOrphans, id)
	}
	for _, id := range have.twins {
		p.free(stepFree, id)
	}
	if p.full != nil {
		if !p.releases() {
			return nil, p.full
		}
		p.wait(now.Add(reuseGrace))
	}
	p.plan.Ops = slices.Concat(p.steps[:]...)
	return p.plan, nil
}

// serve plans one frontend. It returns false if something that the frontend
// needs is not free now; the frontend then stays as it was.
func (p *planner) serve(f *lb.Frontend) bool {
	key, old := f.Key(), p.have.Frontends[f.Key()]
	if old != nil && old.Source != nil && sameFrontend(old.Source, f) {
		return true
	}
	if old == nil && !p.available("frontends", &p.plan.indexes, p.have.Sizes.Frontends, 1) {
		return false
	}
	missing, newMembers := newBackends(f, old)
	if !p.available("backends", &p.plan.ids, p.have.Sizes.Backends, missing) {
		return false
	}
	members := ring.Members(*f)
	slots := ring.Slots(key, members, len(f.Backends))
	size := uint32(len(slots))
	var offset uint32
	moved := old == nil || newMembers || !sameRing(old, members, f.Backends, slots)
	if moved && size > 0 {
		var ok bool
		if offset, ok = p.takeRing(size); !ok {
			return false
		}
	}
	// From here on, nothing can be missing.
	next := &Served{IDs: map[BackendKey]uint32{}, Source: f}
	if old != nil {
		next.Entry, next.Slots = old.Entry, old.Slots
	} else {
		next.Entry.Index = p.plan.indexes.take(p.now)
	}
	next.Entry.IdleTicks = Ticks(idleTimeout(f))
	p.backends(f, old, next)
	if moved {
		next.Slots = p.ring(old, next, members, slots, offset)
	}
	if old == nil || old.Entry != next.Entry {
		used := old == nil && p.have.refs[next.Entry.Index] != 0
		p.add(stepFrontends, putFrontend{key, next.Entry, used})
	}
	p.plan.served[key] = next
	return true
}

// newBackends returns how many backends have no id yet, and whether one of them
// is a member of the ring.
func newBackends(f *lb.Frontend, old *Served) (n int, members bool) {
	for _, b := range f.Backends {
		if old != nil {
			if _, ok := old.IDs[BackendKey{b.Addr, b.Local}]; ok {
				continue
			}
		}
		n++
		members = members || b.Weight > 0
	}
	return n, members
}

func (p *planner) add(step int, op Op) { p.steps[step] = append(p.steps[step], op) }

// available reports whether n numbers can be taken now. If not, it records why.
func (p *planner) available(table string, from *pool, size, n int) bool {
	got, wait := from.available(n, p.now)
	if got == n {
		return true
	}
	if wait.IsZero() {
		p.full = &lb.TableFullError{Table: table, Size: size, Needed: n}
	} else {
		p.wait(wait)
	}
	return false
}

func (p *planner) takeRing(size uint32) (offset uint32, ok bool) {
	offset, ok, wait := p.plan.slab.take(size, p.now)
	switch {
	case ok:
	case wait.IsZero():
		p.full = &lb.TableFullError{Table: "rings", Size: p.have.Sizes.RingSlots, Needed: int(size), Largest: int(p.plan.slab.largest())}
	default:
		p.wait(wait)
	}
	return offset, ok
}

// wait records that the plan is not complete, and when to continue.
func (p *planner) wait(until time.Time) {
	if !p.plan.again || until.Before(p.plan.Again) {
		p.plan.Again = until
	}
	p.plan.again = true
}

// releases reports whether this plan frees something that can be used after a
// rest.
func (p *planner) releases() bool {
	return p.plan.again || len(p.steps[stepOrphans])+len(p.steps[stepRetire])+len(p.steps[stepFree]) > 0 ||
		slices.ContainsFunc(p.steps[stepPublish], func(op Op) bool { return op.(publish).freed.n > 0 })
}

// backends plans the entries of a frontend's backends. Backends that stay keep
// their id. Those that are gone lose it, and their flows are reset.
func (p *planner) backends(f *lb.Frontend, old, next *Served) {
	for _, b := range f.Backends {
		e := BackendKey{b.Addr, b.Local}
		if old != nil {
			if id, ok := old.IDs[e]; ok {
				next.IDs[e] = id
				p.flags(id, b)
				continue
			}
		}
		id := p.plan.ids.take(p.now)
		next.IDs[e] = id
		generation := p.have.backends[id].Generation
		p.add(stepBackends, addBackend{id, e, toBackend(next.Entry.Index, b, generation+1), generation > 0})
	}
	if old == nil {
		return
	}
	for _, id := range sortedIDs(old.IDs) {
		if _, stays := next.IDs[fromBackend(p.have.backends[id])]; !stays {
			p.free(stepFree, id)
		}
	}
}

// flags plans the flags of a backend that stays.
func (p *planner) flags(id uint32, b lb.Backend) {
	entry := p.have.backends[id]
	if flags := backendFlags(b); entry.Flags != flags {
		entry.Flags = flags
		p.add(stepFlags, flagBackend{id, entry})
	}
}

func (p *planner) free(step int, id uint32) {
	b := p.have.backends[id]
	b.Generation++
	p.add(step, freeBackend{id, b})
}

// ring plans a ring beside the one that serves, and the switch to it.
func (p *planner) ring(old, next *Served, members []ring.Member, slots []uint32, offset uint32) []uint32 {
	ids := memberIDs(next, members, next.Source.Backends)
	for i, m := range slots { // nobody else has these slots
		slots[i] = ids[m]
	}
	if len(slots) > 0 {
		p.add(stepRings, writeRing{offset, slots})
	}
	ref := p.have.refs[next.Entry.Index]
	var freed span
	if old != nil { // otherwise a killed writer left it, and it is free already
		freed = span{ref.Offset(), ref.Size()}
	}
	p.add(stepPublish, publish{next.Entry.Index, ref.next(offset, uint32(len(slots))), freed})
	return slots
}

// memberIDs returns the backend ids of the members; BACKEND_REJECT is 0.
func memberIDs(s *Served, members []ring.Member, backends []lb.Backend) []uint32 {
	byAddr := make(map[netip.AddrPort]uint32, len(backends))
	for _, b := range backends {
		byAddr[b.Addr] = s.IDs[BackendKey{b.Addr, b.Local}]
	}
	ids := make([]uint32, len(members))
	for i, m := range members {
		if m.Addr.IsValid() {
			ids[i] = byAddr[m.Addr]
		}
	}
	return ids
}

// sameRing reports whether the frontend's ring, in backend ids, equals slots,
// in members.
func sameRing(old *Served, members []ring.Member, backends []lb.Backend, slots []uint32) bool {
	if len(old.Slots) != len(slots) {
		return false
	}
	ids := memberIDs(old, members, backends)
	for i, m := range slots {
		if old.Slots[i] != ids[m] {
			return false
		}
	}
	return true
}

// removeFrontends plans the removal of frontends that are not wanted.
func (p *planner) removeFrontends(wanted map[lb.Key]bool) {
	for _, key := range slices.SortedFunc(maps.Keys(p.have.Frontends), lb.Key.Compare) {
		if wanted[key] {
			continue
		}
		s := p.have.Frontends[key]
		p.add(stepGoneFrontends, deleteFrontend{key})
		old := p.have.refs[s.Entry.Index]
		p.add(stepRetire, retire{publish{s.Entry.Index, old.next(0, 0), span{old.Offset(), old.Size()}}})
		for _, id := range sortedIDs(s.IDs) {
			p.free(stepFree, id)
		}
	}
	for _, key := range p.have.strayFrontends {
		if !wanted[key] {
			p.add(stepGoneFrontends, deleteFrontend{key})
		}
	}
}

// addresses plans the addresses. A new address waits until all its frontends
// are there and, if the table is full, until other addresses are gone.
func (p *planner) addresses(want []lb.Address, waiting map[netip.Addr]bool) {
	room := p.have.Sizes.Addresses - len(p.have.Addresses)
	wanted := make(map[netip.Addr]bool, len(want))
	for _, a := range want {
		wanted[a.IP] = true
		var value bpf.BlixtAddress
		if a.Exclusive {
			value.Flags = uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE)
		}
		old, ok := p.have.Addresses[a.IP]
		if ok && old == value || !ok && waiting[a.IP] {
			continue
		}
		if !ok && room == 0 {
			p.wait(p.now)
			continue
		}
		if !ok {
			room--
		}
		p.add(stepAddresses, putAddress{a.IP, value})
	}
	for _, ip := range slices.SortedFunc(maps.Keys(p.have.Addresses), netip.Addr.Compare) {
		if !wanted[ip] {
			p.add(stepGoneAddresses, deleteAddress{ip})
		}
	}
}

func sortedIDs(ids map[BackendKey]uint32) []uint32 { return slices.Sorted(maps.Values(ids)) }

func idleTimeout(f *lb.Frontend) time.Duration {
	if f.IdleTimeout == 0 {
		return lb.DefaultIdleTimeout(f.Protocol)
	}
	return f.IdleTimeout
}

// sameFrontend reports whether the tables would be the same for both: they
// contain no names.
func sameFrontend(a, b *lb.Frontend) bool {
	return a.Reject == b.Reject && idleTimeout(a) == idleTimeout(b) &&
		slices.EqualFunc(a.Backends, b.Backends, func(a, b lb.Backend) bool {
			return a.Addr == b.Addr && a.Weight == b.Weight && a.Local == b.Local && a.NotServing == b.NotServing
		})
}
