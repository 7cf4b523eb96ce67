// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"slices"
	"time"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// refIDs are the ids of backendRefs. An element of `ref_stats` tells whose it is, and
// stays his after the last of his backends has gone. So a backendRef finds its
// counters again when its endpoints come back, and after a restart. Only when no id
// is left that nobody has had, the one whose backends have been gone for longest
// is cleared and given to another backendRef.
type refIDs struct {
	keys []uint64          // by id: lb.BackendRef.Hash of whose it is; 0: nobody's
	ids  map[uint64]uint32 // the reverse
	uses []int             // by id: the backends in use that have it
	// inUse is how many ids have any.
	inUse int
	// gone are the ids that have lost their last backend, in that order. An entry
	// counts if goneAt has the same time, and no backend uses the id again.
	gone   []restingNumber
	goneAt map[uint32]time.Time // by id
}

// readRefs makes the ids of what the tables hold. backends must have been read.
func (c *Contents) readRefs(keys []uint64, now time.Time) {
	r := &c.refIDs
	*r = refIDs{keys: keys, ids: map[uint64]uint32{}, uses: make([]int, len(keys)), goneAt: map[uint32]time.Time{}}
	for _, b := range c.backends {
		r.use(b, 1)
	}
	for id := 1; id < len(keys); id++ {
		key := keys[id]
		if _, twice := r.ids[key]; key != 0 && !twice {
			r.ids[key] = uint32(id)
		}
		if r.uses[id] == 0 && key != 0 {
			r.release(uint32(id), now)
		}
	}
}

// use adds n to the uses of the id that a backend has.
func (r *refIDs) use(b Backend, n int) {
	if !inUse(b) || b.Ref == 0 || int(b.Ref) >= len(r.uses) {
		return
	}
	before := r.uses[b.Ref] > 0
	r.uses[b.Ref] += n
	switch after := r.uses[b.Ref] > 0; {
	case after && !before:
		r.inUse++
	case before && !after:
		r.inUse--
	}
}

// release has an id wait until somebody else needs it.
func (r *refIDs) release(id uint32, now time.Time) {
	r.goneAt[id] = now.Add(reuseGrace)
	r.gone = append(r.gone, restingNumber{id, r.goneAt[id]})
	if len(r.gone) > 2*len(r.keys) {
		r.gone = slices.DeleteFunc(r.gone, func(n restingNumber) bool { return !r.isGone(n) })
	}
}

// isGone reports whether an entry of gone counts.
func (r *refIDs) isGone(n restingNumber) bool {
	return r.uses[n.n] == 0 && n.until.Equal(r.goneAt[n.n])
}

// give records whose an id is.
func (r *refIDs) give(id uint32, key uint64) {
	if r.ids[r.keys[id]] == id {
		delete(r.ids, r.keys[id])
	}
	r.keys[id], r.ids[key] = key, id
}

// setBackend records an entry of `backends`.
func (c *Contents) setBackend(id uint32, b Backend, now time.Time) {
	old := c.Backend(id)
	if more := int(id) + 1 - len(c.backends); more > 0 {
		c.backends = append(c.backends, make([]Backend, more)...)
	}
	c.backends[id] = b
	c.refIDs.use(b, 1)
	c.refIDs.use(old, -1)
	if inUse(old) && int(old.Ref) < len(c.refIDs.uses) && c.refIDs.uses[old.Ref] == 0 && old.Ref != 0 {
		c.refIDs.release(old.Ref, now)
	}
}

// refPlan chooses ids for a plan, and leaves the contents as they are.
type refPlan struct {
	ids   map[lb.BackendRef]uint32
	taken map[uint32]uint64 // by id: whose it will be
	next  uint32            // this and all above have not been looked at
	gone  int               // the same, of refIDs.gone
	// lacks is true if a backend of the frontend that is planned finds no id.
	lacks bool
}

// refOf returns the id of the backendRef that a backend is an endpoint of: 0 if there
// is none. If no id is left, the backendRef is not counted, until one is.
func (p *planner) refOf(f *lb.Frontend, b *lb.Backend) uint32 {
	ref := f.RefOf(b)
	if ref == (lb.BackendRef{}) || len(p.have.refIDs.keys) == 0 {
		return 0
	}
	id, ok := p.refs.ids[ref]
	if !ok {
		id = p.findRef(ref)
		p.refs.ids[ref] = id
	}
	p.refs.lacks = p.refs.lacks || id == 0
	return id
}

func (p *planner) findRef(ref lb.BackendRef) uint32 {
	key := ref.Hash()
	id, known := p.have.refIDs.ids[key]
	if owner, taken := p.refs.taken[id]; known && (!taken || owner == key) {
		p.refs.taken[id] = key
		return id
	}
	if id = p.unusedRef(); id != 0 {
		p.refs.taken[id] = key
		p.add(stepRefs, giveRef{id, key, ref})
	}
	return id
}

// unusedRef returns an id that nobody uses; 0: there is none, or it still rests.
func (p *planner) unusedRef() uint32 {
	have := &p.have.refIDs
	for ; int(p.refs.next) < len(have.keys); p.refs.next++ {
		if id := p.refs.next; have.keys[id] == 0 && have.uses[id] == 0 && p.refs.taken[id] == 0 {
			return id
		}
	}
	for ; p.refs.gone < len(have.gone); p.refs.gone++ {
		n := have.gone[p.refs.gone]
		if n.until.After(p.now) {
			return 0
		}
		if have.isGone(n) && p.refs.taken[n.n] == 0 {
			return n.n
		}
	}
	return 0
}
