// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/bpf"
	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// PolicyTables are the tables of policies. A program of an earlier version has none of
// them: then EnforcesPolicies is false, and no other method may be called.
type PolicyTables interface {
	EnforcesPolicies() bool

	// FrontendPolicies returns which policies each frontend has, by index.
	FrontendPolicies() ([]PolicyWord, error)
	// SetFrontendPolicies stores one word atomically.
	SetFrontendPolicies(index uint32, w PolicyWord) error

	// Policies returns all elements by id.
	Policies() ([]bpf.BlixtPolicy, error)
	// PutPolicy writes an element, of which a program sees each word as it was or as it is
	// to be. No limit is ever tighter than both.
	PutPolicy(id uint32, p bpf.BlixtPolicy) error
	// ResetPolicies sets to zero what the limits of ids have come to, and what was counted.
	ResetPolicies(ids map[uint32]bool) error

	// EachSource calls yield with some entries of `sources` at a time, until all were seen
	// or yield returns false.
	EachSource(yield func([]SourceEntry) bool) error
	// PutSources writes entries. It returns how many it has written; ErrNoRoom, if the kernel
	// has no room for the next one.
	PutSources([]SourceEntry) (int, error)
	// DeleteSources deletes entries, of which some may be missing.
	DeleteSources([]SourceEntry) error
}

// PolicyWord is an element of `frontend_policies`: the ids of up to four policies.
type PolicyWord uint64

const (
	policyIDBits = int(bpf.BlixtPoliciesOfFrontendPOLICY_ID_BITS)
	maxPolicies  = int(bpf.BlixtPoliciesOfFrontendFRONTEND_POLICIES)
)

// newPolicyWord returns the word of some ids, in order.
func newPolicyWord(ids []uint32) (w PolicyWord) {
	for i, id := range ids[:min(len(ids), maxPolicies)] {
		w |= PolicyWord(id) << (i * policyIDBits)
	}
	return w
}

// IDs returns the ids of a word.
func (w PolicyWord) IDs() (ids []uint32) {
	for ; w != 0; w >>= policyIDBits {
		ids = append(ids, uint32(w)&(1<<policyIDBits-1))
	}
	return ids
}

// heldPolicies are the policies that the tables hold, and their sets of sources.
type heldPolicies struct {
	enforces bool
	elements []bpf.BlixtPolicy // by id
	words    []PolicyWord      // by frontend index
	byKey    map[uint64]uint32 // the ids in use
	uses     []int             // by id: the frontends in use that have it
	strays   []uint32          // second ids of somebody
	sets     heldSets
}

// readPolicies reads what the tables of policies hold. The frontends must have been read.
func (c *Contents) readPolicies(t Tables, now time.Time) (err error) {
	p := &c.policies
	*p = heldPolicies{enforces: t.EnforcesPolicies(), byKey: map[uint64]uint32{}, sets: newHeldSets()}
	if !p.enforces {
		return nil
	}
	if p.words, err = t.FrontendPolicies(); err != nil {
		return fmt.Errorf("read frontend_policies: %w", err)
	}
	if p.elements, err = t.Policies(); err != nil {
		return fmt.Errorf("read policies: %w", err)
	}
	p.uses = make([]int, len(p.elements))
	for _, s := range c.Frontends {
		p.use(p.words[s.Entry.Index], 1)
	}
	for id := 1; id < len(p.elements); id++ {
		key := p.elements[id].Key
		if _, twice := p.byKey[key]; twice {
			p.strays = append(p.strays, uint32(id))
		} else if key != 0 {
			p.byKey[key] = uint32(id)
		}
	}
	c.policyIDs = c.readPool(1, len(p.elements), now, func(n uint32) (taken, virgin bool) {
		return p.elements[n].Key != 0, p.elements[n] == bpf.BlixtPolicy{}
	})
	return nil
}

// use adds n to the uses of the ids of a word.
func (p *heldPolicies) use(w PolicyWord, n int) {
	for _, id := range w.IDs() {
		if int(id) < len(p.uses) {
			p.uses[id] += n
		}
	}
}

// same reports whether the tables hold these policies. Entries of `sources` are not looked
// at.
func (p *heldPolicies) same(t Tables) (bool, error) {
	if !p.enforces {
		return true, nil
	}
	words, err := t.FrontendPolicies()
	if err != nil {
		return false, fmt.Errorf("read frontend_policies: %w", err)
	}
	elements, err := t.Policies()
	if err != nil {
		return false, fmt.Errorf("read policies: %w", err)
	}
	return slices.Equal(words, p.words) && slices.Equal(elements, p.elements), nil
}

// policyPlan is what a plan does about policies.
type policyPlan struct {
	stale map[uint64]bool // by key: what was planned; true: it still is
	// ids are those of policies that are new, and without are the ones that have none.
	ids     map[uint64]uint32
	without map[uint64]without
	reset   map[uint32]bool // ids that somebody else had
	uses    map[uint32]int  // added by the plan
	sets    setPlan
}

// without is why a policy has no id.
type without int

const (
	// awaited: its set is being written.
	awaited without = iota + 1
	// unlimited: it has no room, and no sources.
	unlimited
	// refused: its sources have no room, and were never in force.
	refused
	// unknown: its sources come in another update than the frontend.
	unknown
)

// planPolicies plans the elements of `policies`, before the frontends that have them.
func (p *planner) planPolicies() {
	w, have := &p.target.policies, &p.have.policies
	p.policies = policyPlan{
		stale: map[uint64]bool{}, ids: map[uint64]uint32{}, without: map[uint64]without{}, reset: map[uint32]bool{}, uses: map[uint32]int{},
	}
	if !have.enforces {
		return
	}
	p.planSets()
	stale := map[uint64]bool{}
	if p.have.fresh {
		maps.Copy(stale, keysOf(have.byKey))
	} else {
		maps.Copy(stale, w.stale)
	}
	if p.have.fresh || len(w.staleSets) > 0 {
		for key, wanted := range w.byKey {
			if p.have.fresh || wanted.Sources && w.staleSets[wanted.Policy] {
				stale[key] = true
			}
		}
	}
	// Those in force come first: a new one must not take what they need.
	keys := slices.SortedFunc(maps.Keys(stale), func(a, b uint64) int {
		_, x := have.byKey[a]
		_, y := have.byKey[b]
		return cmp.Or(compareBool(y, x), cmp.Compare(w.policyOf(a), w.policyOf(b)), cmp.Compare(a, b))
	})
	for _, key := range keys {
		p.policies.stale[key] = false
		if wanted := w.byKey[key]; wanted != nil {
			p.policy(key, &wanted.Restriction)
		}
	}
	if len(p.policies.reset) > 0 {
		p.steps[stepPolicies] = slices.Insert(p.steps[stepPolicies], 0, Op(resetPolicies{p.policies.reset}))
	}
}

// policyOf names the policy of a key.
func (w *wantedPolicies) policyOf(key uint64) string {
	if p := w.byKey[key]; p != nil {
		return p.Policy
	}
	return ""
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

func keysOf[K comparable, V any](m map[K]V) map[K]bool {
	set := make(map[K]bool, len(m))
	for k := range m {
		set[k] = true
	}
	return set
}

// policy plans one element.
func (p *planner) policy(key uint64, r *lb.Restriction) {
	id, known := p.have.policies.byKey[key]
	var old bpf.BlixtPolicy
	if known {
		old = p.have.policies.elements[id]
	}
	next := limitsOf(r)
	next.Key = key
	set := uint32(0)
	if r.Sources {
		var state setState
		set, state = p.setOf(r.Policy)
		p.policies.stale[key] = state != setReady
		switch {
		case state == setAwaited:
			if !known {
				p.policies.without[key] = awaited
			}
			return // what is in force stays until the set is there
		case state != setReady && setOfPolicy(old) != 0:
			set = setOfPolicy(old)
			next.Sources = old.Sources & onlyAllowed
		case state == setUnknown && !r.DryRun:
			p.policies.without[key] = unknown
			return
		case state == setNoRoom && !r.DryRun:
			p.policies.without[key] = refused
			return
		case state == setReady && p.target.policies.sets[r.Policy].OnlyAllowed:
			next.Sources = onlyAllowed
		}
	}
	next.Sources |= uint64(flagsOfPolicy(r))<<setBits | uint64(set)
	switch {
	case !known && !p.available(&p.plan.policyIDs, 1):
		p.policies.stale[key] = true
		p.policies.without[key] = unlimited
		if n, wait := p.plan.policyIDs.available(1, p.now); n == 0 && !wait.IsZero() {
			p.policies.without[key] = awaited
		} else if r.Sources && !r.DryRun {
			p.policies.without[key] = refused
		}
		p.left.policy(r.Policy, "policies")
	case !known:
		id = p.plan.policyIDs.take(p.now)
		p.policies.ids[key] = id
		if p.have.policies.elements[id] != (bpf.BlixtPolicy{}) {
			p.policies.reset[id] = true
		}
		p.add(stepPolicies, putPolicy{id, next})
	case next != old:
		p.leaveSet(old)
		p.add(stepPolicies, putPolicy{id, next})
	}
}

// leaveSet has the set of a policy that loses it looked at again: it may be nobody's any more.
func (p *planner) leaveSet(e bpf.BlixtPolicy) {
	if setOfPolicy(e) != 0 {
		p.later(p.now.Add(reuseGrace))
	}
}

// limitsOf returns the element of a restriction, without its sources.
func limitsOf(r *lb.Restriction) (e bpf.BlixtPolicy) {
	if l := r.Limits; l != nil {
		e.SourceInterval, e.SourceBurst, e.SourceConcurrent = interval(l.PerSource), l.PerSource.Burst, l.PerSource.Concurrent
		e.TotalInterval, e.TotalBurst, e.TotalConcurrent = interval(l.Total), l.Total.Burst, l.Total.Concurrent
		e.SourceBits4, e.SourceBits6 = uint8(96+l.Bits4), uint8(l.Bits6)
	}
	return e
}

// interval returns the ns in which one flow may begin, rounded up so that there are never
// too many.
func interval(l lb.Limit) uint64 {
	if l.NewPerSecond == 0 {
		return 0
	}
	n := uint64(l.NewPerSecond)
	return (uint64(time.Second) + n - 1) / n
}

func flagsOfPolicy(r *lb.Restriction) (flags bpf.BlixtPolicyFlag) {
	if r.DryRun {
		flags |= bpf.BlixtPolicyFlagPOLICY_DRY_RUN
	}
	if r.ResetSources {
		flags |= bpf.BlixtPolicyFlagPOLICY_RESET_SOURCES
	}
	if r.Limits != nil && r.Limits.Reset {
		flags |= bpf.BlixtPolicyFlagPOLICY_RESET_LIMITS
	}
	return flags
}

// onlyAllowed is POLICY_ONLY_ALLOWED where an element has it.
const onlyAllowed = uint64(bpf.BlixtPolicyFlagPOLICY_ONLY_ALLOWED) << setBits

// setOfPolicy returns the id of the set of an element; 0: there is none.
func setOfPolicy(e bpf.BlixtPolicy) uint32 { return uint32(e.Sources) }

// enforced is how the restrictions of a frontend are enforced.
type enforced struct {
	word    PolicyWord
	refuses bool // all new flows
	// waits is true if a set of sources is being written, stale if not all is in force, noRoom if it
	// refuses for want of room.
	waits, stale, noRoom bool
}

// enforce returns how a frontend's restrictions are enforced, whose form in the tables is
// old; nil: it is new.
func (p *planner) enforce(f *lb.Frontend, old *Served) (e enforced) {
	e.refuses = f.Refused != ""
	var ids []uint32
	for i := range f.Restrictions {
		r := &f.Restrictions[i]
		if !p.have.policies.enforces {
			p.left.policy(r.Policy, "policies")
			e.noRoom, e.stale = e.noRoom || r.Sources && !r.DryRun, true
			continue
		}
		key := policyKey(r)
		why := p.policies.without[key]
		e.waits = e.waits || why == awaited
		e.noRoom = e.noRoom || why == refused
		e.refuses = e.refuses || why == unknown
		e.stale = e.stale || why != 0
		id, isNew := p.policies.ids[key]
		if !isNew {
			id = p.have.policies.byKey[key]
		}
		if why == 0 {
			ids = append(ids, id)
		}
	}
	e.word, e.refuses = newPolicyWord(ids), e.refuses || e.noRoom
	if e.waits && old != nil { // what is in force stays meanwhile
		e.word = p.have.policies.words[old.Entry.Index]
		e.refuses = f.Refused != "" || old.Entry.Flags&FrontendRefuses != 0
	}
	return e
}

// rejectsAll reports whether a frontend that refuses new flows has to do so by an empty
// ring, as the program does not know FRONTEND_REFUSES.
func (p *planner) rejectsAll(e enforced) bool { return e.refuses && !p.have.policies.enforces }

// setWord plans the word of a frontend. The policies that it has are complete by then.
func (p *planner) setWord(index uint32, old *Served, next PolicyWord) {
	if !p.have.policies.enforces {
		return
	}
	before := p.have.policies.words[index]
	if old != nil {
		p.countUses(before, -1)
	}
	p.countUses(next, 1)
	if next != before || old == nil && next != 0 {
		p.add(stepWords, setPolicies{index, next, old != nil, true})
	}
}

// removeWord plans that a frontend that is gone has no policies any more.
func (p *planner) removeWord(index uint32) {
	if p.have.policies.enforces && p.have.policies.words[index] != 0 {
		p.countUses(p.have.policies.words[index], -1)
		p.add(stepRetire, setPolicies{index, 0, true, false})
	}
}

func (p *planner) countUses(w PolicyWord, n int) {
	for _, id := range w.IDs() {
		p.policies.uses[id] += n
	}
}

// freePolicies plans that ids are freed that nobody wants, once no frontend has them.
func (p *planner) freePolicies() {
	have := &p.have.policies
	free := func(id uint32) (freed bool) {
		if int(id) < len(have.uses) && have.uses[id]+p.policies.uses[id] > 0 {
			return false
		}
		e := have.elements[id]
		p.leaveSet(e)
		e.Key = 0
		p.add(stepFree, freePolicy{id, e})
		return true
	}
	for _, key := range slices.Sorted(maps.Keys(p.policies.stale)) {
		if id, known := have.byKey[key]; known && p.target.policies.byKey[key] == nil {
			p.policies.stale[key] = !free(id)
		}
	}
	for _, id := range have.strays {
		free(id)
	}
}

// resetPolicies clears what ids have counted for those who had them before.
type resetPolicies struct{ ids map[uint32]bool }

func (o resetPolicies) write(t Tables) error        { return t.ResetPolicies(o.ids) }
func (o resetPolicies) record(*Contents, time.Time) {}
func (o resetPolicies) count(*Written)              {}
func (o resetPolicies) String() string              { return fmt.Sprintf("reset %d policies", len(o.ids)) }

// putPolicy writes a policy, or changes it. Its set is complete.
type putPolicy struct {
	id     uint32
	policy bpf.BlixtPolicy
}

func (o putPolicy) write(t Tables) error { return t.PutPolicy(o.id, o.policy) }
func (o putPolicy) record(c *Contents, now time.Time) {
	c.policies.put(o.id, o.policy, now)
	c.policies.byKey[o.policy.Key] = o.id
}
func (o putPolicy) count(w *Written) { w.Policies++ }
func (o putPolicy) String() string {
	return fmt.Sprintf("put policy %d: set %d, flags %d", o.id, setOfPolicy(o.policy), o.policy.Sources>>setBits)
}

// put records an element.
func (p *heldPolicies) put(id uint32, e bpf.BlixtPolicy, now time.Time) {
	old := p.elements[id]
	p.elements[id] = e
	if e.Key != 0 {
		p.sets.use(setOfPolicy(e), 1, now)
	}
	if old.Key != 0 {
		p.sets.use(setOfPolicy(old), -1, now)
	}
}

// freePolicy frees an id. No frontend has it. Its other words stay, so that it is seen
// that somebody had it.
type freePolicy struct {
	id     uint32
	policy bpf.BlixtPolicy // nobody's
}

func (o freePolicy) write(t Tables) error { return t.PutPolicy(o.id, o.policy) }
func (o freePolicy) record(c *Contents, now time.Time) {
	if key := c.policies.elements[o.id].Key; c.policies.byKey[key] == o.id {
		delete(c.policies.byKey, key)
	}
	c.policies.put(o.id, o.policy, now)
	c.policyIDs.release(o.id, now)
}
func (o freePolicy) count(w *Written) { w.Policies++ }
func (o freePolicy) String() string   { return fmt.Sprintf("free policy %d", o.id) }

// setPolicies switches a frontend to other policies by one store.
type setPolicies struct {
	index   uint32
	word    PolicyWord
	was, is bool // the index is a frontend's, before and after
}

func (o setPolicies) write(t Tables) error { return t.SetFrontendPolicies(o.index, o.word) }
func (o setPolicies) record(c *Contents, _ time.Time) {
	if o.was {
		c.policies.use(c.policies.words[o.index], -1)
	}
	c.policies.words[o.index] = o.word
	if o.is {
		c.policies.use(o.word, 1)
	}
}
func (o setPolicies) count(w *Written) { w.Policies++ }
func (o setPolicies) String() string {
	return fmt.Sprintf("set policies of frontend %d: %v", o.index, o.word.IDs())
}
