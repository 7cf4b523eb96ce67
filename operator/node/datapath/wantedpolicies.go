// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/kubernetes-sigs/blixt/operator/lb"
)

// wantedPolicies are the restrictions of a target's frontends, and their sets of sources.
type wantedPolicies struct {
	byKey map[uint64]*wantedPolicy
	sets  map[string]wantedSet // by policy
	// digests counts the sets of the same content, entries those of them all.
	digests map[digest]int
	entries int

	// What has changed since the tables held it, or did not fit into them.
	stale     map[uint64]bool
	staleSets map[string]bool
}

// wantedPolicy is what one policy demands of the flows to one of its targets.
type wantedPolicy struct {
	lb.Restriction
	frontends int // that have it
}

// wantedSet is a set of sources of a target. It is never modified, but replaced.
type wantedSet struct {
	*lb.SourceSet
	sum    lb.Sum
	digest digest
	size   int // in entries
}

func newWantedPolicies() wantedPolicies {
	return wantedPolicies{
		byKey: map[uint64]*wantedPolicy{}, sets: map[string]wantedSet{}, digests: map[digest]int{},
		stale: map[uint64]bool{}, staleSets: map[string]bool{},
	}
}

// policyKey returns 64 bits that stand for whose an id of `policies` is: restrictions of
// the same policy, target and mode share their limits. They are never zero. Whoever chooses
// names cannot choose the hash of somebody else.
func policyKey(r *lb.Restriction) uint64 {
	hash := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%t", r.Policy, r.Target, r.DryRun))
	return max(binary.LittleEndian.Uint64(hash[:]), 1)
}

// count adds the restrictions of a frontend, n times.
func (w *wantedPolicies) count(f *lb.Frontend, n int) {
	for i := range f.Restrictions {
		r := &f.Restrictions[i]
		key := policyKey(r)
		p := w.byKey[key]
		if p == nil {
			p = &wantedPolicy{}
			w.byKey[key] = p
		}
		if p.frontends += n; p.frontends == 0 {
			delete(w.byKey, key)
			w.stale[key] = true
		} else if n > 0 && !reflect.DeepEqual(p.Restriction, *r) {
			p.Restriction = *r
			w.stale[key] = true
		}
	}
}

// setSources replaces the set of a policy; nil: it is gone.
func (t *Target) setSources(policy string, now *lb.SourceSet) {
	w := &t.policies
	old, known := w.sets[policy]
	if known && now != nil && sameSources(old.SourceSet, now) {
		return
	}
	if known {
		t.sum.Remove(old.sum)
		if w.digests[old.digest]--; w.digests[old.digest] == 0 {
			delete(w.digests, old.digest)
			w.entries -= old.size
		}
		delete(w.sets, policy)
	}
	if now != nil {
		entries := sourceEntries(now, 0)
		next := wantedSet{now, now.Sum(), digestOf(entries), len(entries)}
		t.sum.Add(next.sum)
		if w.digests[next.digest]++; w.digests[next.digest] == 1 {
			w.entries += next.size
		}
		w.sets[policy] = next
	}
	w.staleSets[policy] = true
}

func (t *Target) replaceSources(sources []lb.SourceSet) {
	wanted := make(map[string]bool, len(sources))
	for i := range sources {
		wanted[sources[i].Policy] = true
		t.setSources(sources[i].Policy, &sources[i])
	}
	for policy := range maps.Keys(t.policies.sets) {
		if !wanted[policy] {
			t.setSources(policy, nil)
		}
	}
}

func sameSources(a, b *lb.SourceSet) bool {
	return a.OnlyAllowed == b.OnlyAllowed && slices.Equal(a.Allow, b.Allow) && slices.Equal(a.Deny, b.Deny)
}

// checkSources returns an error if sets are not normalized.
func checkSources(sets []lb.SourceSet) error {
	policies := make(map[string]bool, len(sets))
	for i := range sets {
		s := &sets[i]
		if policies[s.Policy] {
			return fmt.Errorf("state: sources of policy %s twice", s.Policy)
		}
		policies[s.Policy] = true
		for _, list := range [][]netip.Prefix{s.Allow, s.Deny} {
			for i, p := range list {
				switch {
				case !p.IsValid() || p != p.Masked() || p.Addr().Is4In6():
					return fmt.Errorf("state: %s is no prefix that policy %s may have", p, s.Policy)
				case i > 0 && list[i-1].Compare(p) >= 0:
					return fmt.Errorf("state: prefixes of policy %s are not in order, or %s is there twice", s.Policy, p)
				}
			}
		}
		for _, p := range s.Deny {
			if _, both := slices.BinarySearchFunc(s.Allow, p, netip.Prefix.Compare); both {
				return fmt.Errorf("state: policy %s both allows and denies %s", s.Policy, p)
			}
		}
	}
	return nil
}
