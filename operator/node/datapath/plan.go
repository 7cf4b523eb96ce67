// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
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
//  1. ids of backendRefs: no backend has them
//  2. policies: no frontend has a new one; a known one switches here to another set
//     of sources, which an earlier plan has written, by one store
//  3. new backends: nothing refers to them yet; then what clients that are remembered
//     may get: no more those that get no new flows, and those that do
//  4. rings, beside those that serve: nothing refers to them yet
//  5. published rings: a known frontend switches here, by one store;
//     the index of a new one is not in use yet
//  6. backends that change: the ring has other backends for the UDP flows of those
//     that do not serve any more
//  7. frontends that refuse all new flows from now on, as a policy has no room
//  8. the policies of frontends: one store for each
//  9. frontends: a new one is complete by now; then ranges of ports, which lead to them
//  10. addresses: only now does a packet to a new one look for frontends, and it
//     finds all of them: an exclusive address rejects what it does not find
//
// and then, in reverse, what is no longer wanted:
//
//  11. addresses, 12. frontends, 13. rings and policies of frontends that are gone
//  14. backends: no ring refers to them any more; their flows are reset. Policies: no
//     frontend has them. Sets of sources that no policy has had for a while
//
// and at last, as it takes longest and nobody asks for them yet:
//
//  15. sets of sources. If one is complete, the next plan gives it to its policies.
//
// A plan may be the first of several: see Again.
type Plan struct {
	Ops []Op
	// Again is when to plan for the same state again, as ids or slots that it
	// needs still rest; zero: the plan is complete.
	Again time.Time
	// Later is when to plan for the same state again although the plan is complete: to
	// delete what rests, or to try what the kernel had no room for; zero: never.
	Later time.Time
	// LeftOut says what has no room; nil: everything has. It includes what has to
	// wait until Again.
	LeftOut *lb.TableFull
	// Unknown are policies whose sources are not in the state. Those that were in force stay; where
	// none were, all new flows are refused.
	Unknown []string
	// Hash is that of the state that the tables hold when all is done: the state
	// that was asked for, but for what is left out.
	Hash uint64
	// Planned is how many frontends were looked at.
	Planned int

	target *Target
	// What is stale once all is done, by what was planned; true: it is still.
	frontends map[lb.Key]bool
	addresses map[netip.Addr]bool
	out       map[lb.Key]bool // new frontends that are left out
	resize    map[lb.Key]bool // frontends whose ring should have another size

	served       map[lb.Key]*Served // the frontends when all is done
	policies     map[uint64]bool    // by key; true: it is still stale
	indexes, ids pool
	policyIDs    pool
	slab         slab
	again        bool
}

// Empty reports whether there is nothing to write.
func (p *Plan) Empty() bool { return len(p.Ops) == 0 && !p.again }

// Complete reports whether the tables hold the state once the plan is carried
// out, apart from what is left out.
func (p *Plan) Complete() bool { return !p.again }

// planner collects the writes of a plan, by step.
type planner struct {
	target *Target
	have   *Contents
	now    time.Time
	plan   *Plan
	steps  [stepSets + 1][]Op

	limit     int    // of the backends of one frontend
	ringLimit uint32 // of the size of one ring
	noRing    bool   // a frontend has found no room for its ring
	rings     rings
	refs      refPlan
	policies  policyPlan
	left      leftOut
	noRoom    map[netip.Addr]bool // new addresses that do not fit
	waiting   map[netip.Addr]bool // addresses of new frontends that must wait
	rests     bool                // what the frontend that is planned needs
}

const (
	stepOrphans = iota
	stepRefs
	stepPolicies
	stepBackends
	stepForget
	stepKeep
	stepRings
	stepPublish
	stepChanges
	stepRefusals
	stepWords
	stepFrontends
	stepRanges
	stepAddresses
	stepGoneAddresses
	stepGoneRanges
	stepGoneFrontends
	stepRetire
	stepFree
	stepSets
)

// NewPlan returns the writes that lead from have to want, which must be
// normalized. It modifies neither. The contents after the plan refer to want,
// which must not be modified any more.
func NewPlan(have *Contents, want lb.State, now time.Time) (*Plan, error) {
	t := NewTarget()
	if err := t.Replace(want); err != nil {
		return nil, err
	}
	for key := range have.Frontends {
		t.staleFrontends[key] = true
	}
	for ip := range have.Addresses {
		t.staleAddresses[ip] = true
	}
	for _, ip := range have.rangedAddresses() {
		t.staleAddresses[ip] = true
	}
	for key := range have.policies.byKey {
		t.policies.stale[key] = true
	}
	return t.Plan(have, now), nil
}

// Plan returns the writes that lead from have to the target, for what may differ:
// what has changed since the last plan was carried out, and what was left out
// then; everything, if have was read since. It modifies neither.
func (t *Target) Plan(have *Contents, now time.Time) *Plan {
	p := &planner{
		target: t, have: have, now: now,
		plan: &Plan{
			target: t, frontends: map[lb.Key]bool{}, addresses: map[netip.Addr]bool{}, out: map[lb.Key]bool{}, resize: map[lb.Key]bool{},
			served: map[lb.Key]*Served{}, indexes: have.indexes, ids: have.ids, policyIDs: have.policyIDs, slab: have.slab.clone(),
		},
		limit: t.limit(have.Sizes.tableSize("backends")), ringLimit: t.rings.limit(have.Sizes.RingSlots), rings: maps.Clone(have.rings),
		refs: refPlan{ids: map[lb.BackendRef]uint32{}, taken: map[uint32]uint64{}, next: 1},
		left: leftOut{held: t.sum}, noRoom: map[netip.Addr]bool{}, waiting: map[netip.Addr]bool{},
	}
	frontends, addresses := t.stale(have)
	p.plan.Planned = len(frontends)
	p.planPolicies()
	p.newAddresses(addresses)
	p.removeFrontends(frontends)
	// Those that are served come first: a new one must not take what they need.
	for _, served := range []bool{true, false} {
		for _, key := range frontends {
			f, ok := t.frontends[key]
			if old := have.Frontends[key]; ok && (old != nil) == served {
				p.serve(key, f, old)
			}
		}
	}
	if t.staleFlags {
		p.hearing()
	}
	if p.noRing {
		p.shrink()
	}
	p.addresses(addresses)
	for _, key := range have.strayAffinities {
		p.add(stepOrphans, deleteAffinity{key})
	}
	for _, id := range have.orphans {
		p.free(stepOrphans, id)
	}
	for _, id := range have.twins {
		p.free(stepFree, id)
	}
	p.freePolicies()
	p.plan.policies = p.policies.stale
	if p.left.full != nil {
		full := p.left.full
		table := cmp.Or(full.Table, full.PolicyTable)
		full.Size, full.Needed = have.Sizes.tableSize(table), t.needed(table)
		p.plan.LeftOut = full
		if p.releases() {
			p.wait(now.Add(reuseGrace))
		}
	}
	p.plan.Hash = p.left.held.Short()
	p.plan.Ops = slices.Concat(p.steps[:]...)
	return p.plan
}

// stale returns the frontends and addresses to plan, in order.
func (t *Target) stale(have *Contents) ([]lb.Key, []netip.Addr) {
	frontends, addresses := t.staleFrontends, t.staleAddresses
	if have.fresh {
		frontends, addresses = map[lb.Key]bool{}, map[netip.Addr]bool{}
		for key := range t.frontends {
			frontends[key] = true
		}
		for key := range have.Frontends {
			frontends[key] = true
		}
		for ip := range t.addresses {
			addresses[ip] = true
		}
		for ip := range have.Addresses {
			addresses[ip] = true
		}
		for _, ip := range have.rangedAddresses() {
			addresses[ip] = true
		}
	}
	addresses = maps.Clone(addresses)
	for key := range frontends { // perhaps it was left out until now, and its range with it
		if _, had := have.Ranges[rangeKey(key)]; had || t.ranged[rangeKey(key)] != nil {
			addresses[key.Addr] = true
		}
	}
	return slices.SortedFunc(maps.Keys(frontends), lb.Key.Compare), slices.SortedFunc(maps.Keys(addresses), netip.Addr.Compare)
}

// serve plans one frontend, whose form in the tables is old; nil: it is new.
func (p *planner) serve(key lb.Key, f wanted, old *Served) {
	p.rests, p.refs.lacks = false, false
	enforced := p.enforce(f.Frontend, old)
	if enforced.waits && old == nil {
		p.rests = true
		p.plan.frontends[key] = true
		p.leaveOut("sources", key, f, nil)
		return
	}
	if enforced.noRoom {
		p.left.refuses(f)
	}
	next, table, ok := p.reduce(f, old)
	if ok {
		if fewer := p.withoutRange(key, next); fewer != next {
			next, table = fewer, cmp.Or(table, "port_ranges")
		}
	}
	var r newRing
	if ok {
		if r, ok = p.findRing(key, next, old, enforced); !ok || r.small {
			table = "rings"
			p.noRing = p.noRing || !p.rests
			p.plan.resize[key] = old != nil
		}
	}
	p.plan.frontends[key] = table != "" || enforced.stale
	if !ok {
		p.leaveOut(table, key, f, old)
		return
	}
	if table != "" {
		p.left.record(table, f, next, true)
	}
	if r.same && p.sameEntry(next, old, enforced) {
		p.sameRing(key, next, old)
		return
	}
	// From here on, nothing can be missing but ids of backendRefs.
	to := &Served{IDs: make(map[BackendKey]uint32, len(next.Backends)), Source: next}
	oldSize := uint32(0)
	if old != nil {
		to.Entry, to.Slots, oldSize = old.Entry, old.Slots, uint32(len(old.Slots))
	} else {
		to.Entry.Index = p.plan.indexes.take(p.now)
	}
	p.setWord(to.Entry.Index, old, enforced.word)
	to.Entry = enforced.entry(next, to.Entry)
	p.backends(next, old, to)
	p.affinities(next, old, to)
	p.plan.frontends[key] = p.plan.frontends[key] || p.refs.lacks
	if r.moved {
		to.Slots = p.ring(old, to, r)
	}
	p.rings.add(oldSize, -1)
	p.rings.add(uint32(len(to.Slots)), 1)
	if old == nil || old.Entry != to.Entry {
		used := old == nil && p.have.refs[to.Entry.Index] != 0
		step := stepFrontends
		if old != nil && to.Entry.Flags&^old.Entry.Flags&FrontendRefuses != 0 {
			step = stepRefusals
		}
		p.add(step, putFrontend{key, to.Entry, used})
	}
	p.plan.served[key] = to
}

// entry returns the entry of a frontend, that it has at its index.
func (e enforced) entry(f *lb.Frontend, have bpf.BlixtFrontend) bpf.BlixtFrontend {
	have.IdleTicks, have.Flags, have.Challenge = Ticks(idleTimeout(f)), frontendFlags(f), challengeOf(f)
	setAffinity(&have, f)
	setPorts(&have, f)
	if e.refuses {
		have.Flags |= FrontendRefuses
	}
	return have
}

// sameEntry reports whether a frontend in the tables keeps its entry and its policies.
func (p *planner) sameEntry(f *lb.Frontend, old *Served, e enforced) bool {
	return e.entry(f, old.Entry) == old.Entry && (!p.have.policies.enforces || p.have.policies.words[old.Entry.Index] == e.word)
}

// sameRing plans a frontend that differs in names alone.
func (p *planner) sameRing(key lb.Key, f *lb.Frontend, old *Served) {
	to := *old
	to.Source, to.IDs = f, maps.Clone(old.IDs)
	p.backends(f, old, &to)
	p.plan.frontends[key] = p.plan.frontends[key] || p.refs.lacks
	p.plan.served[key] = &to
}

// leaveOut records that a frontend has no room, or not yet, and stays as it is. At
// first, its address waits for it: an exclusive address rejects what it does not
// find.
func (p *planner) leaveOut(table string, key lb.Key, f wanted, old *Served) {
	if old != nil {
		p.left.record(table, f, old.Source, true)
		return
	}
	p.left.record(table, f, nil, false)
	p.plan.out[key] = true
	if !p.have.out[key] || p.rests {
		p.waiting[f.Addr] = true
	}
}

// reduce returns the frontend with the backends that have room. If that is not
// all of them, table is the one that is full. It returns false if a new frontend
// has no room.
func (p *planner) reduce(f wanted, old *Served) (next *lb.Frontend, table string, ok bool) {
	if old == nil {
		switch {
		case p.noRoom[f.Addr]:
			return nil, "addresses", false
		case !p.available(&p.plan.indexes, 1):
			return nil, "frontends", false
		case len(f.Backends) > p.limit || !p.available(&p.plan.ids, len(f.Backends)):
			return nil, "backends", false
		}
		return f.Frontend, "", true
	}
	missing := newBackends(f.Frontend, old)
	room := min(missing, max(p.limit-(len(f.Backends)-missing), 0))
	if room > 0 && !p.available(&p.plan.ids, room) {
		room, _ = p.plan.ids.available(room, p.now)
	}
	if room == missing {
		return f.Frontend, "", true
	}
	fewer := *f.Frontend
	fewer.Backends = slices.DeleteFunc(slices.Clone(f.Backends), func(b lb.Backend) bool {
		if _, ok := old.IDs[keyOf(b)]; ok {
			return false
		}
		room--
		return room < 0
	})
	return &fewer, "backends", true
}

// newRing is the ring that a frontend is to have.
type newRing struct {
	members []ring.Member
	slots   []uint32 // by member
	offset  uint32
	moved   bool // it is not the one that is published
	small   bool // it is smaller than it might be
	same    bool // all of the frontend is as it was
}

// findRing returns the largest ring that has room, and takes its place. It
// returns false if there is none, or not yet.
func (p *planner) findRing(key lb.Key, f *lb.Frontend, old *Served, e enforced) (r newRing, ok bool) {
	size := uint32(0)
	if old != nil {
		size = uint32(len(old.Slots))
		if !p.have.resize[key] && p.sameSource(old, f) {
			return newRing{same: true}, true
		}
	}
	if !p.rejectsAll(e) {
		r.members = ring.Members(*f)
	}
	if len(r.members) == 0 {
		r.moved, r.same = size > 0 || old == nil, size == 0 && p.sameSource(old, f)
		return r, true
	}
	most := ring.Listed(f)
	for ring.Size(most) > p.ringLimit {
		most = fewerBackends(most)
	}
	for n := most; n > 0; n = fewerBackends(n) {
		r.small = n < most || int(ring.Size(n)) < min(len(r.members), ring.MaxSize)
		if !p.rings.hasRoom(p.have.Sizes.RingSlots, size, ring.Size(n)) {
			continue
		}
		r.slots = slotsOf(f, r.members, n)
		if old != nil && sameRing(old, r.members, f.Backends, r.slots) {
			r.same = p.sameSource(old, f)
			return r, true
		}
		r.moved = true
		var wait time.Time
		if r.offset, ok, wait = p.plan.slab.take(uint32(len(r.slots)), p.now); ok {
			return r, true
		}
		if !wait.IsZero() {
			p.rests = true
			p.wait(wait)
			return r, false
		}
	}
	if old == nil || size == 0 || p.sameSource(old, f) {
		return r, false
	}
	// Not even a small ring has room beside the one that may have backends that
	// are gone: reject, until its slots have rested.
	p.rests = true
	p.wait(p.now.Add(reuseGrace))
	return newRing{moved: true, small: true}, true
}

// newBackends returns how many backends have no id yet.
func newBackends(f *lb.Frontend, old *Served) (n int) {
	for _, b := range f.Backends {
		if _, ok := old.IDs[keyOf(b)]; !ok {
			n++
		}
	}
	return n
}

func (p *planner) add(step int, op Op) { p.steps[step] = append(p.steps[step], op) }

// sameSource reports whether a frontend in the tables was made from f.
func (p *planner) sameSource(old *Served, f *lb.Frontend) bool {
	return old != nil && old.Source != nil && sameFrontend(old.Source, f)
}

// available reports whether n numbers can be taken now. If they can be later, the
// plan is not complete.
func (p *planner) available(from *pool, n int) bool {
	got, wait := from.available(n, p.now)
	if got < n && !wait.IsZero() {
		p.rests = true
		p.wait(wait)
	}
	return got == n
}

// later records when to plan again although the plan is complete.
func (p *planner) later(when time.Time) {
	if p.plan.Later.IsZero() || when.Before(p.plan.Later) {
		p.plan.Later = when
	}
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
		e := keyOf(b)
		if old != nil {
			if id, ok := old.IDs[e]; ok {
				next.IDs[e] = id
				p.judge(stepChanges, id, f, old.Source, p.have.Backend(id).Flags, false)
				p.change(id, f, b)
				continue
			}
		}
		id := p.plan.ids.take(p.now)
		next.IDs[e] = id
		generation := p.have.Backend(id).Generation
		p.judge(stepBackends, id, f, nil, 0, true)
		p.add(stepBackends, addBackend{id, e, toBackend(next.Entry.Index, b, p.target.flagsOf(f, b, 0), p.refOf(f, &b), generation+1), generation > 0})
	}
	if old == nil {
		return
	}
	for _, id := range sortedIDs(old.IDs) {
		if _, stays := next.IDs[fromBackend(p.have.Backend(id))]; !stays {
			p.free(stepFree, id)
		}
	}
}

// change plans the flags and the backendRef of a backend that stays.
func (p *planner) change(id uint32, f *lb.Frontend, b lb.Backend) {
	entry := p.have.Backend(id)
	next := entry
	next.Flags, next.Ref = p.target.flagsOf(f, b, entry.Flags), p.refOf(f, &b)
	if next != entry {
		p.add(stepChanges, changeBackend{id, next})
	}
}

func (p *planner) free(step int, id uint32) {
	b := p.have.Backend(id)
	b.Generation++
	p.add(step, freeBackend{id, b})
}

// ring plans a ring beside the one that serves, and the switch to it.
func (p *planner) ring(old, next *Served, r newRing) []uint32 {
	ids, slots := memberIDs(next, r.members, next.Source.Backends), r.slots
	for i, m := range slots { // nobody else has these slots
		slots[i] = ids[m]
	}
	if len(slots) > 0 {
		p.add(stepRings, writeRing{r.offset, slots})
	}
	ref := p.have.refs[next.Entry.Index]
	var freed span
	if old != nil { // otherwise a killed writer left it, and it is free already
		freed = span{ref.Offset(), ref.Size()}
	}
	p.add(stepPublish, publish{next.Entry.Index, ref.next(r.offset, uint32(len(slots))), freed})
	return slots
}

// memberIDs returns the backend ids of the members; BACKEND_REJECT is 0. Members and
// backends are in the order of their addresses.
func memberIDs(s *Served, members []ring.Member, backends []lb.Backend) []uint32 {
	ids := make([]uint32, len(members))
	next := 0
	for i, m := range members {
		if !m.Addr.IsValid() {
			continue
		}
		for backends[next].Addr != m.Addr {
			next++
		}
		ids[i] = s.IDs[keyOf(backends[next])]
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
		if old.Slots[i] != ids[m] || ids[m] == BackendReject && members[m].Addr.IsValid() {
			return false
		}
	}
	return true
}

// removeFrontends plans the removal of those frontends that are not wanted.
func (p *planner) removeFrontends(keys []lb.Key) {
	for _, key := range keys {
		if _, ok := p.target.frontends[key]; ok {
			continue
		}
		p.plan.frontends[key] = false
		s := p.have.Frontends[key]
		if s == nil {
			continue
		}
		p.add(stepGoneFrontends, deleteFrontend{key})
		p.forgetAffinities(s)
		old := p.have.refs[s.Entry.Index]
		p.add(stepRetire, retire{publish{s.Entry.Index, old.next(0, 0), span{old.Offset(), old.Size()}}})
		p.removeWord(s.Entry.Index)
		p.rings.add(uint32(len(s.Slots)), -1)
		for _, id := range sortedIDs(s.IDs) {
			p.free(stepFree, id)
		}
	}
	for _, key := range p.have.strayFrontends {
		if _, ok := p.target.frontends[key]; !ok {
			p.add(stepOrphans, deleteFrontend{key}) // a new one may need the room
		}
	}
}

// newAddresses finds the new addresses that have no room. The first by address
// have it first.
func (p *planner) newAddresses(ips []netip.Addr) {
	room, gone := p.have.Sizes.Addresses-len(p.have.Addresses), 0
	for _, ip := range ips {
		if _, ok := p.target.addresses[ip]; !ok && p.has(ip) {
			gone++
		}
	}
	for _, ip := range ips {
		if _, ok := p.target.addresses[ip]; !ok || p.has(ip) {
			continue
		}
		if room--; room < 0 && room >= -gone {
			p.waiting[ip] = true // until other addresses are gone
			p.wait(p.now)
		} else if room < 0 {
			p.noRoom[ip] = true
		}
	}
}

func (p *planner) has(ip netip.Addr) bool {
	_, ok := p.have.Addresses[ip]
	return ok
}

// addresses plans the addresses. A new address waits until all its frontends
// are there, but for those that are left out.
func (p *planner) addresses(ips []netip.Addr) {
	for _, ip := range ips {
		a, ok := p.target.addresses[ip]
		if ok && !p.has(ip) && (p.waiting[ip] || p.noRoom[ip]) {
			p.plan.addresses[ip] = true
			if p.waiting[ip] && !p.plan.again { // for a frontend that is left out from now on
				p.wait(p.now)
			}
			continue
		}
		p.plan.addresses[ip] = false
		var value bpf.BlixtAddress
		if a.Exclusive {
			value.Flags = uint32(bpf.BlixtAddressFlagADDRESS_EXCLUSIVE)
		}
		if p.addressRanges(ip) {
			value.Flags |= AddressRanges
		}
		old, has := p.have.Addresses[ip]
		switch {
		case ok && (!has || old != value):
			p.add(stepAddresses, putAddress{ip, value})
		case !ok && has:
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

// sameFrontend reports whether the tables would be the same for both, but for the
// ids of backendRefs.
func sameFrontend(a, b *lb.Frontend) bool {
	return a.Reject == b.Reject && idleTimeout(a) == idleTimeout(b) && a.PreserveClient == b.PreserveClient && a.Records == b.Records && a.Settings.Equal(&b.Settings) &&
		slices.EqualFunc(a.Backends, b.Backends, func(a, b lb.Backend) bool {
			return a.Weight == b.Weight && keyOf(a) == keyOf(b) && a.NotServing == b.NotServing && keeps(&a) == keeps(&b) && a.ThroughStack == b.ThroughStack && a.Node == b.Node
		})
}
